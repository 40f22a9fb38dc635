"""Deliveries of many suppliers: which of them to take now, and who has not delivered when the window closed.

A delivery is a folder `<supplier>/<day>` with data files and a marker. This is the rule, over plain values: what was
scanned (`landing.delivery_folders`) and what was taken already. The cursor remembers only what waits. One that was lost
costs a scan of all folders, and repeats nothing.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from dedp_assets.landing.directories import Directory, Scan
from dedp_assets.landing.versions import FileVersion
from dedp_assets.wording import shown_name

DATA_FILES = "data-*.csv"
MARKER = "_SUCCESS"

# Days that are so recent are scanned in every tick: the windows of the last two may be open.
RECENT_DAYS = 3
# Of the older folders, each tick scans so many. It finds whatever has changed in a folder that is known.
OLD_FOLDERS_PER_TICK = 10
# And it glances at so many, which costs less, and finds the usual kinds of rewrites.
GLANCES_PER_TICK = 100
# How many folders the cursor keeps. Others are found again when it is their turn.
MAX_WAITING = 1000
MAX_TOLD = 1000
# A run that takes more would lose more when it dies.
MAX_DELIVERIES_PER_RUN = 50
# A delivery that is larger has a run of its own, so that small ones do not wait for it.
LARGE_BYTES = 64 << 20
# A run that was asked for has so long to take its deliveries before they are asked for again. It doubles each time.
RUN_GRACE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 3600.0
# For how many closed windows the missing deliveries are remembered, and reported after an outage.
REMEMBERED_WINDOWS = 7

_CURSOR_VERSION = 1

# A supplier, and the day (YYYY-MM-DD) that the delivery is for.
Key: TypeAlias = tuple[str, str]

# What a folder holds:
# unreadable: the scan failed. no marker, no data: the delivery is not ready. changing: a file came or changed after the
# marker, and has to be seen unchanged for a while. complete: the marker was written after all files.
State = Literal["unreadable", "no marker", "no data", "changing", "complete"]
# There is a delivery, which may have to rest.
READY: tuple[State, ...] = ("changing", "complete")


def directory_of(root: Path, key: Key) -> Directory:
    """The folder of a delivery as a directory to scan. Its `client` is such as `supermarket1/2024-01-05`."""
    return Directory(
        client="/".join(key), path=root.joinpath(*key), patterns=(DATA_FILES,), completeness="marker", marker=MARKER
    )


def version_of(sha256s: Mapping[str, str]) -> str:
    """The version of a delivery: a SHA-256 over the names and contents of its data files.

    Args:
        sha256s: The SHA-256 of each data file, by its name.
    """
    lines = [f"{name}\0{sha256}\n" for name, sha256 in sorted(sha256s.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def look_of(files: Mapping[str, FileVersion]) -> str:
    """A short text that changes when any file of a folder does: what can be told without reading them."""
    lines = [f"{name}\0{version.to_text()}\n" for name, version in sorted(files.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:24]


def state_of(scan: Scan) -> State:
    """What a folder holds.

    The times are ctimes: a writer can't set them, and every write, rename and `touch` changes them.
    """
    if scan.failure:
        return "unreadable"
    marked_ns = scan.markers.get(MARKER)
    if marked_ns is None:
        return "no marker"
    if not any(version.size for version in scan.files.values()):
        return "no data"
    return "changing" if any(version.changed_ns > marked_ns for version in scan.files.values()) else "complete"


def is_day(name: str) -> bool:
    """Whether a name is a day such as 2024-01-05."""
    try:
        return date.fromisoformat(name).isoformat() == name
    except ValueError:
        return False


def closed_windows(after: str, now: datetime, closes: Callable[[str], datetime]) -> tuple[list[str], str]:
    """The days whose windows have closed since the tick before.

    Args:
        after: The last day whose closed window was seen, or "" in a first tick: what had closed before is not missed.
        now: The time, as `closes` gives it.
        closes: When the window of a day closes.

    Returns:
        The days, oldest first, and the last day whose window was ever seen closed. After a long outage only the last.
    """
    last = now.date()
    while closes(last.isoformat()) > now:
        last -= timedelta(days=1)
    first = max(date.fromisoformat(after), last - timedelta(days=REMEMBERED_WINDOWS)) if after else last
    return [(first + timedelta(days=n)).isoformat() for n in range(1, (last - first).days + 1)], max(
        after, last.isoformat()
    )


class Waiting(NamedTuple):
    """A folder that holds something that was not taken. Times are in s since the epoch.

    Attributes:
        look: What it looked like last (`look_of`).
        unchanged_since: Since when it has been seen like that.
        ready_since: Since when it has been complete like that; None if it is not.
        requests: How many runs were requested for it like that.
        due: When the next run may be requested.
    """

    look: str
    unchanged_since: float
    ready_since: float | None = None
    requests: int = 0
    due: float = 0.0


@dataclass(frozen=True)
class Cursor:
    """What the ticks before have left.

    Attributes:
        began: When this cursor was begun, in s since the epoch. It is part of each run key.
        closed: The last day whose closed window was seen, or "" before the first tick.
        turn: How many old folders have had their turn to be scanned.
        waiting: Folders that hold something that was not taken.
        missing: Deliveries that were reported because their window had closed, and have not come.
        untold: Those of which people were to be told, and could not be.
        notify_due: When people may be told again, in s since the epoch.
        told: Names that are of no use, which were noted once.
    """

    began: float = 0.0
    closed: str = ""
    turn: int = 0
    waiting: dict[Key, Waiting] = field(default_factory=dict)
    missing: tuple[Key, ...] = ()
    untold: tuple[Key, ...] = ()
    notify_due: float = 0.0
    told: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The cursor as text."""
        waiting = {"/".join(key): each for key, each in self.waiting.items()}
        return json.dumps({"cursor": _CURSOR_VERSION, **self.__dict__, "waiting": waiting}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | None) -> tuple["Cursor", str]:
        """Read a stored cursor.

        Args:
            text: What `to_json` gave, or None before the first tick.

        Returns:
            The cursor, and "" or why it could not be read. Then it is an empty one.
        """
        if not text:
            return cls(), ""
        try:
            stored = json.loads(text)
            version = stored.pop("cursor")
            if version != _CURSOR_VERSION:
                return cls(), f"the cursor has the version {version}, not {_CURSOR_VERSION}"
            cursor = cls(
                began=float(stored["began"]),
                closed=date.fromisoformat(stored["closed"]).isoformat() if stored["closed"] else "",
                turn=int(stored["turn"]),
                waiting={_key(name): Waiting(*each) for name, each in stored["waiting"].items()},
                missing=tuple((str(supplier), str(day)) for supplier, day in stored["missing"]),
                untold=tuple((str(supplier), str(day)) for supplier, day in stored["untold"]),
                notify_due=float(stored["notify_due"]),
                told=tuple(map(str, stored["told"])),
            )
            return cursor, ""
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            return cls(), f"the cursor can't be read ({type(error).__name__}: {error})"


def _key(name: str) -> Key:
    supplier, day = name.split("/")
    return supplier, day


def folders_to_scan(
    listed: Mapping[str, Sequence[str]], new: Iterable[Key], closed: Iterable[str], cursor: Cursor, today: str
) -> tuple[list[Key], int]:
    """Which folders a tick scans: those in which something may have come, and a share of the others.

    Args:
        listed: The days for which each supplier has a folder, in order, of known suppliers.
        new: Folders that were not there before, of which nothing was ever taken, or that a glance has found changed.
        closed: Days whose windows have just closed.
        cursor: What the ticks before have left.
        today: The day now.

    Returns:
        The folders, the most urgent first, and what `Cursor.turn` becomes.
    """
    recent = {(date.fromisoformat(today) - timedelta(days=n)).isoformat() for n in range(RECENT_DAYS)} | {*closed}
    # The last days of a list are its recent ones.
    ends = {supplier: days[-RECENT_DAYS - REMEMBERED_WINDOWS - 1 :] for supplier, days in listed.items()}
    urgent = [(supplier, day) for supplier, days in ends.items() for day in reversed(days) if day in recent]
    share, turn = in_turn(listed, cursor.turn, OLD_FOLDERS_PER_TICK)
    waiting = [key for key in cursor.waiting if key[0] in listed]
    return list(dict.fromkeys([*urgent, *new, *waiting, *share])), turn


def in_turn(listed: Mapping[str, Sequence[str]], turn: int, at_most: int) -> tuple[list[Key], int]:
    """A share of all folders, and the turn of the next share.

    Args:
        listed: The days for which each supplier has a folder.
        turn: How many folders have had their turn.
        at_most: How many to give.
    """
    total = sum(map(len, listed.values()))
    if total == 0:
        return [], 0
    begin, size = turn % total, min(at_most, total)
    share = [*islice(_folders_from(listed, begin), size)]
    share += islice(_folders_from(listed, 0), size - len(share))
    return share, (begin + size) % total


def _folders_from(listed: Mapping[str, Sequence[str]], begin: int) -> Iterator[Key]:
    """All folders from a place in their order on."""
    for supplier, days in listed.items():
        yield from ((supplier, day) for day in islice(days, begin, None))
        begin = max(0, begin - len(days))


@dataclass(frozen=True)
class Situation:
    """What a tick finds, beside the folders.

    Attributes:
        now: In s since the epoch.
        settle_seconds: How long a folder that changed after its marker must have been seen unchanged, in s.
        suppliers: All of whom deliveries are expected.
        closed: Days whose windows have closed since the tick before (`closed_windows`).
        closed_until: The last day whose window has closed.
        in_progress: Deliveries that a run which is queued or under way is to take.
        free_runs: How many more runs may be requested now.
    """

    now: float
    settle_seconds: float
    suppliers: Sequence[str]
    closed: Sequence[str] = ()
    closed_until: str = ""
    in_progress: Collection[Key] = ()
    free_runs: int = 4


class Ready(NamedTuple):
    """A complete delivery to take.

    Attributes:
        key: Which one.
        look: What it looked like when it was complete.
        ready_since: Since when it has been seen complete like that, in s since the epoch.
        size_bytes: The size of its data files, in bytes.
    """

    key: Key
    look: str
    ready_since: float
    size_bytes: int


class Request(NamedTuple):
    """A run to request: what it takes, and a run key of its own."""

    deliveries: list[Ready]
    run_key: str


@dataclass(frozen=True)
class Plan:
    """What a tick does.

    Attributes:
        requests: Runs to request.
        missing: Deliveries to report: their window has closed without them.
        came: Deliveries that had been reported as missing, and are there now.
        cursor: What to keep.
        notes: What to tell whoever reads the tick.
    """

    requests: list[Request]
    missing: list[Key]
    came: list[Key]
    cursor: Cursor
    notes: list[str]


def plan_deliveries(
    scans: Mapping[Key, Scan],
    taken: Mapping[Key, Mapping[str, FileVersion]],
    cursor: Cursor,
    situation: Situation,
) -> Plan:
    """Which deliveries to take now, and which to report as missing.

    Args:
        scans: What was found in the folders that were scanned.
        taken: The files of what was taken last, by name, for each of these folders and of the closed windows of which
            anything was. A delivery whose run has died before it was loaded is not among them.
        cursor: What the ticks before have left.
        situation: The time, and what is under way.
    """
    found = _look(scans, taken, cursor, situation)
    waiting = found.waiting
    requests = _requests(found.ready, waiting, cursor.began or situation.now, situation.free_runs)
    for delivery in chain.from_iterable(request.deliveries for request in requests):
        waiting[delivery.key] = _requested(waiting[delivery.key], situation.now)
    came = [key for key in cursor.missing if key in found.came_in]
    missing = [
        (supplier, day)
        for day in situation.closed
        for supplier in situation.suppliers
        if (supplier, day) not in found.came_in
    ]
    return Plan(
        requests=requests,
        missing=missing,
        came=came,
        cursor=replace(
            cursor,
            began=cursor.began or situation.now,
            closed=situation.closed_until or cursor.closed,
            waiting=dict(islice(waiting.items(), MAX_WAITING)),
            missing=_remembered([*(key for key in cursor.missing if key not in came), *missing], situation),
            untold=_remembered([*(key for key in cursor.untold if key not in came), *missing], situation),
        ),
        notes=[
            *(f"{supplier} has not delivered {day}: its window has closed" for supplier, day in missing),
            *(f"{supplier} has delivered {day} after all, late" for supplier, day in came),
            *_waiting_notes(waiting, scans),
            *found.notes,
        ],
    )


class _Found(NamedTuple):
    """What a tick sees in the folders: deliveries that wait, those of them to take, and all that have ever come in."""

    waiting: dict[Key, Waiting]
    ready: list[Ready]
    came_in: set[Key]
    notes: list[str]


def _look(
    scans: Mapping[Key, Scan], taken: Mapping[Key, Mapping[str, FileVersion]], cursor: Cursor, situation: Situation
) -> _Found:
    found = _Found({key: each for key, each in cursor.waiting.items() if key not in scans}, [], set(taken), [])
    for key, scan in scans.items():
        found.notes.extend(f"{'/'.join(key)}: {problem}" for problem in scan.problems)
        state = state_of(scan)
        if state == "unreadable":
            found.notes.append(scan.failure)
            if key in cursor.waiting:
                found.waiting[key] = cursor.waiting[key]
            continue
        if state in READY:
            found.came_in.add(key)
        # What was taken stays, also if its supplier clears the folder.
        if taken.get(key) == scan.files or (key in taken and state in ("no marker", "no data")):
            continue
        found.waiting[key] = now_waiting = _watched(scan, state, cursor.waiting.get(key), situation)
        if state == "no data":
            found.notes.append(
                f"{'/'.join(key)} has its marker {MARKER}, and no data file {DATA_FILES} that is not empty"
            )
        if (
            now_waiting.ready_since is not None
            and now_waiting.due <= situation.now
            and key not in situation.in_progress
        ):
            size = sum(version.size for version in scan.files.values())
            found.ready.append(Ready(key, now_waiting.look, now_waiting.ready_since, size))
    return found


def _watched(scan: Scan, state: State, before: Waiting | None, situation: Situation) -> Waiting:
    """What is known of a folder now."""
    look, now = look_of(scan.files), situation.now
    # If the clock was set back, the wait begins anew.
    known = before if before and before.look == look and before.unchanged_since <= now else Waiting(look, now)
    is_settled = now - known.unchanged_since >= situation.settle_seconds
    if state == "complete" or (state == "changing" and is_settled):
        # A pause is never longer than the longest, whatever the clock does.
        due = min(known.due, now + LONGEST_PAUSE_SECONDS)
        return known._replace(ready_since=now if known.ready_since is None else known.ready_since, due=due)
    return known._replace(ready_since=None)


def _requested(waiting: Waiting, now: float) -> Waiting:
    pause = min(RUN_GRACE_SECONDS * 2 ** min(waiting.requests, 10), LONGEST_PAUSE_SECONDS)
    return waiting._replace(requests=waiting.requests + 1, due=now + pause)


def _requests(ready: Iterable[Ready], waiting: Mapping[Key, Waiting], began: float, free_runs: int) -> list[Request]:
    """Share the deliveries among runs. Small ones come first: nobody waits for somebody else's large one."""
    groups: list[list[Ready]] = []
    small: list[Ready] = []
    for delivery in sorted(ready, key=lambda each: (each.size_bytes, each.key)):
        if delivery.size_bytes > LARGE_BYTES:
            groups.append([delivery])
        else:
            small.append(delivery)
    groups = [small[at : at + MAX_DELIVERIES_PER_RUN] for at in range(0, len(small), MAX_DELIVERIES_PER_RUN)] + groups
    requests = []
    for group in groups[: max(0, free_runs)]:
        # A tick whose cursor was not stored is evaluated again. Its requests have the same run keys, and start no runs.
        parts = [[*each.key, each.look, waiting[each.key].requests] for each in group]
        digest = hashlib.sha256(json.dumps([began, parts]).encode()).hexdigest()[:16]
        requests.append(Request(group, f"{'/'.join(group[0].key)}:{digest}"))
    return requests


def _waiting_notes(waiting: Mapping[Key, Waiting], scans: Mapping[Key, Scan]) -> list[str]:
    found: dict[str, int] = {}
    for key in waiting:
        state = state_of(scans[key]) if key in scans else "unreadable"
        if state in ("no marker", "changing"):
            found[state] = found.get(state, 0) + 1
    said = {"no marker": "without a marker", "changing": "changed after the marker"}
    return [f"{number} {'folder' if number == 1 else 'folders'} {said[state]}" for state, number in found.items()]


def _remembered(missing: Sequence[Key], situation: Situation) -> tuple[Key, ...]:
    if not situation.closed_until:
        return tuple(missing)
    oldest = date.fromisoformat(situation.closed_until) - timedelta(days=REMEMBERED_WINDOWS)
    return tuple(key for key in missing if key[1] > oldest.isoformat())


def told_once(names: Iterable[str], told: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Which of these texts were not told yet, and all that were told then. What is no longer true is forgotten."""
    found = [shown_name(name) for name in names]
    kept = [name for name in told if name in found]
    new = [name for name in dict.fromkeys(found) if name not in kept]
    return new, tuple([*kept, *new][:MAX_TOLD])
