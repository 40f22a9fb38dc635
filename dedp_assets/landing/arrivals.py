"""Which files of many watched directories to take now: a pure rule over what was scanned and what is known.

A file is taken once for each of its versions, when it is complete. What has been taken is not remembered here: the
ledger of the pipeline says it (`Known`). So a cursor that was lost costs one comparison with the ledger, and repeats
nothing. For a directory in which nothing is new the cursor keeps one number, so that the ledger need not be asked again
for it at every tick.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from dedp_assets.errors import ErrorNote
from dedp_assets.landing.directories import NOTHING, UNCHANGED, Directory, ObjectFolder, Scan, digest_of
from dedp_assets.landing.versions import FileVersion
from dedp_assets.wording import shown_name

# How many files the cursor keeps between ticks. Further ones wait in their directories until some of these are taken.
MAX_WAITING_FILES = 3000
# A run's start takes longer than to load hundreds of small files, and a run that dies keeps what it has loaded.
MAX_FILES_PER_RUN = 250
MAX_RUNS = 4
# A file gains one step of priority for each minute that it has waited, so that nothing starves.
AGEING_SECONDS = 60.0
# The pauses between two tries, of a directory that fails and of a file whose runs fail, double up to this.
LONGEST_PAUSE_SECONDS = 600.0
FIRST_PAUSE_SECONDS = 10.0
# A run that was asked for has so long to write its files into the ledger before they are asked for again.
RUN_GRACE_SECONDS = 60.0
MAX_NOTES = 20
# A prime number that is larger than any number of directories: its multiples come to every place of their list.
_TURN_STEP = 1_000_003

_CURSOR_VERSION = 1


class Known(NamedTuple):
    """What the ledger says of a file: the version that was dealt with last, and its SHA-256."""

    version: FileVersion
    sha256: str


class Waiting(NamedTuple):
    """A file that is not in the ledger in its present version. Times are in s since the epoch.

    Attributes:
        version: The version that was seen last.
        unchanged_since: Since when it has been seen in that version.
        first_seen: When it was seen first, in whichever version.
        first_size: Its size then, in bytes.
        requests: How many runs were requested for it.
        due: When the next run may be requested.
    """

    version: FileVersion
    unchanged_since: float
    first_seen: float
    first_size: int
    requests: int = 0
    due: float = 0.0


class Failing(NamedTuple):
    """A directory that can't be scanned: why, since when, how many tries, and when the next one is due."""

    problem: str
    since: float
    tries: int
    due: float


@dataclass(frozen=True)
class Cursor:
    """What the ticks before have left.

    Attributes:
        began: When this cursor was begun, in s since the epoch.
        requests: How many runs were requested since. Both are part of each run key, so no run key is used twice.
        compared: For each directory, by its key, the digest of its files that are in the ledger.
        waiting: Files that are not in the ledger yet, by client and name.
        failing: Directories that can't be scanned, by client.
        heard: When something arrived last in a directory that has a time-out, by its key, in s since the epoch.
        timed_out: Directories whose time-out was reported, by its key.
        told: What the last tick said.
        notify_due: When people may be told of silent directories again, in s since the epoch.
    """

    began: float = 0.0
    requests: int = 0
    compared: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, dict[str, Waiting]] = field(default_factory=dict)
    failing: dict[str, Failing] = field(default_factory=dict)
    heard: dict[str, int] = field(default_factory=dict)
    timed_out: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    notify_due: float = 0.0

    def to_json(self) -> str:
        """The cursor as text, at most 1 MB for 10,000 directories."""
        return json.dumps({"cursor": _CURSOR_VERSION, **self.__dict__}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | None) -> tuple["Cursor", str]:
        """Read a stored cursor.

        Args:
            text: What `to_json` gave, or None before the first tick.

        Returns:
            The cursor, and "" or why it could not be read. Then it is an empty one: every directory is compared with
            the ledger again, and nothing is taken twice.
        """
        if not text:
            return cls(), ""
        try:
            stored = json.loads(text)
            version = stored.pop("cursor")
            if version != _CURSOR_VERSION:
                return cls(), f"the cursor has the version {version}, not {_CURSOR_VERSION}"
            waiting = {
                client: {name: Waiting(FileVersion(*map(int, file[0])), *file[1:]) for name, file in files.items()}
                for client, files in stored["waiting"].items()
            }
            failing = {client: Failing(*each) for client, each in stored["failing"].items()}
            lists = {name: tuple(map(str, stored[name])) for name in ("timed_out", "told")}
            return cls(**{**stored, **lists, "waiting": waiting, "failing": failing}), ""
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            return cls(), f"the cursor can't be read ({type(error).__name__}: {error})"


class Arrival(NamedTuple):
    """A complete file to take. Times are in s since the epoch.

    Attributes:
        directory: Where it lies, with its settings.
        file: Its name there.
        version: The version that is complete.
        first_seen: When it was seen first.
        waited_seconds: How long it has waited since.
        requests: How many runs were requested for it before.
    """

    directory: Directory
    file: str
    version: FileVersion
    first_seen: float
    waited_seconds: float
    requests: int


class Request(NamedTuple):
    """A run to request: what it takes, a run key of its own, and the priority of its most urgent file."""

    arrivals: list[Arrival]
    run_key: str
    priority: int


class TimedOut(NamedTuple):
    """A directory in which nothing has arrived for longer than its limit. `silent_since`: in s since the epoch."""

    directory: Directory
    silent_since: float


@dataclass(frozen=True)
class Plan:
    """What a tick does.

    Attributes:
        requests: Runs to request, the most urgent one first.
        timed_out: Directories to report, once each.
        recovered: Clients whose directories answer again.
        cursor: What to keep.
        notes: What to tell whoever reads the tick.
        queue_depth: How many complete files wait for a later tick.
    """

    requests: list[Request]
    timed_out: list[TimedOut]
    recovered: list[str]
    cursor: Cursor
    notes: list[str]
    queue_depth: int


def directories_to_scan(directories: Iterable[Directory], cursor: Cursor, now: float) -> list[Directory]:
    """The directories to scan in a tick: all but those that failed a moment ago, and those that were given up."""
    given_up = set(cursor.timed_out)
    if not given_up and not cursor.failing:
        return list(directories)
    found = []
    for directory in directories:
        failing = cursor.failing.get(directory.client)
        if failing is not None and now < failing.due:
            continue
        if directory.gives_up and directory.key in given_up:
            continue
        found.append(directory)
    return found


def in_scan_order(
    directories: Sequence[Directory], first: Collection[Path | ObjectFolder], turn: int
) -> list[Directory]:
    """In which order a tick scans, in case its time is not enough for all. It decides nothing else.

    Each turn begins elsewhere, and each fourth one goes without the hint. So every directory has its turn, also if the
    same ones are named again and again.

    Args:
        directories: What to scan.
        first: A hint: where something has changed. Places that are not watched mean nothing.
        turn: The number of the tick, from 0.
    """
    is_without = turn % 4 == 3
    # Counted by themselves, or with an even number of directories half of them would never be the first of such a turn.
    number = turn // 4 if first and is_without else turn
    begin = number * _TURN_STEP % len(directories) if directories else 0
    in_turn = [*directories[begin:], *directories[:begin]]
    if not first or is_without:
        return in_turn
    named = set(first)
    return sorted(in_turn, key=lambda directory: directory.path not in named)


def unchanged_since(cursor: Cursor, again: Collection[str] = ()) -> Callable[[Directory, Scan], bool]:
    """How to tell a directory whose files were all compared with the ledger, and need no thought now.

    Args:
        cursor: What the ticks before have left.
        again: Clients to compare as a whole even if nothing has changed.

    Returns:
        A function of a directory and its scan.
    """
    compared, to_think_of = cursor.compared, {*again, *cursor.waiting, *cursor.failing}

    def is_unchanged(directory: Directory, scan: Scan) -> bool:
        if directory.client in to_think_of or scan.problems:
            return False
        return compared.get(directory.key) == digest_of(scan.files)

    return is_unchanged


def files_to_compare(
    directories: Iterable[Directory], scans: Mapping[str, Scan], cursor: Cursor, again: Collection[str] = ()
) -> dict[str, list[str]]:
    """The files whose versions the ledger has to be asked for, by client.

    Args:
        directories: The watched directories.
        scans: What was found in those that were scanned, by client.
        cursor: What the ticks before have left.
        again: Clients to compare as a whole even if nothing has changed: the ledger may have lost something.
    """
    found = {}
    for directory in [each for each in directories if scans.get(each.client, NOTHING).files]:
        names = _files_to_compare(directory, scans[directory.client], cursor, directory.client in again)
        if names:
            found[directory.client] = names
    return found


def _files_to_compare(directory: Directory, scan: Scan, cursor: Cursor, is_again: bool) -> list[str]:
    waiting = cursor.waiting.get(directory.client, {})
    if is_again or cursor.compared.get(directory.key) != digest_of(scan.files, waiting):
        return list(scan.files)
    return [name for name in waiting if name in scan.files]


@dataclass(frozen=True)
class Situation:
    """What a tick finds, beside the files.

    Attributes:
        now: In s since the epoch.
        in_progress: Files, as client and name, that a run which is queued or under way is to take.
        free_runs: How many more runs may be requested now.
        files_per_run: How many files a run may take.
        renamed: Files, as client and name, that were renamed into place and need not settle.
    """

    now: float
    in_progress: Collection[tuple[str, str]] = ()
    free_runs: int = MAX_RUNS
    files_per_run: int = MAX_FILES_PER_RUN
    renamed: Collection[tuple[str, str]] = ()


def plan_arrivals(
    directories: Sequence[Directory],
    scans: Mapping[str, Scan],
    compared: Mapping[str, Collection[str]],
    known: Mapping[str, Mapping[str, Known]],
    cursor: Cursor,
    situation: Situation,
) -> Plan:
    """Which files to take now.

    Args:
        directories: All watched directories.
        scans: What was found in those that were scanned, by client.
        compared: The files that the ledger was asked for, by client (`files_to_compare`).
        known: What the ledger said of them, by client and name.
        cursor: What the ticks before have left.
        situation: The time, and what is under way.
    """
    now = situation.now
    tick = _Tick(cursor, situation)
    for directory in directories:
        client = directory.client
        scan = scans.get(client)
        if scan is UNCHANGED:
            tick.compared[directory.key] = cursor.compared[directory.key]
        elif scan is NOTHING and client not in cursor.failing:
            pass  # as most of thousands of directories
        elif scan is None:
            tick.keep(directory)
        elif scan.failure:
            tick.fail(directory, scan.failure)
        else:
            tick.compare(directory, scan, compared.get(client, ()), known.get(client, {}))
        if directory.timeout_seconds is not None:
            tick.watch_timeout(directory, directory.timeout_seconds)
    chosen, left = _choose(tick.complete, situation)
    requests = _requests(chosen, cursor.began or now, cursor.requests, situation.files_per_run)
    for request in requests:
        for arrival in request.arrivals:
            files = tick.waiting[arrival.directory.client]
            pause = RUN_GRACE_SECONDS * 2 ** min(arrival.requests, 10)
            files[arrival.file] = files[arrival.file]._replace(
                requests=arrival.requests + 1, due=now + min(pause, LONGEST_PAUSE_SECONDS)
            )
    for directory in _forget_some(directories, tick.waiting, tick.complete, now):
        # Not all of its files are remembered: next time they are compared again.
        tick.compared.pop(directory.key, None)
    return Plan(
        requests=requests,
        timed_out=tick.newly_timed_out,
        recovered=tick.recovered,
        cursor=replace(
            cursor,
            began=cursor.began or now,
            requests=cursor.requests + len(requests),
            compared=tick.compared,
            waiting={client: files for client, files in tick.waiting.items() if files},
            failing=tick.failing,
            heard=tick.heard,
            timed_out=tuple(tick.timed_out),
            told=tuple(tick.notes[:MAX_NOTES]),
        ),
        notes=tick.notes,
        queue_depth=left,
    )


class _Tick:
    """What a tick finds out, one directory after the other."""

    def __init__(self, cursor: Cursor, situation: Situation) -> None:
        self._before, self._situation = cursor, situation
        self.compared: dict[str, int] = {}
        self.waiting: dict[str, dict[str, Waiting]] = {}
        self.failing: dict[str, Failing] = {}
        self.heard: dict[str, int] = {}
        self.timed_out: list[str] = []
        self.newly_timed_out: list[TimedOut] = []
        self.recovered: list[str] = []
        self.complete: list[Arrival] = []
        self.notes: list[str] = []

    def keep(self, directory: Directory) -> None:
        """The directory was not scanned: everything about it stays as it was."""
        client, key = directory.client, directory.key
        if client in self._before.failing:
            self.failing[client] = self._before.failing[client]
            self.notes.append(ErrorNote(self.failing[client].problem))
        if client in self._before.waiting:
            self.waiting[client] = dict(self._before.waiting[client])
        if key in self._before.compared:
            self.compared[key] = self._before.compared[key]

    def fail(self, directory: Directory, problem: str) -> None:
        """The directory could not be scanned: try again later, ever more seldom."""
        self.keep(directory)
        before, now = self._before.failing.get(directory.client), self._situation.now
        tries = before.tries + 1 if before else 1
        pause = min(FIRST_PAUSE_SECONDS * 2 ** min(tries - 1, 10), LONGEST_PAUSE_SECONDS)
        since = before.since if before else now
        self.failing[directory.client] = Failing(problem, since, tries, now + pause * _jitter(directory.client, tries))
        if not before or before.problem != problem:
            self.notes.append(ErrorNote(problem))

    def compare(self, directory: Directory, scan: Scan, compared: Collection[str], known: Mapping[str, Known]) -> None:
        """The directory was scanned: tell the files that are new from those that are in the ledger."""
        client, now = directory.client, self._situation.now
        if client in self._before.failing:
            self.recovered.append(client)
            seconds = now - self._before.failing[client].since
            self.notes.append(f"{directory.path} answers again, after {seconds:.0f} s")
        self.notes += [f"{client}: {problem}" for problem in scan.problems]
        if not compared:
            if scan.files:
                self.compared[directory.key] = self._before.compared[directory.key]
            return
        before = self._before.waiting.get(client, {})
        new = [name for name in compared if name not in known or known[name].version != scan.files[name]]
        waiting = {name: _watched(scan.files[name], before.get(name), now) for name in sorted(new)}
        if waiting:
            self.waiting[client] = waiting
        self.compared[directory.key] = digest_of(scan.files, waiting)
        for name, file in waiting.items():
            self._judge(directory, scan, name, file)

    def _judge(self, directory: Directory, scan: Scan, name: str, file: Waiting) -> None:
        now = self._situation.now
        is_renamed = (directory.client, name) in self._situation.renamed
        reason = _incomplete(directory, scan, name, file, now, is_renamed)
        if reason:
            self.notes.append(f"{directory.client}/{shown_name(name)} {reason}")
        elif (directory.client, name) not in self._situation.in_progress and file.due <= now:
            self.complete.append(
                Arrival(directory, name, file.version, file.first_seen, now - file.first_seen, file.requests)
            )

    def watch_timeout(self, directory: Directory, timeout_seconds: float) -> None:
        """Report a directory in which nothing has arrived for longer than its limit, once."""
        key, now = directory.key, self._situation.now
        heard = self._before.heard.get(key, int(now))
        first_seen = [int(file.first_seen) for file in self.waiting.get(directory.client, {}).values()]
        heard = max([heard, *first_seen])
        self.heard[key] = heard
        if now - heard <= timeout_seconds:
            return
        self.timed_out.append(key)
        if key not in self._before.timed_out:
            self.newly_timed_out.append(TimedOut(directory, heard))
            then = "it is not watched any more" if directory.gives_up else "it is still watched"
            self.notes.append(f"{directory.path}: nothing has arrived for {now - heard:.0f} s; {then}")


def _watched(version: FileVersion, before: Waiting | None, now: float) -> Waiting:
    """A file as it waits now. A clock that was set back starts the wait anew."""
    if before is None or before.first_seen > now or (before.version != version and before.requests):
        # Also where the version before this one was requested: this one has only begun to wait.
        return Waiting(version, now, now, version.size)
    if before.version != version:
        return Waiting(version, now, before.first_seen, before.first_size)
    return before if before.unchanged_since <= now else before._replace(unchanged_since=now)


def _incomplete(directory: Directory, scan: Scan, name: str, file: Waiting, now: float, is_renamed: bool) -> str:
    """Why a file is not complete yet, in words, or ""."""
    if not file.version.size:
        return "is empty: waits for its content"
    if directory.completeness == "marker":
        marker = directory.marker_of(name)
        if marker not in scan.markers:
            return f"waits for {marker}"
        if scan.markers[marker] < file.version.changed_ns:
            return f"has changed after {marker} was written: waits for a new one"
        return ""
    is_settled = now - file.unchanged_since >= directory.settle_seconds
    if directory.completeness == "renamed" or is_renamed or is_settled:
        return ""
    grown = file.version.size - file.first_size
    if grown > 0:
        return f"is growing: {file.version.size:,} bytes, {grown:,} of them in the last {now - file.first_seen:.0f} s"
    return f"is not complete yet: changed less than {directory.settle_seconds:g} s ago"


def _choose(complete: list[Arrival], situation: Situation) -> tuple[list[Arrival], int]:
    """The files to take now, the most urgent first, and how many are left for later."""

    def urgency(arrival: Arrival) -> tuple[float, float, str, str]:
        steps = arrival.directory.priority + arrival.waited_seconds / AGEING_SECONDS
        return -steps, arrival.first_seen, arrival.directory.client, arrival.file

    in_order = sorted(complete, key=urgency)
    most = max(0, situation.free_runs) * situation.files_per_run
    return in_order[:most], max(0, len(in_order) - most)


def _requests(chosen: Sequence[Arrival], began: float, number: int, files_per_run: int) -> list[Request]:
    """Runs for the chosen files, in their order. The files of one client never stand in two runs at once."""
    runs: list[list[Arrival]] = []
    run_of_client: dict[str, list[Arrival]] = {}
    for arrival in chosen:
        run = run_of_client.get(arrival.directory.client)
        if run is None:
            if not runs or len(runs[-1]) >= files_per_run:
                runs.append([])
            run = run_of_client[arrival.directory.client] = runs[-1]
        run.append(arrival)
    return [
        Request(run, f"{began:.3f}:{number + i}", max(arrival.directory.priority for arrival in run))
        for i, run in enumerate(runs)
    ]


def _forget_some(
    directories: Sequence[Directory],
    waiting: dict[str, dict[str, Waiting]],
    complete: Iterable[Arrival],
    now: float,
) -> list[Directory]:
    """Take out of `waiting` what the cursor has no room for; returns the directories of which something was forgotten.

    Files that a run was requested for stay, then those that are complete. Of the others each gets its turn, long enough
    to come to rest: files that are never completed must not keep the room from all that come after them.
    """
    if sum(map(len, waiting.values())) <= MAX_WAITING_FILES:
        return []
    is_complete = {(arrival.directory.client, arrival.file) for arrival in complete}
    turn = int(now / max(60.0, 4 * max(directory.settle_seconds for directory in directories)))

    def rank(place: tuple[str, str]) -> tuple[bool, bool, bytes]:
        client, name = place
        by_turn = hashlib.blake2b(f"{turn}/{client}/{name}".encode(errors="surrogateescape"), digest_size=8).digest()
        return not waiting[client][name].requests, place not in is_complete, by_turn

    places = sorted(((client, name) for client, files in waiting.items() for name in files), key=rank)
    forgotten = places[MAX_WAITING_FILES:]
    for client, name in forgotten:
        del waiting[client][name]
    clients = {client for client, _ in forgotten}
    return [directory for directory in directories if directory.client in clients]


def _jitter(client: str, tries: int) -> float:
    """Between 0.8 and 1.2, so that directories that failed together are not tried again together."""
    return 0.8 + 0.4 * hashlib.blake2b(f"{client}:{tries}".encode(errors="surrogateescape")).digest()[0] / 255
