"""Aggregates the searches of days, exactly once: how many there were of each route, and in each hour.

Each output records, in the same commit as its rows, which files of the input they reflect. A day is up to date if the
input has the same files now. If files are compacted, a day is aggregated again, with the same result.

    flights/searches/<day>/files    the fingerprint of the day's files
    flights/searches/<day>/version  the version of the input that was read
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import dagster as dg
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from dedp_assets.days import day_of
from dedp_assets.delta.commits import Snapshot
from dedp_assets.delta.overtaken import pauses
from dedp_assets.delta.problems import named_problems
from dedp_assets.delta.transactions import read_transactions
from dedp_assets.flight_search import contract, searches
from dedp_assets.flight_search.reading import read_searches
from dedp_assets.resources.lake import LakeResource
from dedp_assets.resources.spark_limits import LimitedSpark

DAY = contract.PARTITION_COLUMN

_APP = "flights/searches/"


@dataclass(frozen=True)
class Aggregation:
    """A table of counts, one row for each group of searches of a day.

    Attributes:
        key: the asset.
        groups: the columns of SQL that make a group beside the day: by name, the expression.
        schema: the columns of the table.
        descriptions: a sentence or two about each column.
    """

    key: dg.AssetKey
    groups: Mapping[str, str]
    schema: pa.Schema
    descriptions: Mapping[str, str]


_MEASURES = [pa.field("searches", pa.int64()), pa.field("passengers", pa.int64())]
_DESCRIPTIONS = {
    DAY: "The day of the searches (UTC). The table is partitioned by it.",
    "searches": "How many searches there were. At least 1.",
    "passengers": "For how many passengers they were, together.",
}

PER_ROUTE = Aggregation(
    contract.PER_ROUTE,
    {"origin": "origin", "destination": "destination"},
    pa.schema(
        [pa.field(DAY, pa.date32()), pa.field("origin", pa.string()), pa.field("destination", pa.string()), *_MEASURES]
    ),
    {
        **_DESCRIPTIONS,
        "origin": "The airport of departure, by its IATA code.",
        "destination": "The airport of arrival, by its IATA code.",
    },
)
PER_HOUR = Aggregation(
    contract.PER_HOUR,
    # In UTC, whatever the time zone of the session is.
    {"hour": "CAST(floor(unix_seconds(searched_at) / 3600) % 24 AS INT)"},
    pa.schema([pa.field(DAY, pa.date32()), pa.field("hour", pa.int32()), *_MEASURES]),
    {**_DESCRIPTIONS, "hour": "The hour of the day (UTC) in which somebody searched: 0 to 23."},
)
ALL = (PER_ROUTE, PER_HOUR)


class Refreshed(NamedTuple):
    """What was done for a day.

    Attributes:
        version: the version of the input that the day's rows reflect now.
        written: False if they were up to date before.
        searches: how many searches they stand for; None if nothing was written.
    """

    day: str
    version: int
    written: bool
    searches: int | None = None


def refresh(
    aggregation: Aggregation, days: Sequence[str], lake: LakeResource, open_spark: Callable[[], LimitedSpark]
) -> list[Refreshed]:
    """Bring days of a table up to date. All of them are written in one commit.

    Args:
        aggregation: which table.
        days: the days.
        lake: where the tables are.
        open_spark: opens Spark. It is called once, and only if there is something to do.

    Returns:
        For each day, in the order of `days`, what was done.

    Raises:
        TableProblem: a table can't be read or written.
        OvertakenTooOften: others kept committing first.
        DedpError: what Spark raises.
    """
    spark = cache(open_spark)
    counted_for: dict[str, int] = {}
    rows = aggregation.schema.empty_table()
    overtaken = pauses(_listed(days))
    while True:
        # Open the output first and the input second. If somebody commits in between, our commit fails. So our rows
        # never replace rows of newer input.
        output = lake.open_or_create(aggregation.key, aggregation.schema, [DAY])
        recorded = recorded_inputs(output, lake)
        table = searches.open_searches(lake)
        snapshot = lake.open_log(contract.SEARCHES, DAY).snapshot(table.version())
        behind = {day: snapshot.fingerprint(day) for day in days if not is_current(recorded, snapshot, day)}
        if behind and counted_for != behind:
            rows, counted_for = _aggregate(aggregation, [*behind], table, snapshot, spark()), behind
            spark().check_time(f"aggregating {_listed([*behind])}")
        if behind and not _replace(output, rows, behind, snapshot.version):
            next(overtaken)
            continue
        totals = _totals(rows)
        return [
            Refreshed(day, snapshot.version, True, totals.get(day, 0))
            if day in behind
            else Refreshed(day, recorded[day].version, False)
            for day in days
        ]


class Input(NamedTuple):
    """The input that a day's rows reflect: the fingerprint of its files, and the version of the table."""

    fingerprint: int
    version: int


def recorded_inputs(output: DeltaTable | None, lake: LakeResource) -> dict[str, Input]:
    """What each day of a table reflects.

    Args:
        output: the opened table, or None if there is none.
        lake: where it is.

    Raises:
        TableUnreachable: its log can't be read.
    """
    found = {} if output is None else read_transactions(output, lake.storage_options(), prefix=_APP)
    days = {app_id.removeprefix(_APP).removesuffix("/files") for app_id in found if app_id.endswith("/files")}
    return {
        day: Input(found[f"{_APP}{day}/files"], found.get(f"{_APP}{day}/version", 0)) for day in days if day_of(day)
    }


def is_current(recorded: Mapping[str, Input], snapshot: Snapshot, day: str) -> bool:
    """Whether a day's rows reflect this snapshot of the input."""
    return day in recorded and recorded[day].fingerprint == snapshot.fingerprint(day)


def _aggregate(
    aggregation: Aggregation, days: Sequence[str], table: DeltaTable, snapshot: Snapshot, spark: LimitedSpark
) -> pa.Table:
    columns = [DAY, "searched_at", "origin", "destination", "passengers"]
    rows = read_searches(spark, table, snapshot, columns, days)
    groups = [f"{expression} AS {name}" for name, expression in aggregation.groups.items()]
    query = (
        rows.selectExpr(DAY, *groups, "passengers")
        .groupBy(DAY, *aggregation.groups)
        .agg({"*": "count", "passengers": "sum"})
        .withColumnsRenamed({"count(1)": "searches", "sum(passengers)": "passengers"})
    )
    return (
        spark.run(f"aggregating {_listed(days)}", query.toArrow)
        .select(aggregation.schema.names)
        .cast(aggregation.schema)
    )


def _replace(output: DeltaTable, rows: pa.Table, reflects: Mapping[str, int], version: int) -> bool:
    """Replace the rows of days, and record what they reflect. Returns False if somebody else was faster."""
    transactions = [
        Transaction(f"{_APP}{day}/{name}", value)
        for day, fingerprint in reflects.items()
        for name, value in (("files", fingerprint), ("version", version))
    ]
    try:
        with named_problems(output.table_uri, "written"):
            write_deltalake(
                output,
                rows,
                mode="overwrite",
                predicate=f"{DAY} IN ({', '.join(repr(day) for day in reflects)})",
                # No retries: delta-rs would commit after another commit, whose input may be newer than ours.
                commit_properties=CommitProperties(app_transactions=transactions, max_commit_retries=0),
            )
    except CommitFailedError:
        return False
    return True


def _totals(rows: pa.Table) -> dict[str, int]:
    sums = rows.group_by(DAY).aggregate([("searches", "sum")]).to_pylist()
    return {row[DAY].isoformat(): row["searches_sum"] for row in sums}


def _listed(days: Sequence[str]) -> str:
    return ", ".join(days) if len(days) <= 3 else f"{len(days)} days from {min(days)} to {max(days)}"
