"""The deployed integrator, divided into small steps that can be interleaved.

The decisions are real: those of the commit sensor, of the automation condition (which Dagster evaluates on a real
instance), of the reconciliation, and `process` itself. Only what connects them is imitated: Dagster's daemons, which
keep cursors, launch runs and resume interrupted ticks (`dagster/_daemon/sensor.py`), and the worker of a run.

Everything that takes time is a generator. It yields a text that says where it stops. Between two of its steps,
anything else may move.
"""

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cached_property
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import dagster as dg
from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor
from dagster._core.definitions.automation_tick_evaluation_context import build_run_requests
from dagster._core.definitions.declarative_automation.automation_condition_evaluator import (
    AutomationConditionEvaluator,
)
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.events import AssetMaterializationPlannedData, DagsterEvent, StepMaterializationData

from dedp_assets.delta import overtaken
from dedp_assets.delta.commits import Snapshot
from dedp_assets.delta.problems import TableProblem
from dedp_assets.late_data_integrator import assets, contract, processing, state, tables
from dedp_assets.resources_from_settings import LakeFromSettings, SparkFromSettings
from jobs.late_data_integrator import WHEN_CLOSED
from sensors import reconciliation
from sensors.delta_commits.cursor import Cursor
from sensors.delta_commits.events import materialization
from sensors.delta_commits.observing import observe_table, snapshot_is_due
from sensors.delta_commits.planning import plan_report
from sensors.pipelines import late_data_integrator as late_data
from tests.model.tables import Commit, Counts, CountsTable, Devices, Log, Pause, count, snapshot_of

START = datetime(2024, 1, 3, 12, tzinfo=timezone.utc)

COMMITS, AUTOMATION, RECONCILIATION = "commit sensor", "automation", "reconciliation"

# Dagster resumes an interrupted tick if that was not too long ago.
_RESUMED = timedelta(days=1)
# From the retry policy of device_counts, and from run_retries in dagster.yaml.
_STEP_RETRIES = _RUN_RETRIES = 3

Steps = Generator[str, None, None]


@dataclass(frozen=True)
class System:
    """The system under test: the parts that tests replace."""

    condition: dg.AutomationCondition[Any] = WHEN_CLOSED
    reconciled: bool = True
    counts: type[Counts] = Counts
    log: type[Log] = Log

    @cached_property
    def graph(self) -> Any:
        counted = assets.device_counts.map_asset_specs(
            lambda spec: spec.replace_attributes(automation_condition=self.condition)
        )
        resources = {"lake": LakeFromSettings(), "spark": SparkFromSettings()}
        return dg.Definitions(assets=[assets.devices, counted], resources=resources).resolve_asset_graph()


class Broken(NamedTuple):
    """Something that must not happen, but did: its kind, and the details."""

    kind: str
    text: str


class Failed(Exception):
    """A run fails with this, for example because Spark is gone."""


class StorageAway(Exception):
    """PostgreSQL does not answer, so Dagster can't read or store anything."""


class Run:
    """A launched run that has not ended."""

    def __init__(self, number: int, days: list[str], retry: int, by: str) -> None:
        self.number, self.days, self.retry, self.by = number, days, retry, by
        self.id = f"00000000-0000-0000-0000-{number:012}"
        self.steps: Steps | None = None
        self.at = "is queued"
        self.dead = False  # whether its process has died without anybody noticing

    def __str__(self) -> str:
        return f"run {self.number} of {self.days[0]}{f'...{self.days[-1]}' if len(self.days) > 1 else ''}"


@dataclass
class _Tick:
    """What Dagster has stored about an unfinished tick that has reserved its runs."""

    at: datetime
    requests: list[tuple[int, dg.RunRequest]]
    cursor: Any


@dataclass
class Tally:
    """What has happened so far, by day where that applies."""

    reported: Counter[str] = field(default_factory=Counter)  # events of the commit sensor
    disturbed: Counter[str] = field(default_factory=Counter)  # runs that were killed, canceled, or failed
    written: Counter[str] = field(default_factory=Counter)  # how often the counts were written
    told: Counter[str] = field(
        default_factory=Counter
    )  # how often they had been written when Dagster last heard of them
    stale_observations: int = 0  # how often the counts were written while the reconciliation observed them
    cursors_lost: Counter[str] = field(default_factory=Counter)  # by the name of who lost it


class Deployment:
    """A system with its two tables and Dagster's instance. `log` has a line for each step that happened."""

    _loop = asyncio.new_event_loop()

    def __init__(self, system: System, instance: dg.DagsterInstance) -> None:
        # A new one takes 0.3 s, longer than everything that happens in it.
        instance.event_log_storage.wipe()
        instance.run_storage.wipe()
        self.system, self.instance = system, instance
        self.now = START
        self.set_back = 0  # how often the clock was
        self.is_away = False  # PostgreSQL, with all that Dagster stores
        self.devices = Devices()
        self.counts = CountsTable(self.devices)
        self.counts.committed = self._check_commit
        self.log: list[str] = []
        self.broken: list[Broken] = []
        self.tally = Tally()
        self.ticks: dict[str, Steps] = {}  # those under way
        self.runs: list[Run] = []  # those that have not ended, oldest first
        self.to_retry: list[Run] = []
        self.launched: list[Run] = []
        self._cursors: dict[str, Any] = {COMMITS: None, AUTOMATION: None, RECONCILIATION: None}
        self._cut_off: dict[str, _Tick] = {}
        self._run_keys: set[str] = set()
        self._numbers = 0
        self._checked_at: float | None = None  # when the commit sensor last looked at the whole table

    def say(self, what: str) -> None:
        self.log.append(what)

    # What moves by itself: ticks

    def tick(self, name: str, steps: int | None = None) -> None:
        """Begin a tick, or continue the unfinished one, for `steps` steps or to its end."""
        if name not in self.ticks:
            body = {COMMITS: self._commits, AUTOMATION: self._automation, RECONCILIATION: self._reconciliation}[name]
            self.ticks[name] = body()
        where = _advance(self.ticks[name], steps)
        if where is None:
            del self.ticks[name]
        self.say(f"{name}: {where or 'its tick has ended'}")

    def kill_daemon(self) -> None:
        """The daemon's process dies, with the ticks that are under way."""
        self.say(f"the daemon dies in the tick of {' and '.join(self.ticks) or 'nobody'}")
        self._end_ticks()

    def _end_ticks(self) -> None:
        for steps in self.ticks.values():
            steps.close()
        self.ticks.clear()

    def lose_cursor(self, name: str) -> None:
        """Dagster loses the stored cursor of a sensor."""
        self._cursors[name] = None
        self.tally.cursors_lost[name] += 1

    # PostgreSQL goes, and comes back

    def begin_outage(self) -> None:
        """Dagster's storage does not answer. The daemons do nothing. Runs continue until they have to report."""
        self.is_away = True
        self._end_ticks()

    def end_outage(self) -> None:
        """Dagster's storage answers again, and has kept everything."""
        self.is_away = False

    def _use_storage(self) -> None:
        if self.is_away:
            raise StorageAway

    def jump(self, hours: int) -> None:
        """Somebody sets the clock. Nothing else happens meanwhile."""
        self.set_back += hours < 0
        self.now += timedelta(hours=hours)

    def _commits(self) -> Steps:
        cursor = Cursor.from_json(self._cursors[COMMITS])
        try:
            now = self.now.timestamp()
            is_due = snapshot_is_due(self._checked_at, now)
            found = observe_table(self.system.log(self.devices), cursor, wants_snapshot=lambda commits: is_due)
            self._checked_at = now if found.has_read_snapshot else self._checked_at
        except TableProblem as problem:
            self.say(f"{COMMITS}: {problem}")
            return
        days = contract.DAYS.get_partition_keys(current_time=self.now)
        plan = plan_report(found, cursor, first=days[0], last=days[-1], column=contract.PARTITION_COLUMN)
        for change in plan.changes:
            yield f"is about to report version {change.version} of {change.day}"
            self.instance.report_runless_asset_event(materialization(contract.DEVICES, change))
            self.tally.reported[change.day] += 1
        yield "is about to save its cursor"
        self._cursors[COMMITS] = plan.cursor.to_json()

    def _automation(self) -> Steps:
        if self._is_resumed(AUTOMATION):
            # Dagster does not store the cursor of such a sensor with its tick, so that it is lost here.
            self.tally.cursors_lost[AUTOMATION] += 1
            yield from self._launch_all(AUTOMATION)
            return
        cursor = self._cursors[AUTOMATION] or AssetDaemonCursor.empty()
        graph = self.system.graph
        evaluator = AutomationConditionEvaluator(
            entity_keys={contract.DEVICE_COUNTS},
            instance=self.instance,
            asset_graph=graph,
            cursor=cursor,
            emit_backfills=False,
            evaluation_id=cursor.evaluation_id,
            evaluation_time=self.now,
        )
        yield "waits for events to settle"
        with partition_loading_context(effective_dt=self.now, dynamic_partitions_store=self.instance):
            # Not `evaluate()`: with an event loop of its own for every tick, a tick costs a quarter more.
            results, subsets = self._loop.run_until_complete(evaluator.async_evaluate())
            requests = build_run_requests(subsets, graph, run_tags={}, emit_backfills=False)
        cursor = cursor.with_updates(
            evaluation_id=cursor.evaluation_id + 1,
            evaluation_timestamp=self.now.timestamp(),
            newly_observe_requested_asset_keys=[],
            condition_cursors=[result.get_new_cursor() for result in results],
            asset_graph=graph,
        )
        self._reserve(AUTOMATION, requests, None)
        yield from self._launch_all(AUTOMATION)
        self._cursors[AUTOMATION] = cursor

    def _reconciliation(self) -> Steps:
        if self._is_resumed(RECONCILIATION):
            yield from self._launch_all(RECONCILIATION)
            return
        log, counts = self.system.log(self.devices), self.system.counts(self.counts)
        yield "has opened the counts"
        in_progress = state.days_in_progress(self.instance)
        yield "knows the days in progress"
        try:
            progress = state.observe_progress(log, counts, in_progress)  # type: ignore[arg-type]
        except TableProblem as problem:
            self.say(f"{RECONCILIATION}: {problem}")
            return
        self.tally.stale_observations += counts.version != self.counts.version
        behind = late_data.days_behind(
            progress,
            appeared=self.instance.get_materialized_partitions(contract.DEVICES),
            known=contract.DAYS.get_partition_keys(current_time=self.now),
            reported=late_data.reported_versions(self.instance),
        )
        waiting = reconciliation.from_json(self._cursors[RECONCILIATION])
        plan = reconciliation.plan_requests(behind, waiting, progress.in_progress, self.now.timestamp())
        requests = [reconciliation.run_request(day, asked, late_data.TARGETS) for day, asked in plan.requests.items()]
        yield from InThread(lambda pause: self._record_moved_files(progress, pause)).steps()
        self._reserve(RECONCILIATION, requests, reconciliation.to_json(plan.waiting))
        yield from self._launch_all(RECONCILIATION)

    def _record_moved_files(self, progress: state.Progress, pause: Pause) -> None:
        def open_counts() -> Any:
            return self.system.counts(self.counts, pause)

        tables.record_moved_files(progress, open_counts)

    def _reserve(self, name: str, requests: Sequence[dg.RunRequest], cursor: Any) -> None:
        reserved = [(self._next_number(), request) for request in requests]
        self._cut_off[name] = _Tick(self.now, reserved, cursor)

    def _is_resumed(self, name: str) -> bool:
        tick = self._cut_off.get(name)
        return tick is not None and bool(tick.requests) and self.now - tick.at <= _RESUMED

    def _launch_all(self, name: str) -> Steps:
        tick = self._cut_off[name]
        for number, request in tick.requests:
            assert request.partition_key
            yield f"is about to launch a run of {request.partition_key}"
            used = request.run_key in self._run_keys if request.run_key else False
            if not used and all(run.number != number for run in self.launched):
                self._launch(number, [request.partition_key], name)
                self._run_keys |= {request.run_key} if request.run_key else set()
        yield "is about to save its cursor"
        self._cursors[name] = tick.cursor
        del self._cut_off[name]

    def is_waiting(self) -> bool:
        """Whether the reconciliation still waits for some day."""
        return bool(reconciliation.from_json(self._cursors[RECONCILIATION]))

    # Runs

    def launch_by_hand(self, days: list[str]) -> None:
        """Somebody starts a run over consecutive days."""
        self._launch(self._next_number(), days, "hand")

    def go_on(self, run: Run, steps: int | None = None) -> None:
        """Let a run move `steps` steps, or to its end."""
        if run.steps is None:
            if self.is_away:
                return  # nobody starts it
            run.steps = self._work(run)
        body = run.steps
        self._move(run, lambda: _advance(body, steps))

    def _move(self, run: Run, move: Callable[[], str | None]) -> None:
        try:
            run.at = move() or "has ended"
        except StorageAway:
            run.dead, run.at = True, "dies, as it can't tell Dagster"
        self.say(f"{run} {run.at}")

    def fail(self, run: Run) -> None:
        """The run fails at the place where it is."""
        if run.steps is None:
            self.go_on(run, 1)
        if run.steps is None:
            return
        self.say(f"{run} is disturbed")
        body = run.steps

        def throw() -> str | None:
            with suppress(StopIteration):
                return body.throw(Failed())
            return None

        self._move(run, throw)

    def kill(self, run: Run) -> None:
        """The process of the run dies."""
        if run.steps:
            run.steps.close()
        run.dead = True
        self.say(f"{run} dies")

    def cancel(self, run: Run) -> None:
        """Somebody terminates the run."""
        if run.steps:
            run.steps.close()
        self._end(run, dg.DagsterEventType.RUN_CANCELED)
        self.say(f"{run} is canceled")

    def notice(self) -> None:
        """The run monitoring finds the runs whose processes have died."""
        for run in [run for run in self.runs if run.dead]:
            self._end(run, dg.DagsterEventType.RUN_FAILURE)
            if run.retry < _RUN_RETRIES:
                self.to_retry.append(run)
            self.say(f"{run} is found dead")

    def retry(self) -> None:
        """The runs that died are started again."""
        while self.to_retry:
            run = self.to_retry.pop(0)
            self._launch(self._next_number(), run.days, run.by, run.retry + 1)

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _launch(self, number: int, days: list[str], by: str, retry: int = 0) -> None:
        run = Run(number, days, retry, by)
        tags = {"dagster/partition": days[0]}
        if len(days) > 1:
            tags = {"dagster/asset_partition_range_start": days[0], "dagster/asset_partition_range_end": days[-1]}
        self.instance.run_storage.add_run(
            dg.DagsterRun(
                job_name="__ASSET_JOB",
                run_id=run.id,
                status=dg.DagsterRunStatus.NOT_STARTED,
                asset_selection=frozenset(late_data.TARGETS),
                tags=tags,
            )
        )
        for day in days:
            planned = AssetMaterializationPlannedData(contract.DEVICE_COUNTS, partition=day)
            self._report(run, dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, planned)
        self.runs.append(run)
        self.launched.append(run)
        self.say(f"{run} is launched by {by}{', again' if retry else ''}")
        if by != "hand":
            self._check_closed(days)

    def _work(self, run: Run) -> Steps:
        for _ in range(_STEP_RETRIES):
            try:
                yield from self._try(run)
                return
            except (Failed, FileNotFoundError, TableProblem):
                self._use_storage()
            with suppress(Failed):
                yield "waits to try once more"
        try:
            yield from self._try(run)
        except (Failed, FileNotFoundError, TableProblem):
            self._end(run, dg.DagsterEventType.RUN_FAILURE)

    def _try(self, run: Run) -> Steps:
        def work(pause: Pause) -> Any:
            def count_devices(snapshot: Snapshot, days: Sequence[str]) -> Any:
                pause("counts")
                return count(self.devices, snapshot, days)

            def open_counts() -> Any:
                return self.system.counts(self.counts, pause)

            return processing.process(run.days, self.system.log(self.devices, pause), open_counts, count_devices)

        done = yield from InThread(work).steps()
        yield "is about to report its result"
        version = str(max(processed.version for processed in done))
        for day in run.days:
            materialization = dg.AssetMaterialization(
                contract.DEVICE_COUNTS, partition=day, tags={"dagster/data_version": version}
            )
            self._report(run, dg.DagsterEventType.ASSET_MATERIALIZATION, StepMaterializationData(materialization, []))
            self.tally.told[day] = self.tally.written[day]
        yield "is about to end"
        self._end(run, dg.DagsterEventType.RUN_SUCCESS)

    def _end(self, run: Run, event: dg.DagsterEventType) -> None:
        self._use_storage()
        if event != dg.DagsterEventType.RUN_SUCCESS:
            self.tally.disturbed.update(run.days)
        self._report(run, event, None)
        self.runs.remove(run)

    def _report(self, run: Run, event: dg.DagsterEventType, data: Any) -> None:
        self._use_storage()
        self.instance.report_dagster_event(
            DagsterEvent(event.value, job_name="__ASSET_JOB", event_specific_data=data), run.id
        )

    # What must hold at any time

    def _check_commit(self, commit: Commit) -> None:
        changed = self.devices.changed
        self.tally.written.update(commit.rows.keys())
        for day, now in commit.reflects.items():
            before = commit.before[day]
            if before is None or commit.table_id != self.devices.table_id or self.devices.was_put_back:
                continue  # versions don't tell what is newer
            is_changed = any(day in days for days in changed[before.version + 1 : now.version + 1])
            if now.version < before.version:
                self._break("went back", f"{day} went from version {before.version} back to {now.version}")
            elif day not in commit.rows and is_changed:
                self._break("not written", f"{day} is said to reflect {now.version}, with the data of {before.version}")
            elif day in commit.rows and not is_changed and self._can_be_known(day, before.fingerprint):
                self._break("wrote for nothing", f"{day} was written again, with the data of version {before.version}")

    def _can_be_known(self, day: str, fingerprint: int) -> bool:
        """Whether the log leads back to a version at which the day had these files."""
        version = self.devices.version
        while snapshot_of(self.devices, version).fingerprint(day) != fingerprint:
            is_told = self.devices.has_commit(version) and not self.devices.versions[version].adds_again
            if not version or not is_told:
                return False
            version -= 1
        return self.devices.is_readable(version)

    def _check_closed(self, days: list[str]) -> None:
        processed = {day for _, day in self.counts.recorded}
        for day in days:
            if day in processed:
                continue  # by hand perhaps; whatever comes is late
            following = (datetime.fromisoformat(day) + timedelta(days=1)).date().isoformat()
            if following not in self.instance.get_materialized_partitions(contract.DEVICES):
                self._break("ran too early", f"{day} was requested, and {following} had not begun")

    def _break(self, kind: str, text: str) -> None:
        self.broken.append(Broken(kind, text))
        self.say(f"BROKEN: {text}")


def _advance(steps: Steps, number: int | None) -> str | None:
    """Continue for `number` steps, or to the end. Returns where it stops, or None at the end."""
    where = None
    while number is None or number > 0:
        where = next(steps, None)
        if where is None:
            return None
        number = number and number - 1
    return where


class _Abandoned(BaseException):
    """Ends the thread of a run whose process dies."""


class InThread:
    """Work that stops when it calls `pause`. It has its own thread; only that thread or its owner moves at a time."""

    def __init__(self, work: Callable[[Pause], Any]) -> None:
        self._work = work
        self._its_turn, self._our_turn = threading.Semaphore(0), threading.Semaphore(0)
        self._where: str | None = None
        self._thrown: BaseException | None = None
        self._result: Any = None
        self._crash: BaseException | None = None

    def steps(self) -> Generator[str, None, Any]:
        """Yields where the work stops, and returns its result. It raises an exception that is thrown in."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        while True:
            self._its_turn.release()
            self._our_turn.acquire()
            if self._where is None:
                thread.join()
                if self._crash:
                    raise self._crash
                return self._result
            try:
                yield self._where
            except GeneratorExit:
                self._thrown = _Abandoned()
                self._its_turn.release()
                thread.join()
                raise
            except Exception as error:
                self._thrown = error

    def _pause(self, where: str) -> None:
        self._where = where
        self._our_turn.release()
        self._its_turn.acquire()
        thrown, self._thrown = self._thrown, None
        if thrown:
            raise thrown

    def _run(self) -> None:
        self._its_turn.acquire()
        try:
            self._result = self._work(self._pause)
        except BaseException as error:
            self._crash = error
        self._where = None
        self._our_turn.release()


@contextmanager
def fast_instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance in memory, which many deployments use one after the other."""
    settings = {"DAGSTER_AUTOMATION_TICK_SETTLE_SECONDS": "0.5"}  # as sensors.automation sets it
    with (
        mock.patch.dict(os.environ, settings),
        mock.patch.object(overtaken, "time", SimpleNamespace(sleep=lambda seconds: None)),
        dg.DagsterInstance.ephemeral() as instance,
    ):
        # It would open a connection for every query, and ask for the columns of its tables.
        events: Any = instance.event_log_storage
        runs: Any = instance.run_storage
        events._connect, runs.connect = _held(events._held_conn), _held(runs._held_conn)
        events.has_asset_key_col = bool
        yield instance


def _held(connection: Any) -> Callable[[], Any]:
    @contextmanager
    def connect() -> Iterator[Any]:
        with connection.begin():
            yield connection

    return connect
