"""The table of searches. Each commit to it also records which files it has taken in.

A commit that appends the events of files carries application transactions. Delta has these for a writer to record how
far it has come. So the events and the record can't disagree, even if a process is killed:

    flights/searches/content/<sha256>  1: content that was taken in, under whatever name
    flights/searches/file/<name>       63 bits of the version in which the file of this name was taken in last

The first makes that content is appended once. The second says without reading a file that there is nothing to do.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from dedp_assets.delta.commits import hash_63
from dedp_assets.delta.problems import named_problems
from dedp_assets.delta.transactions import read_transactions
from dedp_assets.errors import TransientError
from dedp_assets.flight_search import contract, events
from dedp_assets.landing.versions import FileVersion
from dedp_assets.resources.lake import LakeResource

_CONTENT, _FILE = "flights/searches/content/", "flights/searches/file/"

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("file", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("line", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("taken_in_at", pa.timestamp("us", "UTC")),
    ]
)


class Overtaken(TransientError):
    """Somebody else has committed to the table since it was opened. Open it again, and see what is left to do."""


class Taken(NamedTuple):
    """What the table has taken in.

    Attributes:
        contents: the SHA-256 of each content.
        files: by the name of each file, 63 bits of its version.
    """

    contents: Collection[str]
    files: Mapping[str, int]

    def is_taken(self, name: str, version: FileVersion) -> bool:
        """Whether the file of this name was taken in, in this version."""
        return self.files.get(name) == _bits(version)


def open_searches(lake: LakeResource) -> DeltaTable:
    """The latest version of the table of searches. Creates the table if there is none.

    Raises:
        TableUnreachable: the table can't be read or created.
    """
    return lake.open_or_create(contract.SEARCHES, events.SCHEMA, [contract.PARTITION_COLUMN])


def open_quarantine(lake: LakeResource) -> DeltaTable:
    """The latest version of the table of lines that are no events. Creates the table if there is none."""
    return lake.open_or_create(contract.QUARANTINE, QUARANTINE_SCHEMA)


def taken_in(table: DeltaTable | None, storage_options: dict[str, str]) -> Taken:
    """What a table records, of the searches or of the quarantine.

    Args:
        table: the opened table, or None if there is none.
        storage_options: delta-rs' options for its store.

    Raises:
        TableUnreachable: the log can't be read.
    """
    found = {} if table is None else read_transactions(table, storage_options, prefix="flights/searches/")
    return Taken(
        {app_id.removeprefix(_CONTENT) for app_id in found if app_id.startswith(_CONTENT)},
        {app_id.removeprefix(_FILE): bits for app_id, bits in found.items() if app_id.startswith(_FILE)},
    )


def append(table: DeltaTable, rows: pa.Table, contents: Collection[str], files: Mapping[str, FileVersion]) -> None:
    """Append rows, and record where they come from, in one commit.

    Args:
        table: the table, as it was when the caller looked at what it has taken in.
        rows: the rows, in the table's schema.
        contents: the SHA-256 of each content that they come from.
        files: the files that are taken in now, with their versions.

    Raises:
        Overtaken: somebody has committed since the table was opened.
        TableUnreachable: the table can't be written.
    """
    transactions = [
        *(Transaction(f"{_CONTENT}{sha256}", 1) for sha256 in contents),
        *(Transaction(f"{_FILE}{name}", _bits(version)) for name, version in files.items()),
    ]
    try:
        with named_problems(table.table_uri, "written"):
            write_deltalake(
                table,
                rows,
                mode="append",
                # No retries: delta-rs sees no conflict between two appends, and would append the same events twice.
                commit_properties=CommitProperties(app_transactions=transactions, max_commit_retries=0),
            )
    except CommitFailedError as error:
        raise Overtaken(str(error)) from error


def _bits(version: FileVersion) -> int:
    return hash_63(version.to_text())
