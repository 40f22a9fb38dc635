"""Takes in the files that have landed: each content is appended once, whatever runs do at the same time.

A run takes in whatever waits, and not one day's files: nobody knows which days a file has events of before Spark has
read it. The commit is the lock: it fails if somebody else has committed since the table was opened. Then the run looks
again at what is left to do. Lines that are no events are set aside before, in a table of their own.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pydantic import Field

from dedp_assets.delta.overtaken import pauses
from dedp_assets.flight_search import contract, searches
from dedp_assets.flight_search.copies import Copy, copies_of
from dedp_assets.flight_search.events import SCHEMA, VALUES, check_lines
from dedp_assets.flight_search.reading import read_lines, read_searches
from dedp_assets.landing.copying import SeenSince
from dedp_assets.landing.directories import Directory, Scan, scan_directory
from dedp_assets.landing.versions import FileVersion
from dedp_assets.resources.lake import LakeResource
from dedp_assets.resources.spark_limits import LimitedSpark, SparkLimits

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

DAY = contract.PARTITION_COLUMN

# What becomes of a line that is an event: it is appended, or it is there already. Else it is set aside with a reason.
NEW, KNOWN = "new", "known"
# Why a line is set aside although it is an event.
CONFLICT = "search_id: known on this day with other values"

# The events of so many bytes of files are in the memory of the run at once.
_BATCH_BYTES, _BATCH_FILES = 128 << 20, 1000
# A message names at most so many files.
_NAMED = 3


class Ingestion(SparkLimits):
    """The configuration of the ingestion: its limits, and what the sensor knows."""

    complete: dict[str, str] = Field(
        default={},
        description="Versions of files that the sensor has seen complete, by name. The run need not wait for these.",
    )


@dataclass(frozen=True)
class FileAccount:
    """What became of the lines of a file.

    Attributes:
        events: how many were appended.
        known: how many events the table had already, or the file has twice.
        bad: how many were set aside, by reason.
    """

    name: str
    events: int = 0
    known: int = 0
    bad: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Ingested:
    """What a run has taken in.

    Attributes:
        files: what became of each file, in order.
        same: files whose content had been taken in before.
        days: how many events were appended to each day.
        version: the version of the table now.
        notes: files that were left for a later run, with the reason.
    """

    files: Sequence[FileAccount]
    same: Sequence[str]
    days: Mapping[str, int]
    version: int
    notes: Sequence[str]


def landing_directory() -> Directory:
    """The folder that files arrive in, and which of its files are meant."""
    return Directory("flight_searches", contract.landing_folder(), patterns=("*.jsonl",))


def waiting_files(scan: Scan, taken: searches.Taken) -> list[str]:
    """The names of the files that are there in a version that was not taken in, in order. Empty files do not count."""
    return sorted(name for name, version in scan.files.items() if version.size and not taken.is_taken(name, version))


def ingest(
    lake: LakeResource,
    open_spark: Callable[[], LimitedSpark],
    *,
    settle_seconds: float,
    now: datetime,
    complete: Mapping[str, FileVersion] = MappingProxyType({}),
) -> Ingested:
    """Take in every file that has landed and is complete.

    Args:
        lake: where the tables are.
        open_spark: opens Spark. It is called once, and only if there is something to do.
        settle_seconds: how long a file must be unchanged to be complete, in s.
        now: the time (UTC).
        complete: versions of files, by name, that are known to be complete.

    Raises:
        TableProblem: a table can't be read or written.
        OvertakenTooOften: others kept committing first.
        DedpError: what Spark, or the copying of files, raises.
    """
    scan = scan_directory(landing_directory())
    taken = searches.taken_in(searches.open_searches(lake), lake.storage_options())
    notes = [*scan.problems, *([scan.failure] if scan.failure else [])]
    files: list[FileAccount] = []
    same: list[str] = []
    days: Counter[str] = Counter()
    spark = cache(open_spark)
    landing = contract.landing_folder()
    seen = SeenSince({landing / name: version for name, version in complete.items()})
    with copies_of(landing, waiting_files(scan, taken), settle_seconds, seen, notes) as copies:
        for batch in batches(copies, _BATCH_BYTES, _BATCH_FILES):
            done = _take_in(batch, lake, spark, now)
            files += done.files
            same += done.same
            days.update(done.days)
            for copy in batch:
                copy.remove()
    return Ingested(files, same, dict(sorted(days.items())), searches.open_searches(lake).version(), notes)


def batches(copies: Iterable[Copy], most_bytes: int, most_files: int) -> Iterator[list[Copy]]:
    """Group copies, in their order. A file that is larger than `most_bytes` has a group of its own."""
    batch: list[Copy] = []
    size = 0
    for copy in copies:
        if batch and (size + copy.version.size > most_bytes or len(batch) == most_files):
            yield batch
            batch, size = [], 0
        batch.append(copy)
        size += copy.version.size
    if batch:
        yield batch


class _Appended(NamedTuple):
    files: Sequence[FileAccount]
    same: Sequence[str]
    days: Mapping[str, int]


def _take_in(batch: Sequence[Copy], lake: LakeResource, spark: Callable[[], LimitedSpark], now: datetime) -> _Appended:
    """Take in some files in one commit."""
    versions = {copy.name: copy.version for copy in batch}
    overtaken = pauses("the searches")
    while True:
        # Open the table first, and then look at what it has. If somebody commits in between, our commit fails.
        table = searches.open_searches(lake)
        taken = searches.taken_in(table, lake.storage_options())
        # Of files with the same content, the first one counts.
        new: dict[str, Copy] = {}
        for copy in batch:
            if copy.sha256 not in taken.contents:
                new.setdefault(copy.sha256, copy)
        same = [copy.name for copy in batch if new.get(copy.sha256) is not copy]
        try:
            if not new:
                if not all(taken.is_taken(name, version) for name, version in versions.items()):
                    searches.append(table, SCHEMA.empty_table(), (), versions)
                return _Appended([], same, {})
            checked = _check([*new.values()], table, lake, spark(), now)
            _set_aside(checked.bad, new, lake, now)
            spark().check_time(f"taking in {_listed(new.values())}")
            searches.append(table, checked.events, new.keys(), versions)
        except searches.Overtaken:
            next(overtaken)
            continue
        return _Appended(checked.accounts, same, checked.days)


class _Checked(NamedTuple):
    """What the lines of some files are.

    Attributes:
        events: the new events, as rows of `events.SCHEMA`.
        bad: the lines to set aside, as rows of file, reason, line.
        accounts: what became of each file.
        days: how many new events each day has.
    """

    events: pa.Table
    bad: pa.Table
    accounts: list[FileAccount]
    days: dict[str, int]


def _check(
    copies: Sequence[Copy], table: DeltaTable, lake: LakeResource, spark: LimitedSpark, now: datetime
) -> _Checked:
    """Have Spark read files, and compare their events with each other and with those that the table has."""
    doing = f"reading {_listed(copies)}"
    lines = check_lines(read_lines(spark, [copy.path for copy in copies]), now.date())
    days = spark.run(doing, lines.where("reason IS NULL").select(DAY).distinct().toArrow)[DAY].to_pylist()
    snapshot = lake.open_log(contract.SEARCHES, DAY).snapshot(table.version())
    columns = [DAY, "search_id", *VALUES]
    known = read_searches(spark, table, snapshot, columns, [day.isoformat() for day in sorted(days)])
    rows = spark.run(doing, spark.within_cores(with_outcomes(lines, known)).toArrow)
    return sort_out(rows, {copy.path.parent.name: copy.name for copy in copies})


def with_outcomes(lines: "DataFrame", known: "DataFrame") -> "DataFrame":
    """Say what becomes of each line.

    Args:
        lines: what `check_lines` gave.
        known: the events that the table has on the days of these lines.

    Returns:
        A row for each line, with the columns of `lines`, and `outcome`: NEW, KNOWN, or why it is set aside.
    """
    # All in one window over a union, because a join may have two stages at once, which would be too many tasks.
    everything = lines.selectExpr("*", "1 AS turn").unionByName(
        known.selectExpr("*", "0 AS turn"), allowMissingColumns=True
    )
    values = f"struct({', '.join(VALUES)})"
    # A line that is no event has no identity. It is compared with lines like it, which changes nothing.
    window = f"(PARTITION BY {DAY}, search_id, IF(reason IS NULL, 0, hash(line)) ORDER BY turn, file, line)"
    return (
        everything.selectExpr(
            "*", f"first_value({values}) OVER {window} AS first", f"row_number() OVER {window} AS number"
        )
        .where("turn = 1")
        .selectExpr(
            *SCHEMA.names,
            "line",
            f"""
            CASE
                WHEN reason IS NOT NULL THEN reason
                WHEN number = 1 THEN '{NEW}'
                WHEN {values} = first THEN '{KNOWN}'
                ELSE '{CONFLICT}'
            END AS outcome
            """,
        )
    )


def sort_out(rows: pa.Table, names: Mapping[str, str]) -> _Checked:
    """Tell the rows of `with_outcomes` apart.

    Args:
        rows: the rows, with the name of a copy's folder as `file`.
        names: by the name of a copy's folder, the name of the file. Each file has an account, even without lines.
    """
    order = pc.index_in(rows["file"], value_set=pa.array([*names]))
    rows = rows.set_column(rows.schema.get_field_index("file"), "file", pa.array(names.values()).take(order))
    outcomes: dict[str, dict[str, int]] = {name: {} for name in names.values()}
    for counted in rows.group_by(["file", "outcome"]).aggregate([([], "count_all")]).to_pylist():
        outcomes[counted["file"]][counted["outcome"]] = counted["count_all"]
    events = rows.filter(pc.equal(rows["outcome"], NEW)).select(SCHEMA.names).cast(SCHEMA)
    is_bad = pc.invert(pc.is_in(rows["outcome"], value_set=pa.array([NEW, KNOWN])))
    bad = rows.filter(is_bad).select(["file", "outcome", "line"]).rename_columns(["file", "reason", "line"])
    days = Counter(day.isoformat() for day in events[DAY].to_pylist())
    return _Checked(events, bad, [_account(name, found) for name, found in outcomes.items()], dict(days))


def _account(name: str, outcomes: Mapping[str, int]) -> FileAccount:
    bad = {outcome: number for outcome, number in sorted(outcomes.items()) if outcome not in (NEW, KNOWN)}
    return FileAccount(name, outcomes.get(NEW, 0), outcomes.get(KNOWN, 0), bad)


def _set_aside(bad: pa.Table, new: Mapping[str, Copy], lake: LakeResource, now: datetime) -> None:
    """Write the bad lines of each content into the quarantine, unless they are there already.

    They are written before the events. If the run is killed in between, the next one finds them there.

    Raises:
        Overtaken: somebody else has written to the quarantine meanwhile.
    """
    if not bad.num_rows:
        return
    table = searches.open_quarantine(lake)
    done = searches.taken_in(table, lake.storage_options()).contents
    sha256_of = {copy.name: sha256 for sha256, copy in new.items()}
    sha256s = pa.array([sha256_of[name] for name in bad["file"].to_pylist()], pa.string())
    rows = bad.append_column("sha256", sha256s).append_column(
        "taken_in_at", pa.array([now] * bad.num_rows, pa.timestamp("us", "UTC"))
    )
    rows = rows.filter(pc.invert(pc.is_in(sha256s, value_set=pa.array([*done], pa.string()))))
    if rows.num_rows:
        contents = set(rows["sha256"].to_pylist())
        searches.append(
            table, rows.select(searches.QUARANTINE_SCHEMA.names).cast(searches.QUARANTINE_SCHEMA), contents, {}
        )


def _listed(copies: Iterable[Copy]) -> str:
    names = sorted(copy.name for copy in copies)
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more files" if len(names) > _NAMED else "")
