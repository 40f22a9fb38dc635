"""Files that land: which days have something new to take in.

A landed file is one of two. `devices/2024-01-03/dataset.csv` belongs to its day: every version of it is an event
for that day. `devices/dataset.csv` belongs to no day: each day that is over and has not been taken in takes it
once, and a later version is for later days.

Nothing waits here in the sense of holding a slot: a tick looks, decides and ends.
"""

import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from pathlib import Path
from typing import NamedTuple

import dagster as dg

from dedp_assets import settings
from dedp_assets.isolated_sequencer import contract
from dedp_assets.isolated_sequencer.loader import landing

# One run takes a burst of consecutive days; more than these are split, so that a retry does not repeat a year.
MAX_DAYS_PER_RUN = 100

UNDATED = ""


class FileVersion(NamedTuple):
    """What tells one version of a file from the next: size in bytes, time of change in ns, inode."""

    size: int
    modified_ns: int
    inode: int


@dataclass(frozen=True)
class Listing:
    """What a look at the landing folder found: a version for each day (UNDATED for none), and what went wrong.

    `unusable`: days that have a file of their own which can't be taken; it keeps them from the undated one.
    """

    files: dict[str, FileVersion] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unusable: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Cursor:
    """What the ticks before have left: kept by Dagster, as JSON.

    `unsettled`: since when (s since the epoch) a version has been seen that was not complete yet.
    `taken`: the version that was last requested for each dated day.
    `undated`: the version of the undated file that was last requested, and `undated_days`, for which days.
    """

    unsettled: dict[str, tuple[FileVersion, float]] = field(default_factory=dict)
    taken: dict[str, FileVersion] = field(default_factory=dict)
    undated: FileVersion | None = None
    undated_days: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        return json.dumps(self.__dict__)

    @classmethod
    def from_json(cls, text: str | None) -> "Cursor":
        """The cursor that was stored, or an empty one; both when there is none and when it is not ours."""
        try:
            stored = json.loads(text or "{}")
            return cls(
                unsettled={key: (FileVersion(*v), since) for key, (v, since) in stored["unsettled"].items()},
                taken={key: FileVersion(*version) for key, version in stored["taken"].items()},
                undated=FileVersion(*stored["undated"]) if stored["undated"] else None,
                undated_days=stored["undated_days"],
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            # Safe: run keys and the materialized days tell what was taken in before.
            return cls()


class Request(NamedTuple):
    """Consecutive days to take in with one run. The run key makes asking for the same versions twice harmless."""

    days: list[str]
    run_key: str


@dataclass(frozen=True)
class Decision:
    """What a tick does: runs to request, the cursor to keep, and what to tell whoever reads the tick."""

    requests: list[Request]
    cursor: Cursor
    notes: list[str]


def decide(
    listing: Listing,
    cursor: Cursor,
    *,
    now: float,
    settle_seconds: float,
    due: Sequence[str],
    undated_due: Sequence[str],
    materialized: Collection[str],
) -> Decision:
    """Which days to take in now.

    now: s since the epoch. due: days that are over, in order. undated_due: those that may take the undated file.
    materialized: days that have been taken in, from whichever file.
    """
    notes = list(listing.problems)
    unsettled = _unsettled(listing, cursor, now, settle_seconds)
    notes += [f"{_name(day)} is not complete yet: changed less than {settle_seconds:g} s ago" for day in unsettled]

    taken, wanted, positions = dict(cursor.taken), {}, set(due)
    for day, version in listing.files.items():
        if day == UNDATED or day in unsettled or taken.get(day) == version:
            continue
        if day in positions:
            wanted[day] = taken[day] = version
        else:
            notes.append(_not_due(day, due))

    undated, undated_days = cursor.undated, cursor.undated_days
    if UNDATED in listing.files and UNDATED not in unsettled:
        current = listing.files[UNDATED]
        asked = set(undated_days) if undated == current else set()
        # Days that have been taken in need no entry: `materialized` has them.
        elsewhere = {*listing.files, *listing.unusable, *materialized}
        undated_days = [day for day in undated_due if day not in elsewhere]
        wanted |= {day: current for day in undated_days if day not in asked}
        undated = current

    requests = [_request(days, wanted) for days in _runs_of(sorted(wanted), due)]
    return Decision(requests, Cursor(unsettled, taken, undated, undated_days), notes)


def _unsettled(
    listing: Listing, cursor: Cursor, now: float, settle_seconds: float
) -> dict[str, tuple[FileVersion, float]]:
    """The files that have not been unchanged for long enough, with the time since when they have been.

    Both clocks count: a file that is old by its own time of change is complete at the first look; one whose time
    lies in the future, because its writer's clock is wrong, is complete when we have seen it unchanged.
    """
    unsettled = {}
    for day, version in listing.files.items():
        known, since = cursor.unsettled.get(day, (None, now))
        if known != version:
            since = now
        since = min(since, version.modified_ns / 1e9)
        if now - since < settle_seconds:
            unsettled[day] = (version, since)
    return unsettled


def _not_due(day: str, due: Sequence[str]) -> str:
    if due and day < due[0]:
        return f"{_name(day)} is older than the first partition, {due[0]}: not taken in"
    return f"{_name(day)} waits: its day (UTC) is not over"


def _name(day: str) -> str:
    return f"{day}/{landing.FILE_NAME}" if day else landing.FILE_NAME


def _runs_of(days: Sequence[str], due: Sequence[str]) -> Iterator[list[str]]:
    """The days in groups that are consecutive in `due` and not too long."""
    position = {day: number for number, day in enumerate(due)}
    group: list[str] = []
    for day in days:
        if group and (position[day] != position[group[-1]] + 1 or len(group) == MAX_DAYS_PER_RUN):
            yield group
            group = []
        group.append(day)
    if group:
        yield group


def _request(days: list[str], versions: dict[str, FileVersion]) -> Request:
    what = json.dumps([[day, *versions[day]] for day in days])
    label = days[0] if len(days) == 1 else f"{days[0]}...{days[-1]}"
    return Request(days, f"{label}:{hashlib.sha256(what.encode()).hexdigest()[:16]}")


def look(folder: Path) -> Listing:
    """The files in the landing folder. What can't be read is a problem of its own and hides nothing else."""
    listing = Listing()
    _add(listing, UNDATED, folder / landing.FILE_NAME)
    try:
        entries = sorted(os.listdir(folder))
    except FileNotFoundError:
        listing.problems.append(f"{folder} does not exist yet: nothing has arrived")
        return listing
    except OSError as error:
        listing.problems.append(f"{folder} can't be read: {error.strerror}")
        return listing
    for name in entries:
        path = folder / name / landing.FILE_NAME
        if _is_day(name):
            _add(listing, name, path)
        elif os.path.exists(path):
            listing.problems.append(f"{name}/{landing.FILE_NAME} is ignored: {name!r} is not a day like 2024-01-31")
    return listing


def _add(listing: Listing, day: str, path: Path) -> None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        if not path.is_symlink():
            return
        problem = "is a link to nothing"
    except OSError as error:
        problem = f"can't be read: {error.strerror}"
    else:
        if not stat.S_ISREG(status.st_mode):
            problem = "is not a file"
        elif os.access(path, os.R_OK):
            listing.files[day] = FileVersion(status.st_size, status.st_mtime_ns, status.st_ino)
            return
        elif os.path.lexists(path):
            problem = "can't be read: Permission denied"
        else:
            return  # it vanished just now
    listing.problems.append(f"{_name(day)} {problem}")
    listing.unusable.add(day)


def _is_day(name: str) -> bool:
    try:
        return date.fromisoformat(name).isoformat() == name
    except ValueError:
        return False


def run_request(request: Request) -> dg.RunRequest:
    """One partition, or a range of partitions as a single run."""
    first, last = request.days[0], request.days[-1]
    days = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    return dg.RunRequest(
        run_key=request.run_key,
        asset_selection=[contract.DEVICES_FILE],
        partition_key=first if first == last else None,
        tags={} if first == last else days,
    )


@dg.sensor(
    target=dg.AssetSelection.assets(contract.DEVICES_FILE),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=1,
)
def devices_landed(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Takes in each day's devices file once it is there, complete and new. Waiting costs no run."""
    now = datetime.now(timezone.utc)
    folder = landing.folder()
    decision = decide(
        look(folder),
        Cursor.from_json(context.cursor),
        now=now.timestamp(),
        settle_seconds=settings.settle_seconds(),
        due=contract.due_days(now),
        undated_due=contract.due_days(now, settings.start()),
        materialized=context.instance.get_materialized_partitions(contract.DEVICES_FILE),
    )
    for note in decision.notes:
        context.log.info(note)
    return dg.SensorResult(
        run_requests=[run_request(request) for request in decision.requests],
        skip_reason=None if decision.requests else "; ".join(decision.notes[:20]) or f"nothing new in {folder}",
        cursor=decision.cursor.to_json(),
    )
