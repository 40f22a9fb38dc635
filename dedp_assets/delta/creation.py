"""Creates our own tables. Several processes may do so at the same time."""

from contextlib import suppress

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError

from dedp_assets.delta.problems import named_problems


def create_if_missing(uri: str, schema: pa.Schema, storage_options: dict[str, str], partition_by: list[str]) -> None:
    """Create an empty Delta table if there is none. If several processes try at once, one of them creates it.

    Args:
        uri: a local path, or the URI of an object store.
        schema: the schema of a new table. An existing table keeps its own.
        storage_options: delta-rs' options for that store; empty for a path.
        partition_by: the names of a new table's partition columns.

    Raises:
        TableUnreachable: the folder or the store refused the table.
    """
    with named_problems(uri, "written"):
        if DeltaTable.is_deltatable(uri, storage_options):
            return
    # No retries: with mode="ignore", the slower of two processes would commit its creation after the other's.
    with suppress(CommitFailedError), named_problems(uri, "written"):
        DeltaTable.create(
            uri,
            schema,
            mode="ignore",
            partition_by=partition_by,
            storage_options=storage_options,
            commit_properties=CommitProperties(max_commit_retries=0),
        )
