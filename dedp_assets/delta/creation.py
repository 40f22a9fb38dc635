"""Creates a table that is our own, whoever else does so at the same time."""

from contextlib import suppress

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError


def create_if_missing(uri: str, schema: pa.Schema, storage_options: dict[str, str], partition_by: list[str]) -> None:
    """Create an empty Delta table if there is none; of several at once, one does.

    Args:
        uri: a local path, or an object store's URI.
        schema: of a new table; one that is there keeps its own.
        storage_options: delta-rs' for that store; none for a path.
        partition_by: the names of a new table's partition columns.
    """
    if DeltaTable.is_deltatable(uri, storage_options):
        return
    # No retries: with mode="ignore" the slower of two would commit its creation behind the first's.
    with suppress(CommitFailedError):
        DeltaTable.create(
            uri,
            schema,
            mode="ignore",
            partition_by=partition_by,
            storage_options=storage_options,
            commit_properties=CommitProperties(max_commit_retries=0),
        )
