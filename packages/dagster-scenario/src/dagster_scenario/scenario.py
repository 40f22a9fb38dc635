"""The scenario: a clock, a world, Dagster's daemons and runs, and what to expect of them."""

import itertools
import os
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import dagster as dg

from dagster_scenario import sources as sources_
from dagster_scenario import timeline as timeline_
from dagster_scenario.clock import Clock, sleeps
from dagster_scenario.crons import crons_begin_at_once
from dagster_scenario.daemons import Chance, Daemons
from dagster_scenario.dry_run import DryRun
from dagster_scenario.due import Due
from dagster_scenario.errors import ScenarioError, ScenarioWarning, unknown
from dagster_scenario.execution import Execution, never_hit
from dagster_scenario.expectations_by_name import CheckExpectation, JobExpectation, PartitionsExpectation
from dagster_scenario.expectations_of_assets import AssetExpectation
from dagster_scenario.expectations_of_runs import RunsExpectation
from dagster_scenario.expectations_of_ticks import ScheduleExpectation, SensorExpectation
from dagster_scenario.fault_injection import FaultInjection
from dagster_scenario.instance import make_instance
from dagster_scenario.kept_cursors import cursors_are_kept
from dagster_scenario.locations import Asset, Locations
from dagster_scenario.pools import steps_sleep_until_ready
from dagster_scenario.quiet import quiet_logs, without_dagsters_warnings
from dagster_scenario.reasons import Evaluations
from dagster_scenario.remembering import remembered, without_garbage_collection
from dagster_scenario.requests import Requests
from dagster_scenario.runs import delta, threads_belong_to_runs
from dagster_scenario.storage import ScenarioStorage
from dagster_scenario.stubbing import Stubbing
from dagster_scenario.stuck import DaemonWatch, limit, signals_end, stack_from
from dagster_scenario.tick_faults import TickFaults
from dagster_scenario.timeline import Mark, Timeline
from dagster_scenario.world import World

# What `load` takes; a Definitions object can also come from a function with @dg.definitions.
Source = str | Path | ModuleType | dg.Definitions | Callable[..., dg.Definitions] | dg.RepositoryDefinition

# Dagster's slowest daemon makes a pass every 30 s; so does a scenario.
TICK = timedelta(seconds=30)


class Scenario(World, Requests, Stubbing, FaultInjection):
    """A Dagster deployment in this process, on a simulated clock that only the scenario moves.

    settings: the project's dagster.yaml, as a path or a mapping, for its run queue, limits, monitoring and retries.
    start: the simulated time at which it begins. timezone: of every time that is given without an offset.
    folder: becomes DAGSTER_HOME and keeps what Dagster stores; a temporary one by default. tick: simulated time
    between two passes of the daemons. every_tick: make every one of them, also while nothing happens.

    Use it in a `with` statement, or `close()` it: until then the whole process sees simulated time. One at a time.
    """

    _current: "Scenario | None" = None

    def __init__(
        self,
        *,
        settings: Mapping[str, Any] | str | Path | None = None,
        start: datetime | str = "2024-01-01 00:00",
        timezone: str = "UTC",
        folder: str | Path | None = None,
        tick: timedelta = TICK,
        every_tick: bool = False,
    ) -> None:
        if Scenario._current is not None:
            raise ScenarioError("another scenario is open in this process; close it first: there is one clock")
        self.clock = Clock(start, timezone)
        self.timeline = Timeline(self.clock.now)
        self.evaluations = Evaluations()
        self._tick = tick
        # Whether `advance` and `at` make every tick, also while nothing happens.
        self.every_tick = every_tick
        self._due_times: Due | None = None
        self._clock_readers: dict[tuple[str, str], str] = {}
        self._folder = Path(folder or tempfile.mkdtemp(prefix="dagster-scenario-")).resolve()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._keep_folder = folder is not None
        self.timeline.private_paths = (str(self._folder),)
        self._locations = Locations()
        self._daemons: Daemons | None = None
        self._chance = Chance()
        self._execution = Execution(self._folder, self.clock, self.timeline, self._locations)
        self._tick_faults = TickFaults(self.clock)
        self._watch = DaemonWatch(lambda: self._execution.stuck_after)
        self._twice: set[str] = set()
        self._replaced_executors: set[tuple[str, str]] = set()
        self._settled = False
        # When something last changed, in the world or in Dagster.
        self._changed_at = self.clock.instant.timestamp()
        self._ticking = False
        # The times of the last tick, and of the one before.
        self._ticked: datetime | None = None
        self._ticked_before: datetime | None = None
        self._closing = ExitStack()
        Scenario._current = self
        self._closing.callback(self._forget)
        try:
            self._open(settings)
        except BaseException:
            self._closing.close()
            raise

    def _open(self, settings: Mapping[str, Any] | str | Path | None) -> None:
        self._set_environment(
            DAGSTER_HOME=str(self._folder),
            # Nothing else writes while a tick reads, so nothing has to settle.
            DAGSTER_AUTOMATION_TICK_SETTLE_SECONDS="0",
            # The form of an automation's cursor that is read and written faster.
            DAGSTER_WRITE_COMPRESSED_ASSET_DAEMON_CURSOR="1",
        )
        self.clock.freeze()
        self._closing.callback(self.clock.unfreeze)
        self._closing.enter_context(sleeps(self._sleep))
        self._closing.enter_context(threads_belong_to_runs())
        self._closing.enter_context(steps_sleep_until_ready())
        self._closing.enter_context(remembered())
        self._closing.enter_context(cursors_are_kept())
        self._closing.enter_context(crons_begin_at_once())
        self._closing.callback(self._watch.close)
        self._closing.enter_context(signals_end(self._where))
        self._closing.enter_context(quiet_logs())
        self.instance = self._execution.instance = make_instance(self._folder, settings)
        storage = ScenarioStorage.at(str(self._folder))
        self._closing.callback(storage.close, str(self._folder))
        storage.listener = self
        storage.launch = self._execution.launch
        storage.terminate = self._execution.terminate
        storage.worker_is_alive = self._execution.worker_is_alive
        self._closing.callback(self.instance.dispose)
        self._closing.callback(self._locations.close)
        self._closing.callback(self._stop_daemons)
        self._closing.callback(self._execution.abandon)
        self._closing.callback(self._tick_faults.unwatch)

    @property
    def stuck_after(self) -> float | None:
        """Seconds of real time without any progress after which a run, or a pass of the daemons, is reported.

        The error says where it hangs. None for no limit. 60 by default; with pytest, the ini setting
        `scenario_stuck_after` and the option `--scenario-stuck-after` set it for all tests.
        """
        return self._execution.stuck_after

    @stuck_after.setter
    def stuck_after(self, seconds: float | None) -> None:
        self._execution.stuck_after = limit(seconds)

    @property
    def cpus(self) -> int:
        """How many CPUs the machine of a run has; 4 by default, whatever machine the test is on.

        So many steps of a run are under way at once with Dagster's default executor, or `multiprocess_executor`, when
        neither its `max_concurrent` nor DAGSTER_MULTIPROCESS_EXECUTOR_MAX_CONCURRENT says how many.
        """
        return self._execution.cpus

    @cpus.setter
    def cpus(self, number: int) -> None:
        if not isinstance(number, int) or number < 1:
            raise ScenarioError(f"cpus={number!r} is not a number of CPUs; give 1 or more")
        self._execution.cpus = number

    def close(self) -> None:
        """End it: runs that are held are abandoned, real time comes back, the folder goes if it was temporary."""
        self._closing.close()

    def check_faults(self) -> None:
        """Raise ScenarioError if nothing came to the point of a fault; the end of a `with` and of a test does it too.

        A fault that never happens is most often a name that is not what it was, and a test that proves nothing.
        """
        unhit = list(never_hit([*self._execution.faults, *self._tick_faults.faults]))
        if unhit:
            raise ScenarioError(f"nothing came to where it was told to {'; '.join(unhit)}")

    def __enter__(self) -> "Scenario":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                self.check_faults()
        finally:
            self.close()

    # Code locations

    def load(
        self,
        *sources: Source,
        resources: Mapping[str, Any] | None = None,
        in_process: bool = True,
        **named: Source,
    ) -> None:
        """Load code locations; more can be loaded later, and a loaded name can be given again to deploy new code.

        Args:
            sources: names of modules with Definitions in them; paths to a workspace.yaml, dagster_cloud.yaml,
                pyproject.toml, Python file or project folder; Definitions objects; functions with `@dg.definitions`.
            resources: by their keys, what takes the place of the resources and IO managers of these locations, in
                runs, sensors and schedules: objects, or definitions of resources.
            in_process: has no effect any more. The steps of all jobs run in this process.
            named: the same, under a name of your choice.

        Raises:
            ScenarioError: what does not load, and why.
        """
        if not sources and not named:
            raise ScenarioError(f"load what? {sources_.EXPECTED[0].upper()}{sources_.EXPECTED[1:]}")
        with without_dagsters_warnings(), self._locations.unless_it_fails():
            names = self._locations.add(sources, named)
            self._locations.swap_resources(names, resources)
            self._load()
        self._changed(timeline_.DAEMON, f"loaded {', '.join(names)}")
        self._say_which_executors_were_replaced()

    def _load(self) -> None:
        """Load all code locations anew; the daemons start again."""
        self._locations.load(self.instance)
        self.timeline.instigators = self._locations.instigators()
        stopped = self._daemons.stopped if self._daemons else set()
        self._stop_daemons()
        sensors = self._locations.sensors()
        self._due_times = Due(
            self.instance,
            self._locations.repositories.values(),
            sensors.values(),
            self._locations.schedules().values(),
        )
        self._clock_readers = dict(self._locations.sensors_that_read_the_clock())
        without = [] if self._due_times.has_freshness else ["freshness"]
        self._daemons = Daemons(self.instance, self._locations.workspace, self._chance, without)
        self._daemons.stopped = stopped
        self._execution.watch_again()
        self._tick_faults.watch_again(self._locations.tickers)

    def _say_which_executors_were_replaced(self) -> None:
        for location, executor, jobs in self._locations.replaced_executors():
            if (location, executor) not in self._replaced_executors:
                self._replaced_executors.add((location, executor))
                shown = ", ".join(jobs[:3]) + (f" and {len(jobs) - 3} more" if len(jobs) > 3 else "")
                self.timeline.add(
                    timeline_.DAEMON, f"steps of {shown} ({location}) run in this process, not by {executor}"
                )

    # The clock

    @property
    def now(self) -> datetime:
        """The simulated time."""
        return self.clock.now()

    def start(self, at: datetime | str) -> None:
        """Begin at this time: set the clock, in either direction, before anything has happened."""
        if any(event.kind in timeline_.ACTIVITY for event in self.timeline.events):
            raise ScenarioError("the scenario has begun; move the clock with at(...) or advance(...)")
        self.clock.set(self.clock.parse(at))

    def advance(self, *, every_tick: bool | None = None, **duration: float) -> None:
        """Let time pass, as in `advance(hours=2, minutes=30)`, while the daemons tick.

        They tick while something happens, and whenever something falls due: a schedule, the end of a partition, a
        run that sleeps. In between, time is skipped.

        Args:
            every_tick: Skip nothing: tick every 30 s of simulated time, as a deployment does. For sensors that depend
                on the time alone. By default what the scenario's own `every_tick` says.
            duration: As for `datetime.timedelta`.

        Warns:
            ScenarioWarning: Time was skipped over a sensor that reads the clock. Once for each.
        """
        self._pass_time_until(self.clock.instant + delta(**duration), every_tick)

    def at(self, moment: datetime | str, *, every_tick: bool | None = None) -> None:
        """Let time pass until a moment, as `advance` does. `'16:00'` is the next 16:00."""
        self._pass_time_until(self.clock.next(moment), every_tick)

    def tick(self, times: int = 1) -> None:
        """One pass of every daemon, now, and then the runs that it started. Time does not move."""
        for _ in range(times):
            self._one_tick()

    def run_until_quiet(self, within: int = 200) -> None:
        """Tick, with 30 s between two ticks, until a tick has brought nothing and moved no sensor's cursor.

        Two ticks in a row that brought nothing are quiet in any case. Runs that are held or asleep, and sensors that
        look less often than every 30 s, are not waited for. Raises ScenarioError when it is not quiet after `within`
        ticks, saying what goes on.
        """
        self._ticks_until_quiet(within, None)

    def _pass_time_until(self, target: datetime, every_tick: bool | None) -> None:
        clock = self.clock
        if target < clock.instant:
            raise ScenarioError(f"{clock.show(target)} has passed: it is {clock.show(clock.instant)}")
        if not self._settled:
            self._ticks_until_quiet(None, target)
        while clock.instant < target:
            moment = min([target, *self._due()])
            if self.every_tick if every_tick is None else every_tick:
                clock.move(min(moment, clock.instant + self._tick))
                self._one_tick()
                continue
            self._warn_of_skipped(clock.instant, moment)
            clock.move(moment)
            self._settled = False
            self._ticks_until_quiet(None, target)

    def _ticks_until_quiet(self, within: int | None, target: datetime | None) -> None:
        """Tick until it is quiet, within so many ticks, or until the target has come."""
        idle = 0
        begin = self.timeline.mark()
        for ticks in itertools.count():
            if ticks == within:
                raise ScenarioError(self._never_quiet(within, begin))
            if self._ticked == self.clock.instant:
                # A sensor looks once at a time.
                next_tick = min([self.clock.instant + self._tick, *self._due()])
                if target is not None and next_tick > target:
                    return
                self.clock.move(next_tick)
            cursors = self.timeline.cursors_moved
            is_idle = not self._one_tick() and not self._to_be_noticed()
            if is_idle and self._came_early():
                continue
            idle = idle + 1 if is_idle else 0
            # A sensor that has taken note of something, such as a file that is still growing, has more to say.
            if idle == 2 or (idle == 1 and cursors == self.timeline.cursors_moved):
                self._settled = True
                return

    def _came_early(self) -> bool:
        """Whether a tick came so soon after another that some daemons and sensors were not due in it."""
        before = self._ticked_before
        return before is not None and timedelta(0) < self.clock.instant - before < self._tick

    def _due(self) -> list[datetime]:
        """When something falls due, in UTC: a schedule, a partition's end, a run that sleeps, a sensor's next look."""
        return [
            *self._execution.due_after(self.clock.instant),
            *self._regularly_due(),
            *self._slow_looks_after(self.clock.instant),
        ]

    def _regularly_due(self) -> Iterator[datetime]:
        """When schedules, partitions' ends and the like fall due, as far as they are on."""
        if self._due_times is not None:
            running = self._loaded_daemons().running
            yield from self._due_times.after(self.clock.instant, running, self.timeline.materialized)

    def _warn_of_skipped(self, begin: datetime, end: datetime) -> None:
        """Warn once of each sensor that reads the clock and would have looked in a time that is skipped."""
        if not self._clock_readers or self._due_times is None or "sensors" not in self._loaded_daemons().running:
            return
        for sensor in self._due_times.running_sensors():
            key = (sensor.handle.location_name, sensor.name)
            interval = max(self._tick, self._locations.sensor_intervals[key])
            if key in self._clock_readers and end - begin > interval:
                where = self._clock_readers.pop(key)
                skipped = f"from {self.clock.show(begin)} to {self.clock.show(end)}"
                warnings.warn(
                    f"sensor {sensor.name!r} reads the clock at {where}, and the time {skipped} is skipped, because "
                    "nothing else happens in it: the sensor does not look there, as it would in a deployment. If that "
                    "matters: advance(..., every_tick=True), or Scenario(every_tick=True)",
                    ScenarioWarning,
                    stacklevel=4,
                )

    def _slow_looks_after(self, now: datetime) -> Iterator[datetime]:
        """The next looks of those sensors that look less often than a tick, and have not since something changed."""
        for key, interval in self._locations.sensor_intervals.items():
            looking = self.timeline.looking.get(key)
            if interval > self._tick and looking is not None and looking.last.timestamp() <= self._changed_at:
                due = looking.last.astimezone(timezone.utc) + interval
                if due > now:
                    yield due

    def _to_be_noticed(self) -> bool:
        """Whether run monitoring has yet to find out that a run was killed."""
        return self._execution.unnoticed and "run monitoring" in self._loaded_daemons().running

    def _never_quiet(self, within: int, begin: Mark) -> str:
        requests = Counter(
            f"{event.text} requested {' and '.join(map(str, event.causes))}"
            for event in self.timeline.since(begin)
            if event.kind == timeline_.REQUESTED
        )
        often = [f"  {count} times: {line}" for line, count in requests.most_common(5)]
        last = [f"  {line}" for line in self.timeline.lines(begin)][-10:]
        return "\n".join(
            [
                f"not quiet after {within} ticks ({timeline_.between(begin.at, self.now)} of simulated time). "
                "Either something requests itself again and again, or give it more: run_until_quiet(within=...)",
                *(["requested most often:", *often] if often else ["no run was requested in that time"]),
                "the last of it:",
                *last,
            ]
        )

    # One tick

    def _one_tick(self) -> bool:
        """Whether anything happened."""
        self._loaded_daemons()
        self._ticked_before, self._ticked = self._ticked, self.clock.instant
        before, restless = len(self.timeline.events), self.timeline.restless_ticks
        with without_dagsters_warnings():
            self._execution.wake_sleepers()
            before_twice = {origin: self._state_of(origin) for origin in self._twice}
            self._step_daemons()
            if before_twice:
                self._forget_tick(before_twice)
                self._step_daemons()
            self._execution.execute_launched()
        active = self.timeline.restless_ticks != restless or any(
            event.kind in timeline_.ACTIVITY for event in self.timeline.events[before:]
        )
        if active:
            self._unsettle()
        return active

    def _step_daemons(self) -> None:
        self._ticking = True
        try:
            with self._watch.watching(), without_garbage_collection():
                errors = self._loaded_daemons().step()
        finally:
            self._ticking = False
        if not any(looking.error for looking in self.timeline.looking.values()):
            # An error that is not the outcome of a tick, which the timeline has already.
            for error in errors:
                self.timeline.add(timeline_.DAEMON, error, problem=True)
        self._number_requests()

    def _state_of(self, origin_id: str) -> Any:
        """What Dagster keeps between the ticks of a sensor or schedule; None before its first one."""
        states = self.instance.all_instigator_state()
        return next((state for state in states if state.instigator_origin_id == origin_id), None)

    def _forget_tick(self, states: Mapping[str, Any]) -> None:
        """The daemon died before it could save what the ticks left; the next one begins where they began."""
        for origin_id, state in states.items():
            after = self._state_of(origin_id)
            if state is not None:
                self.instance.update_instigator_state(state)
            elif after is not None:
                self.instance.delete_instigator_state(origin_id, after.selector_id)
        self._twice.clear()
        daemons = self._loaded_daemons()
        if "schedules" not in daemons.stopped:
            # It remembers when each schedule is due next.
            daemons.stop(["schedules"])
            daemons.start(["schedules"])

    def _sleep(self, seconds: float, real_sleep: Callable[[float], None]) -> None:
        if self._execution.sleep(seconds):
            return
        if self._ticking:
            # A sensor or a condition that sleeps keeps its daemon waiting.
            self.clock.move(self.clock.instant + timedelta(seconds=seconds))
        else:
            real_sleep(seconds)

    # Looking

    def mark(self, name: str = "") -> Mark:
        """A point to look back to: `expect(...).materialized(..., since=mark)`."""
        return self.timeline.mark(name)

    def expect(self, asset: str | dg.AssetKey) -> AssetExpectation:
        """What is expected of an asset."""
        return AssetExpectation(self, self._locations.asset(asset))

    def expect_sensor(self, name: str) -> SensorExpectation:
        """What is expected of a sensor."""
        known = sorted({sensor for _, sensor in self._locations.sensors()})
        if name not in known:
            raise unknown("sensor", name, known)
        return SensorExpectation(self, name)

    def expect_schedule(self, name: str) -> ScheduleExpectation:
        """What is expected of a schedule."""
        known = sorted({schedule for _, schedule in self._locations.schedules()})
        if name not in known:
            raise unknown("schedule", name, known)
        return ScheduleExpectation(self, name)

    def expect_job(self, name: str) -> JobExpectation:
        """What is expected of the runs of a job."""
        self._locations.job(name)
        return JobExpectation(self, name)

    def expect_check(self, asset: str | dg.AssetKey, check: str) -> CheckExpectation:
        """What is expected of a check of an asset."""
        name = self._locations.asset(asset).name
        known = self._locations.checks_of(name)
        if check not in known:
            raise unknown("check", check, known, where=f" of {name}")
        return CheckExpectation(self, name, check)

    def expect_partitions(self, name: str) -> PartitionsExpectation:
        """What is expected of the partitions of a DynamicPartitionsDefinition of this name."""
        self._locations.check_dynamic_partitions(name)
        return PartitionsExpectation(self, name)

    def dry_run(
        self, schedule: str, *, since: datetime | str | None = None, until: datetime | str | None = None
    ) -> DryRun:
        """Play a schedule without requesting anything: when it would tick, and what it would request.

        Its function is called for each tick, at the simulated time of the tick; what it changes in the world is not
        undone.

        Args:
            schedule: its name. It may be off.
            since: when to begin; None for now.
            until: when to end; None for a year later.

        Raises:
            ScenarioError: there is no such schedule.
        """
        known = {name: (location, remote) for (location, name), remote in self._locations.schedules().items()}
        if schedule not in known:
            raise unknown("schedule", schedule, known)
        now = self.clock.instant
        begin = self.clock.parse(since) if since is not None else now
        end = self.clock.parse(until) if until is not None else begin + timedelta(days=366)
        location, remote = known[schedule]
        ticks = []
        try:
            for at in self._locations.ticks_of(remote, begin, end):
                self.clock.set(at)
                with without_dagsters_warnings(), self._tick_faults.muted():
                    ticks.append(self._locations.planned_tick(location, remote, at, self.instance))
        finally:
            self.clock.set(now)
        return DryRun(schedule, tuple(ticks))

    def expect_runs(self, since: Mark | None = None, *, job: str | None = None) -> RunsExpectation:
        """What is expected of the runs, or of those of one job."""
        if job is not None:
            self._locations.job(job)
        return RunsExpectation(self, since, job)

    # Behind it

    def check_partitions(self, asset: Asset, partitions: Sequence[str]) -> None:
        """Refuse partitions that an asset neither has at this moment nor has had in this scenario."""
        had = {event.partition for event in self.timeline.events if event.asset == asset.name}
        had |= {key for run in self.timeline.runs.values() if asset.name in run.assets for key in run.partitions}
        self._locations.check_partitions(asset, [key for key in partitions if key not in had], self.instance)

    def switched_off(self, location: str) -> list[str]:
        """The names of the sensors and schedules of a code location that are off."""
        return self._locations.switched_off(location, self.instance)

    def is_off(self, name: str) -> bool:
        """Whether a sensor or schedule of this name is switched off."""
        locations = {location for location, _ in self._locations.repositories}
        return any(name in self.switched_off(location) for location in locations)

    def location_of_job(self, name: str) -> str:
        """The name of the code location that has this job."""
        return self._locations.job(name)[0]

    def is_down(self, daemon: str) -> bool:
        """Whether a daemon was stopped."""
        return self._daemons is not None and daemon in self._daemons.stopped

    def freshness_of(self, asset: Asset) -> str:
        """The state of an asset by its freshness policy: pass, warn, fail, or unknown."""
        record = self.instance.get_freshness_state_records([asset.key]).get(asset.key)
        return record.freshness_state.value.lower() if record else "unknown"

    def check_asset_or_job(self, name: str) -> None:
        """Refuse a name that is neither an asset nor a job."""
        if name not in self._locations.assets():
            self._locations.job(name)

    def happened(self, text: str) -> None:
        """Note in the timeline that the world has changed; for verbs of your own."""
        self._changed(timeline_.WORLD, text)

    def event_stored(self, entry: Any) -> None:
        """Dagster stored an event."""
        self._watch.watch.moved()
        self._execution.event_stored(entry)
        self.timeline.event_stored(entry)

    def tick_stored(self, tick: Any) -> None:
        """Dagster stored the outcome of a tick."""
        self._watch.watch.moved()
        self.timeline.tick_stored(tick)

    def evaluations_stored(self, evaluations: Any) -> None:
        """Dagster evaluated automation conditions, of which these came out differently than before."""
        self.evaluations.note(self.now, evaluations)

    def partitions_stored(self, definition: str, keys: Sequence[str], added: bool) -> None:
        """Dagster stored that dynamic partitions were added or removed."""
        self.timeline.partitions_stored(definition, keys, added)

    def run_added(self, run: Any) -> None:
        """Dagster created a run."""
        self.timeline.run_added(run)

    def backfill_stored(self, backfill: Any) -> None:
        """Dagster stored the state of a backfill."""
        self.timeline.backfill_stored(backfill)

    def slot_claimed(self, pool: str, claimed: bool) -> None:
        """A step has asked for a slot of a pool."""
        self._execution.slot_claimed(pool, claimed)

    def slots_changed(self) -> None:
        """Slots of a pool were freed or added."""
        self._execution.slots_changed()

    def _changed(self, kind: str, text: str) -> None:
        self.timeline.add(kind, text)
        self._unsettle()

    def _unsettle(self) -> None:
        self._settled = False
        self._changed_at = self.clock.instant.timestamp()

    def _requested(self) -> None:
        self._number_requests()
        self._unsettle()

    def _number_requests(self) -> None:
        self.timeline.number_requests(
            self._locations.assets_in, lambda run: self._locations.partitions_of(run, self.instance)
        )

    def _loaded_daemons(self) -> Daemons:
        if self._daemons is None:
            raise ScenarioError("no code location is loaded; begin with scenario.load('workspace.yaml')")
        return self._daemons

    def _where(self, frame: FrameType | None) -> str:
        """What is going on, for a signal that ends it. frame: where the thread of the test is."""
        return self._execution.where() or f"it was at {stack_from(frame).line() or 'the test'}"

    def _check_target(self, target: str, partition: str | None) -> None:
        asset = self._locations.assets().get(target)
        if asset is not None and asset.partitions is None and partition is not None:
            self._locations.check_partitions(asset, [partition], self.instance)

    def _set_environment(self, **values: str) -> None:
        for name, value in values.items():
            before = os.environ.get(name)
            os.environ[name] = value
            self._closing.callback(_restore, name, before)

    def _stop_daemons(self) -> None:
        if self._daemons is not None:
            self._daemons.close()
            self._daemons = None

    def _forget(self) -> None:
        Scenario._current = None
        if not self._keep_folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
