"""The table of results, and in the same commits which input they reflect.

Each commit that writes the counts of a partition carries application transactions for it (Delta's own record of
'this writer has come so far'), so that result and input version can't disagree, whoever dies when:

    lake/devices/<table id>/<day>        the version of the input that was read
    lake/devices/<table id>/<day>/files  the fingerprint of its files
    lake/devices/<day>/stamps            their stamp
    lake/devices/<day>/table             63 bits that tell the input's table id from others

The last two are younger: they may be missing. What is recorded for a table holds while it is the one that was counted
last: another one may have been in its place meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from dedp_assets.days import day_of
from dedp_assets.delta.commits import hash_63
from dedp_assets.delta.creation import create_if_missing
from dedp_assets.delta.reading import read_columns
from dedp_assets.delta.transactions import read_transactions
from dedp_assets.late_data_integrator.contract import PARTITION_COLUMN

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


# Under this table id stand the days of which nobody knows which table their counts reflect.
UNKNOWN_TABLE = ""


class Recorded(NamedTuple):
    """The input that a day's counts reflect: the version of the table that was read, the fingerprint of its files.

    stamp: tells the same files from themselves, rewritten in place; None in what was recorded before there was one.
    """

    version: int
    fingerprint: int
    stamp: int | None = None


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
        """What the counts of a day reflect of the input table with this id; None if they reflect another, or none."""
        return self._recorded.get(table_id, {}).get(day)

    def all_recorded(self) -> dict[str, dict[str, Recorded]]:
        """The same of every day that was ever computed: each stands under the id of the one table that it reflects.

        Under UNKNOWN_TABLE if nobody knows which one that is.
        """
        return {table_id: dict(days) for table_id, days in self._recorded.items()}

    @cached_property
    def _recorded(self) -> dict[str, dict[str, Recorded]]:
        return what_holds(read_transactions(self.table, self.storage_options, prefix=f"{_APP}/"))

    def rows_counted(self, days: Sequence[str]) -> dict[str, int]:
        """How many input rows the counts of each day stand for."""
        wanted = PARTITION_COLUMN, [date.fromisoformat(day) for day in days]
        return rows_counted(read_columns(self.table, [PARTITION_COLUMN, "count"], wanted))

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
            for app_id, value in _transactions(table_id, day, recorded).items()
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


def rows_counted(counts: pa.Table) -> dict[str, int]:
    """How many input rows these counts stand for, per day."""
    sums = counts.group_by(PARTITION_COLUMN).aggregate([("count", "sum")])
    days = pc.strftime(sums[PARTITION_COLUMN], format="%Y-%m-%d").to_pylist()
    return dict(zip(days, sums["count_sum"].to_pylist(), strict=True))


def what_holds(transactions: Mapping[str, int]) -> dict[str, dict[str, Recorded]]:
    """What each day's counts reflect, by table id and day, from all application transactions.

    What was recorded before it was said which table was counted last holds if there was only one.
    """
    by_day: dict[str, dict[str, Recorded]] = {}
    for app_id, version in transactions.items():
        table_id, _, day = app_id.removeprefix(f"{_APP}/").rpartition("/")
        fingerprint = transactions.get(f"{app_id}/files")
        if fingerprint is not None and day_of(day):
            by_day.setdefault(day, {})[table_id] = Recorded(version, fingerprint, transactions.get(_stamps_id(day)))
    found: dict[str, dict[str, Recorded]] = {}
    for day, tables in sorted(by_day.items()):
        last = transactions.get(_table_id(day))
        holding = [table_id for table_id in tables if last is None or hash_63(table_id) == last]
        table_id = holding[0] if len(holding) == 1 else UNKNOWN_TABLE
        found.setdefault(table_id, {})[day] = tables.get(table_id) or next(iter(tables.values()))
    return found


def _transactions(table_id: str, day: str, recorded: Recorded) -> dict[str, int]:
    # The table's id is in it: one that is made again under the same path begins again at version 0.
    whole = {
        f"{_APP}/{table_id}/{day}": recorded.version,
        f"{_APP}/{table_id}/{day}/files": recorded.fingerprint,
        _table_id(day): hash_63(table_id),
    }
    return whole if recorded.stamp is None else whole | {_stamps_id(day): recorded.stamp}


def _table_id(day: str) -> str:
    return f"{_APP}/{day}/table"


def _stamps_id(day: str) -> str:
    return f"{_APP}/{day}/stamps"
