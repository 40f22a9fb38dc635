"""The table of results, and in the same commits which input they reflect.

Each commit that writes the counts of a partition carries two application transactions for it (Delta's own record of
'this writer has come so far'), so that result and input version can't disagree, whoever dies when.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from dedp_assets.late_data_integrator.contract import PARTITION_COLUMN
from dedp_assets.late_data_integrator.transactions import read_transactions

SCHEMA = pa.schema(
    [
        pa.field(PARTITION_COLUMN, pa.date32()),
        pa.field("type", pa.string()),
        pa.field("full_name", pa.string()),
        pa.field("version", pa.string()),
        pa.field("count", pa.int64()),
    ]
)
_APP = "lake/devices"


class Recorded(NamedTuple):
    """The input that a day's counts reflect: the version of the table that was read, the fingerprint of its files."""

    version: int
    fingerprint: int


class Overtaken(Exception):
    """Somebody else has committed to the table since it was opened. Look again at what is left to do."""


@dataclass(frozen=True)
class DeviceCounts:
    """The table as of one version. Open it before the input is read: then `replace` fails if anybody was faster."""

    table: DeltaTable
    storage_options: dict[str, str]

    @classmethod
    def open(cls, uri: str, storage_options: dict[str, str]) -> "DeviceCounts":
        """The latest version of the table, which is created if it is not there."""
        create_if_missing(uri, SCHEMA, storage_options, partition_by=[PARTITION_COLUMN])
        return cls(DeltaTable(uri, storage_options=storage_options), storage_options)

    def recorded(self, table_id: str, day: str) -> Recorded | None:
        """What the counts of a day reflect of the input table with this id; None if they have never been computed."""
        version, fingerprint = (self.table.transaction_version(app_id) for app_id in _app_ids(table_id, day))
        return None if version is None or fingerprint is None else Recorded(version, fingerprint)

    def all_recorded(self) -> dict[str, dict[str, Recorded]]:
        """The same for every input table that there has ever been, by its id, and every day that was computed of it."""
        versions = read_transactions(self.table, self.storage_options, prefix=f"{_APP}/")
        found: dict[str, dict[str, Recorded]] = {}
        for app_id in versions:
            if not app_id.endswith("/files"):
                table_id, day = app_id.removeprefix(f"{_APP}/").split("/")
                version, fingerprint = (versions.get(both) for both in _app_ids(table_id, day))
                if version is not None and fingerprint is not None:
                    found.setdefault(table_id, {})[day] = Recorded(version, fingerprint)
        return found

    def rows_counted(self, days: Sequence[str]) -> dict[str, int]:
        """How many input rows the counts of each day stand for."""
        wanted = [(PARTITION_COLUMN, "in", [date.fromisoformat(day) for day in days])]
        return rows_counted(self.table.to_pyarrow_table(filters=wanted, columns=[PARTITION_COLUMN, "count"]))

    def replace(self, counts: pa.Table, table_id: str, reflects: Mapping[str, Recorded]) -> None:
        """Put these counts in place of what the days of `reflects` have, and record what they reflect, in one commit.

        counts: of SCHEMA, with rows of those days only; a day without rows becomes empty. Raises Overtaken if anybody
        has committed, to whichever day, since this table was opened.
        """
        days = ", ".join(f"'{day}'" for day in reflects)
        self._commit(
            counts.select(SCHEMA.names).cast(SCHEMA),
            table_id,
            reflects,
            mode="overwrite",
            predicate=f"{PARTITION_COLUMN} IN ({days})",
        )

    def record(self, table_id: str, reflects: Mapping[str, Recorded]) -> None:
        """Record what days reflect, leaving their counts as they are. Raises Overtaken as `replace` does."""
        self._commit(SCHEMA.empty_table(), table_id, reflects, mode="append")

    def _commit(self, rows: pa.Table, table_id: str, reflects: Mapping[str, Recorded], **how: Any) -> None:
        transactions = [
            Transaction(app_id, value)
            for day, recorded in reflects.items()
            for app_id, value in zip(_app_ids(table_id, day), recorded, strict=True)
        ]
        try:
            write_deltalake(
                self.table,
                rows,
                # No retries: delta-rs would commit behind another commit if it sees no conflict, and not see that the
                # input it has read is older than what that commit reflects.
                commit_properties=CommitProperties(app_transactions=transactions, max_commit_retries=0),
                **how,
            )
        except CommitFailedError as error:
            raise Overtaken(str(error)) from error


def create_if_missing(uri: str, schema: pa.Schema, storage_options: dict[str, str], partition_by: list[str]) -> None:
    """Create an empty Delta table if there is none; of several at once, one does."""
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


def rows_counted(counts: pa.Table) -> dict[str, int]:
    """How many input rows these counts stand for, per day."""
    sums = counts.group_by(PARTITION_COLUMN).aggregate([("count", "sum")])
    days = pc.strftime(sums[PARTITION_COLUMN], format="%Y-%m-%d").to_pylist()
    return dict(zip(days, sums["count_sum"].to_pylist(), strict=True))


def _app_ids(table_id: str, day: str) -> tuple[str, str]:
    # The table's id is in it: one that is made again under the same path begins again at version 0.
    return f"{_APP}/{table_id}/{day}", f"{_APP}/{table_id}/{day}/files"
