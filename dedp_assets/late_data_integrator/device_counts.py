"""The table of counts. Each commit to it also records which input the counts reflect.

A commit that writes the counts of a day carries application transactions for that day. Delta has these for a writer to
record how far it has come. So the counts and the recorded input version can't disagree, even if a process is killed:

    lake/devices/<table id>/<day>        the version of the input that was read
    lake/devices/<table id>/<day>/files  the fingerprint of its files
    lake/devices/<day>/stamps            their stamp
    lake/devices/<day>/table             63 bits that tell the input's table id from others

The last two came later, so they may be missing. Several input tables may have been at the same place, one after the
other. Only what is recorded for the table that was counted last is valid.
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
from dedp_assets.delta.problems import named_problems
from dedp_assets.delta.reading import read_columns
from dedp_assets.delta.transactions import read_transactions
from dedp_assets.errors import TransientError
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
# What each column is, for people who see the table in Dagster's UI.
DESCRIPTIONS = {
    PARTITION_COLUMN: "The day of the event (UTC). The table is partitioned by it.",
    "type": "The kind of device, such as mac. May be null.",
    "full_name": "The name of the device, such as MacBook Air. May be null.",
    "version": "The version of the device's operating system, as text. May be null.",
    "count": "How many rows of lake/devices have this day, type, full_name and version. At least 1.",
}

# The beginning of the application ids. Stored in tables that exist: it can't change.
_APP = "lake/devices"

# Stands in place of a table id for days whose counts reflect an unknown table.
UNKNOWN_TABLE = ""


class InputVersion(NamedTuple):
    """The input that a day's counts reflect.

    Attributes:
        version: the version of the input table that was read.
        fingerprint: a hash of the day's files; see `Snapshot.fingerprint`.
        stamp: a hash that also changes if a file is rewritten in place. None if it was recorded before stamps existed.
    """

    version: int
    fingerprint: int
    stamp: int | None = None


class Overtaken(TransientError):
    """Somebody else has committed to the table since it was opened. Open it again, and see what is left to do."""


@dataclass(frozen=True)
class DeviceCounts:
    """The table as of one version. Open it before you read the input: then `replace` fails if somebody was faster."""

    table: DeltaTable
    storage_options: dict[str, str]

    @classmethod
    def open(cls, uri: str, storage_options: dict[str, str]) -> "DeviceCounts":
        """The latest version of the table. Creates the table if there is none.

        Raises:
            TableUnreachable: the table can't be read or created.
        """
        create_if_missing(uri, SCHEMA, storage_options, partition_by=[PARTITION_COLUMN])
        with named_problems(uri):
            return cls(DeltaTable(uri, storage_options=storage_options), storage_options)

    def recorded(self, table_id: str, day: str) -> InputVersion | None:
        """The version of an input table that a day's counts reflect; None if they reflect another table, or none.

        Raises:
            TableUnreachable: the log can't be read.
        """
        return self._recorded.get(table_id, {}).get(day)

    def all_recorded(self) -> dict[str, dict[str, InputVersion]]:
        """What the counts of all counted days reflect, by the id of the input table and by day.

        Each day occurs once: under the table that its counts reflect, or under UNKNOWN_TABLE.

        Raises:
            TableUnreachable: the log can't be read.
        """
        return {table_id: dict(days) for table_id, days in self._recorded.items()}

    @cached_property
    def _recorded(self) -> dict[str, dict[str, InputVersion]]:
        return recorded_input_versions(read_transactions(self.table, self.storage_options, prefix=f"{_APP}/"))

    def rows_counted(self, days: Sequence[str]) -> dict[str, int]:
        """How many input rows the counts of each day stand for. Days without counts are left out."""
        wanted = PARTITION_COLUMN, [date.fromisoformat(day) for day in days]
        return rows_counted(read_columns(self.table, [PARTITION_COLUMN, "count"], wanted))

    def replace(self, counts: pa.Table, table_id: str, reflects: Mapping[str, InputVersion]) -> None:
        """Replace the counts of days, and record what the new counts reflect, in one commit.

        Args:
            counts: rows of SCHEMA, only of the days in `reflects`. A day without rows becomes empty.
            table_id: the id of the input table.
            reflects: for each day to replace, the input version that its counts reflect.

        Raises:
            Overtaken: somebody has committed since this table was opened, to whichever day.
            TableUnreachable: the table can't be written.
        """
        days = ", ".join(f"'{day}'" for day in reflects)
        self._commit(
            counts.select(SCHEMA.names).cast(SCHEMA),
            table_id,
            reflects,
            mode="overwrite",
            predicate=f"{PARTITION_COLUMN} IN ({days})",
        )

    def record(self, table_id: str, reflects: Mapping[str, InputVersion]) -> None:
        """Record what the counts of days reflect, and keep the counts. For arguments and errors see `replace`."""
        self._commit(SCHEMA.empty_table(), table_id, reflects, mode="append")

    def _commit(self, rows: pa.Table, table_id: str, reflects: Mapping[str, InputVersion], **how: Any) -> None:
        transactions = [
            Transaction(app_id, value)
            for day, recorded in reflects.items()
            for app_id, value in _transactions(table_id, day, recorded).items()
        ]
        try:
            with named_problems(self.table.table_uri, "written"):
                write_deltalake(
                    self.table,
                    rows,
                    # No retries: where delta-rs sees no conflict, it would commit after another commit. It does not
                    # know that our input is older than the input which that commit reflects.
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


def recorded_input_versions(transactions: Mapping[str, int]) -> dict[str, dict[str, InputVersion]]:
    """What each day's counts reflect, by the id of the input table and by day.

    Older versions of this code did not record which table was counted last. What they recorded is valid if they
    recorded only one table.

    Args:
        transactions: the version of each application transaction, by application id.
    """
    by_day: dict[str, dict[str, InputVersion]] = {}
    for app_id, version in transactions.items():
        table_id, _, day = app_id.removeprefix(f"{_APP}/").rpartition("/")
        fingerprint = transactions.get(f"{app_id}/files")
        if fingerprint is not None and day_of(day):
            by_day.setdefault(day, {})[table_id] = InputVersion(version, fingerprint, transactions.get(_stamps_id(day)))
    found: dict[str, dict[str, InputVersion]] = {}
    for day, tables in sorted(by_day.items()):
        last = transactions.get(_table_id(day))
        valid = [table_id for table_id in tables if last is None or hash_63(table_id) == last]
        table_id = valid[0] if len(valid) == 1 else UNKNOWN_TABLE
        found.setdefault(table_id, {})[day] = tables.get(table_id) or next(iter(tables.values()))
    return found


def _transactions(table_id: str, day: str, recorded: InputVersion) -> dict[str, int]:
    # The table's id is part of the application id, because a table that is made anew begins again at version 0.
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
