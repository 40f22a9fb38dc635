"""What happened in a scenario, in order: what the test did, what Dagster requested and why, what came of it.

The timeline is filled from what Dagster stores, as it stores it; nothing is guessed. It holds no run ids and no real
times, so that the same scenario has the same timeline every time.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_scenario import _dagster as dagster_
from dagster_scenario.clock import shown
from dagster_scenario.tracebacks import message_of, trace_of

if TYPE_CHECKING:
    from dagster_scenario.shortening import About

WORLD, DAEMON, DOWN, UP, SENSOR, SCHEDULE = "world", "daemon", "daemons down", "daemons up", "sensor", "schedule"
REQUESTED, STARTED, MATERIALIZED, OBSERVED, CHECKED = "requested", "started", "materialized", "observed", "checked"
STEP_STARTED, STEP_FAILED, SUCCEEDED, FAILED, CANCELED = (
    "step started",
    "step failed",
    "succeeded",
    "failed",
    "canceled",
)
KILLED, HELD, RESUMED, WAITING, BACKFILL, MARK = "killed", "held", "resumed", "waiting", "backfill", "mark"
PARTITION_ADDED, PARTITION_REMOVED, FRESHNESS = "partition added", "partition removed", "freshness"

# Something is going on while these happen; a tick without any of them is an idle one.
ACTIVITY = frozenset(
    {REQUESTED, STARTED, MATERIALIZED, OBSERVED, CHECKED, STEP_FAILED, SUCCEEDED, FAILED, CANCELED, KILLED, RESUMED}
    | {STEP_STARTED, BACKFILL, FRESHNESS, PARTITION_ADDED, PARTITION_REMOVED}
)

_RUN_ID = re.compile(r"(?:[Rr]un )?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")

# How many ticks in a row of a sensor count as activity because they failed, or because its skip reason changed.
# Without a limit, a sensor that always fails, or that names the time in its reason, would never be quiet.
_RESTLESS = 20

# What Dagster writes for a sensor that returned nothing.
_NO_REASON = "Sensor function returned an empty result"


# What Dagster's freshness daemon says of an asset.
_FRESHNESS_STATES = {
    "PASS": "is fresh",
    "WARN": "is late: a warning",
    "FAIL": "is late: it failed its freshness policy",
}


@dataclass(frozen=True)
class Cause:
    """Why a run was requested. kind: sensor, schedule, automation, backfill, retry or hand."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return "by hand" if self.kind == "hand" else f"by {self.kind} {self.name}".rstrip()


@dataclass
class Run:
    """A run. `number` counts from 1 in the order of requests; `partitions` has every key of a range."""

    number: int
    id: str
    location: str
    job: str
    assets: tuple[str, ...]
    partitions: tuple[str, ...]
    causes: tuple[Cause, ...]
    tags: dict[str, str]
    requested: datetime
    started: datetime | None = None
    ended: datetime | None = None
    status: str = REQUESTED
    error: str = ""
    # Where its error was raised, in lines: the project's own line first.
    trace: tuple[str, ...] = ()
    # What it was launched with.
    config: dict[str, Any] = field(default_factory=dict)
    # From when to when it did nothing but sleep, and where in the code.
    waits: list[tuple[datetime, datetime | None, str]] = field(default_factory=list)

    @property
    def what(self) -> str:
        """Its assets, or its job, with its partitions."""
        name = ", ".join(self.assets) or self.job
        return f"{name} [{self.which}]" if self.partitions else name

    @property
    def which(self) -> str:
        """Its partition, or the first and the last one of its range."""
        return "...".join(dict.fromkeys([self.partitions[0], self.partitions[-1]])) if self.partitions else ""

    def covers(self, partition: str | None) -> bool:
        """Whether it was to do this partition."""
        return partition is None or not self.partitions or partition in self.partitions

    def __str__(self) -> str:
        return f"run {self.number} ({self.what})"


@dataclass(frozen=True)
class Event:
    """One line of the timeline. `run` is the run's number.

    `subject` is the sensor, schedule or step that it is about, `location` where that is. `problem`: something went
    wrong.
    """

    at: datetime
    kind: str
    text: str
    run: int | None = None
    asset: str = ""
    partition: str | None = None
    causes: tuple[Cause, ...] = ()
    subject: str = ""
    location: str = ""
    problem: bool = False


@dataclass(frozen=True)
class Mark:
    """A point in the timeline to look back to."""

    position: int
    at: datetime
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name!r} ({shown(self.at)})" if self.name else shown(self.at)


@dataclass
class Looking:
    """How it stands with a sensor: its last look, and since when it has found nothing to do."""

    name: str
    location: str
    kind: str
    last: datetime
    idle_since: datetime | None
    reason: str = ""
    error: str = ""
    # Where the error was raised, in lines: the project's own line first.
    trace: tuple[str, ...] = ()
    # How many ticks in a row have failed, and since when.
    failures: int = 0
    failing_since: datetime | None = None
    cursor: str | None = None
    # When it ticked; of schedules alone.
    ticks: list[datetime] = field(default_factory=list)
    # What it said, and since when, whenever that was something else than before.
    said: deque[tuple[datetime, str]] = field(default_factory=lambda: deque(maxlen=10))

    def say(self, at: datetime, what: str) -> None:
        """Note a skip reason or an error, or that something was requested."""
        if what and (not self.said or self.said[-1][1] != what):
            self.said.append((at, what))

    def note_failure(self, at: datetime, error: Any) -> None:
        """Note the error of a tick that has failed; None for one that has not."""
        if error is None:
            self.error, self.trace, self.failures, self.failing_since = "", (), 0, None
            return
        self.error, self.trace = message_of(error), trace_of(error)
        self.failures += 1
        self.failing_since = self.failing_since or at

    # How many ticks in a row have failed, or have changed the skip reason.
    restless: int = 0


class Timeline:
    """Everything that happened, oldest first; `print(timeline)` to read it."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self.events: list[Event] = []
        self.runs: dict[str, Run] = {}
        self.looking: dict[tuple[str, str], Looking] = {}
        # Folders that are named differently every time.
        self.private_paths: tuple[str, ...] = ()
        # Filled by the scenario: who an instigator's origin id belongs to, as (location, name, kind).
        self.instigators: dict[str, tuple[str, str, str]] = {}
        # How often a sensor, other than those of automation conditions, has changed what it keeps between its ticks.
        self.cursors_moved = 0
        # How many ticks of sensors have failed, or changed their skip reason, and so have more to say.
        self.restless_ticks = 0
        # When each asset was last materialized.
        self.materialized: dict[str, datetime] = {}
        self._requested: list[Any] = []
        self._backfills: dict[str, int] = {}
        self._backfill_status: dict[str, str] = {}
        self._ticks: dict[int, Any] = {}

    # Reading

    def mark(self, name: str = "") -> Mark:
        """The timeline's end as it is now."""
        mark = Mark(len(self.events), self._now(), name)
        if name:
            self.add(MARK, name)
        return mark

    def since(self, mark: Mark | None) -> list[Event]:
        """The events after a mark, all of them for None."""
        return self.events[mark.position if mark else 0 :]

    def run(self, number: int) -> Run:
        """The run of this number."""
        return next(run for run in self.runs.values() if run.number == number)

    def lines(self, since: Mark | None = None) -> Iterator[str]:
        """The timeline as text, one event a line, times where they change."""
        return as_lines(self.since(since))

    def shortened(self, since: Mark | None = None, within: int = 60, about: "About | None" = None) -> list[str]:
        """The timeline as text, in about so many lines; as it is when it has no more.

        First what many runs did at one moment becomes one line. Then the steps of runs that succeeded are left out,
        oldest first. What went wrong and what the world did stays as long as there is room.

        Args:
            since: begin at this mark.
            within: the number of lines.
            about: whose lines stay in any case, beyond that number too.
        """
        from dagster_scenario import shortening

        return shortening.shortened(self.since(since), within, shortening.asked_for(about, self.runs.values()))

    def __str__(self) -> str:
        return "\n".join(self.lines()) or "nothing has happened yet"

    def html(self) -> str:
        """The timeline as one page that needs no other file: a lane for each asset, a dot for each partition."""
        from dagster_scenario import page

        return page.render(self)

    # Writing

    def add(self, kind: str, text: str, **details: Any) -> None:
        """Note an event at the simulated time."""
        for path in self.private_paths:
            text = text.replace(path, "...")
        text = _RUN_ID.sub(self._number_of, text)
        self.events.append(Event(self._now(), kind, text, **details))

    def run_added(self, run: Any) -> None:
        """Dagster created a run. It gets its number in `number_requests`, when its siblings are known."""
        self._requested.append(run)

    def number_requests(
        self, assets: Callable[[Any], tuple[str, ...]], partitions: Callable[[Any], tuple[str, ...]]
    ) -> None:
        """Number the runs requested since the last call, in the order in which Dagster has created them.

        assets, partitions: tell what a run is to compute.
        """
        added, self._requested = self._requested, []
        for stored in in_order(added, key=lambda run: _sort_key(run, assets(run), partitions(run))):
            run = Run(
                number=len(self.runs) + 1,
                id=stored.run_id,
                location=_location_of(stored),
                job=stored.job_name,
                assets=assets(stored),
                partitions=partitions(stored),
                causes=tuple(self._causes(stored)),
                tags=dict(stored.tags),
                config=dict(stored.run_config),
                requested=self._now(),
            )
            self.runs[run.id] = run
            self.add(REQUESTED, run.what, run=run.number, causes=run.causes)

    def event_stored(self, entry: Any) -> None:
        """Dagster stored an event."""
        event = entry.dagster_event
        if event is None:
            return
        run = self.runs.get(entry.run_id)
        handler = getattr(self, f"_on_{event.event_type_value.lower()}", None)
        if handler is not None:
            handler(run, event)

    def tick_stored(self, tick: Any) -> None:
        """Dagster stored the outcome of a sensor's or a schedule's tick."""
        data = tick.tick_data
        if data.status == dagster_.TickStatus.STARTED or self._ticks.get(tick.tick_id) == data.status:
            return
        self._ticks[tick.tick_id] = data.status
        location, name, kind = self.instigators.get(data.instigator_origin_id, ("", data.instigator_name, "sensor"))
        looking = self.looking.setdefault(
            (location, name), Looking(name, location, kind, last=self._now(), idle_since=None)
        )
        looking.last = self._now()
        if kind == "schedule":
            looking.ticks.append(self._now())
        self._note_restless(looking, data)
        failed_before = looking.error
        looking.note_failure(self._now(), data.error if data.status == dagster_.TickStatus.FAILURE else None)
        if kind == "sensor" and data.cursor != looking.cursor:
            looking.cursor = data.cursor
            self.cursors_moved += 1
        if data.status == dagster_.TickStatus.SUCCESS:
            looking.idle_since, looking.reason = None, ""
            looking.say(self._now(), "requested something")
            return
        if looking.idle_since is None:
            looking.idle_since = self._now()
        shown = SCHEDULE if kind == "schedule" else SENSOR
        if data.status == dagster_.TickStatus.FAILURE:
            if looking.error != failed_before:
                self.add(shown, f"{name} failed: {looking.error}", subject=name, location=location, problem=True)
            looking.say(self._now(), f"failed: {looking.error}")
            return
        reason = _reason(data)
        if reason and reason != looking.reason:
            self.add(shown, f"{name} skipped: {reason}", subject=name, location=location)
        looking.reason = reason
        looking.say(self._now(), looking.reason)

    def partitions_stored(self, definition: str, keys: Sequence[str], added: bool) -> None:
        """Dagster stored that dynamic partitions were added or removed."""
        for key in keys:
            kind = PARTITION_ADDED if added else PARTITION_REMOVED
            self.add(kind, f"{definition} [{key}]", subject=definition, partition=key)

    def _note_restless(self, looking: Looking, data: Any) -> None:
        """A sensor that failed, or that skips for another reason than at its last tick, has more to say."""
        skipped_before = looking.idle_since is not None and not looking.error
        changed = skipped_before and _reason(data) != looking.reason
        failed = data.status == dagster_.TickStatus.FAILURE
        is_restless = failed or (data.status == dagster_.TickStatus.SKIPPED and changed)
        looking.restless = looking.restless + 1 if is_restless and looking.kind != "schedule" else 0
        if 0 < looking.restless <= _RESTLESS:
            self.restless_ticks += 1

    def backfill_stored(self, backfill: Any) -> None:
        """Dagster stored the state of a backfill."""
        number = self._backfills.setdefault(backfill.backfill_id, len(self._backfills) + 1)
        status = backfill.status.value.lower().replace("_", " ")
        if self._backfill_status.get(backfill.backfill_id) != status:
            self._backfill_status[backfill.backfill_id] = status
            assets = ", ".join(sorted(key.to_user_string() for key in backfill.asset_selection or []))
            causes = tuple(_instigator_causes(backfill.tags, self._kind_of))
            self.add(BACKFILL, f"backfill {number} {status}" + (f": {assets}" if assets else ""), causes=causes)

    @property
    def open_backfills(self) -> int:
        """How many backfills have not ended."""
        ended = {"completed", "completed success", "completed failed", "failed", "canceled"}
        return sum(status not in ended for status in self._backfill_status.values())

    # What Dagster's events mean here

    def _on_pipeline_start(self, run: Run | None, event: Any) -> None:
        if run:
            run.started, run.status = self._now(), STARTED
            self.add(STARTED, run.what, run=run.number)

    def _on_resource_init_failure(self, run: Run | None, event: Any) -> None:
        if run and event.engine_event_data.error:
            run.error = message_of(event.engine_event_data.error)
            run.trace = trace_of(event.engine_event_data.error)

    def _on_pipeline_success(self, run: Run | None, event: Any) -> None:
        self._ended(run, SUCCEEDED, "")

    def _on_pipeline_failure(self, run: Run | None, event: Any) -> None:
        data = event.job_failure_data
        error = message_of(data.first_step_failure_event.step_failure_data.error) if _step_of(data) else ""
        self._ended(run, FAILED, (run.error if run else "") or error or event.message or "")

    def _on_pipeline_canceled(self, run: Run | None, event: Any) -> None:
        self._ended(run, CANCELED, "")

    def _ended(self, run: Run | None, status: str, error: str) -> None:
        if run:
            run.ended, run.status, run.error = self._now(), status, error
            text = f"{run.what}: {error}" if error else run.what
            self.add(status, text, run=run.number, problem=status != SUCCEEDED)

    def _on_step_failure(self, run: Run | None, event: Any) -> None:
        message = message_of(event.step_failure_data.error)
        if run:
            run.error, run.trace = message, trace_of(event.step_failure_data.error)
        self._step_failed(run, event.step_key, f"{event.step_key}: {message}")

    def _on_step_up_for_retry(self, run: Run | None, event: Any) -> None:
        message = message_of(event.step_retry_data.error)
        self._step_failed(run, event.step_key, f"{event.step_key}, to be retried: {message}")

    def _step_failed(self, run: Run | None, step: str, text: str) -> None:
        self.add(STEP_FAILED, text, run=run.number if run else None, subject=step, problem=True)

    def _on_freshness_state_change(self, run: Run | None, event: Any) -> None:
        change = event.event_specific_data
        state = change.new_state.value
        # The daemon also notes that an asset has no policy, or has never been materialized.
        if state in _FRESHNESS_STATES:
            name = change.key.to_user_string()
            problem = state != "PASS"
            self.add(FRESHNESS, f"{name} {_FRESHNESS_STATES[state]}", asset=name, problem=problem)

    def _on_asset_materialization(self, run: Run | None, event: Any) -> None:
        self.materialized[event.asset_key.to_user_string()] = self._now()
        self._asset_event(MATERIALIZED, run, event.asset_key, event.partition)

    def _on_asset_observation(self, run: Run | None, event: Any) -> None:
        self._asset_event(OBSERVED, run, event.asset_key, event.partition)

    def _on_asset_check_evaluation(self, run: Run | None, event: Any) -> None:
        check = event.asset_check_evaluation_data
        outcome = "passed" if check.passed else "did not pass"
        if not check.passed and check.severity == dg.AssetCheckSeverity.WARN:
            outcome += ", which is a warning"
        self.add(
            CHECKED,
            f"{check.check_name} of {check.asset_key.to_user_string()} {outcome}",
            run=run.number if run else None,
            asset=check.asset_key.to_user_string(),
            partition=getattr(check, "partition", None),
            subject=check.check_name,
            problem=not check.passed,
        )

    def _asset_event(self, kind: str, run: Run | None, key: dg.AssetKey, partition: str | None) -> None:
        name = key.to_user_string()
        self.add(
            kind,
            (f"{name} [{partition}]" if partition else name) + ("" if run else ", reported without a run"),
            run=run.number if run else None,
            asset=name,
            partition=partition,
        )

    def _number_of(self, found: re.Match[str]) -> str:
        run = self.runs.get(found[1])
        return f"run {run.number}" if run else found[0]

    # Causes

    def _causes(self, run: Any) -> Iterator[Cause]:
        tags = run.tags
        if backfill := tags.get("dagster/backfill"):
            yield Cause("backfill", str(self._backfills.setdefault(backfill, len(self._backfills) + 1)))
        yield from _instigator_causes(tags, lambda name: self._kind_of(name, _location_of(run)))
        if run.parent_run_id:
            parent = self.runs.get(run.parent_run_id)
            yield Cause("retry", f"of run {parent.number}" if parent else "of a run")
        elif not any(tag in tags for tag in ("dagster/backfill", "dagster/sensor_name", "dagster/schedule_name")):
            yield Cause("hand")

    def _kind_of(self, name: str, location: str | None = None) -> str:
        kinds = {
            kind
            for place, known, kind in self.instigators.values()
            if known == name and kind != "schedule" and location in (None, place)
        }
        return kinds.pop() if len(kinds) == 1 else "sensor"


def as_lines(events: Iterable[Event], *, every_time: bool = False) -> Iterator[str]:
    """Events as text, one a line; times where they change, or in every line."""
    last: datetime | None = None
    for event in events:
        # Moments of one time zone count as the same when the clocks show the same.
        same = last is not None and event.at.timestamp() == last.timestamp()
        moment = "" if same and not every_time else shown(event.at)
        last = event.at
        run = f"run {event.run}" if event.run else ""
        causes = f"  ({', '.join(str(cause) for cause in event.causes)})" if event.causes else ""
        yield f"{moment:<19}  {event.kind:<12}  {run:<7} {event.text}{causes}".rstrip()


def in_order(runs: Sequence[Any], key: Callable[[Any], Any]) -> list[Any]:
    """The runs in the order given, except that those whose order varies are sorted among themselves.

    Dagster takes the runs of one evaluation of conditions, and of one backfill, from sets.
    """
    ordered: list[Any] = [None] * len(runs)
    sets: dict[Any, list[int]] = {}
    for position, run in enumerate(runs):
        sets.setdefault(_set_of(run.tags) or position, []).append(position)
    for positions in sets.values():
        members = sorted((runs[position] for position in positions), key=key)
        for position, run in zip(positions, members, strict=True):
            ordered[position] = run
    return ordered


def _set_of(tags: Any) -> tuple[str, ...] | None:
    """What the runs that Dagster takes from the same set have in common; None for a run that it takes from none."""
    if backfill := tags.get("dagster/backfill"):
        return (backfill, tags.get("dagster/priority", ""))
    if "dagster/from_automation_condition" in tags:
        return (tags.get("dagster/sensor_name", ""), tags.get("dagster/tick", ""), tags.get("dagster/priority", ""))
    return None


def lateness(duration: timedelta) -> str:
    """A duration in words: `7 h`, `90 s`, `2 d 3 h`."""
    seconds = int(duration.total_seconds())
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


def between(begin: datetime, end: datetime) -> str:
    """The time from one moment to another in words, also where the clocks are changed in between."""
    return lateness(timedelta(seconds=end.timestamp() - begin.timestamp()))


def _instigator_causes(tags: Any, kind_of: Callable[[str], str]) -> Iterator[Cause]:
    if sensor := tags.get("dagster/sensor_name"):
        yield Cause("automation" if "dagster/from_automation_condition" in tags else kind_of(sensor), sensor)
    if schedule := tags.get("dagster/schedule_name"):
        yield Cause("schedule", schedule)


def _reason(data: Any) -> str:
    """Why a tick was skipped, in the sensor's own words."""
    return data.skip_reason if data.skip_reason and data.skip_reason != _NO_REASON else ""


def _location_of(run: Any) -> str:
    origin = run.remote_job_origin
    return origin.location_name if origin else ""


def _sort_key(run: Any, assets: tuple[str, ...], partitions: tuple[str, ...]) -> tuple[Any, ...]:
    keys = ("dagster/schedule_name", "dagster/sensor_name", "dagster/run_key")
    return (_location_of(run), assets, partitions, run.job_name, *(run.tags.get(key, "") for key in keys))


def _step_of(data: Any) -> bool:
    return bool(data and data.first_step_failure_event and data.first_step_failure_event.step_failure_data)
