"""The instance of a scenario: Dagster's own SQLite storages, opened once for the process and listened to.

Dagster makes a new instance, with new storages, for every sensor that it evaluates; opening three SQLite files and
checking their schemas takes 100 ms each time. Here they are opened once per folder and process. Processes that the
scenario starts open them again, so that a run which is killed leaves behind what a real one would.
"""

import functools
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Protocol

import dagster as dg
import sqlalchemy as db
from dagster import StringSource
from sqlalchemy.pool import StaticPool

from dagster_scenario import _dagster as dagster_
from dagster_scenario.runs import Abandoned, worker_here


class Listener(Protocol):
    """Is told of everything that Dagster stores, after it is stored."""

    def event_stored(self, event: Any) -> None: ...
    def tick_stored(self, tick: Any) -> None: ...
    def evaluations_stored(self, evaluations: Any) -> None: ...
    def partitions_stored(self, definition: str, keys: Any, added: bool) -> None: ...
    def run_added(self, run: Any) -> None: ...
    def backfill_stored(self, backfill: Any) -> None: ...
    def slot_claimed(self, pool: str, claimed: bool) -> None: ...
    def slots_changed(self) -> None: ...


class _Database:
    """One SQLite file with one connection, which all users of it in this process share."""

    def __init__(self, file: Path) -> None:
        self._engine = db.create_engine(
            f"sqlite:///{file}", poolclass=StaticPool, connect_args={"check_same_thread": False, "timeout": 30}
        )
        self._connection = self._engine.connect()
        # A scenario does not outlive a power cut. A killed process does not lose what it committed.
        self._connection.exec_driver_sql("PRAGMA synchronous = OFF")
        self._connection.exec_driver_sql("PRAGMA cache_size = -65536")
        self._connection.commit()
        # The threads of one run may write at the same time.
        self._one_at_a_time = threading.RLock()

    @contextmanager
    def connect(self) -> Iterator[db.Connection]:
        with self._one_at_a_time:
            if self._connection.closed and worker_here() is not None:
                # A run that was left behind when its scenario was closed. An error would be told, where nobody asks.
                raise Abandoned
            if self._connection.in_transaction():
                # Dagster's storages read while they write; in a file of its own the reader would not see it.
                yield self._connection
            else:
                with self._connection.begin():
                    yield self._connection

    def has_table(self, name: str) -> bool:
        with self.connect() as connection:
            return db.inspect(connection).has_table(name)

    def close(self) -> None:
        self._connection.close()
        self._engine.dispose()


class _Shared:
    """Belongs to the scenario's instance, the first one, and outlives all others."""

    def register_instance(self, instance: Any) -> None:
        if not self.has_instance:  # type: ignore[attr-defined]
            super().register_instance(instance)  # type: ignore[misc]

    def dispose(self) -> None:
        """Every instance that a sensor was given disposes of its storages; the scenario still needs them."""


def _yes(*_: Any) -> bool:
    """The schema was made by the release of Dagster that asks whether it has this or that."""
    return True


_there: Any = _yes


class _Runs(_Shared, dagster_.SqliteRunStorage):
    has_run_stats_index_cols = has_bulk_actions_selector_cols = has_backfill_id_column = _there
    has_bulk_action_job_name_column = has_backfill_tags_table = has_built_index = _there

    def __init__(self, database: _Database, tell: Callable[[], Listener | None]) -> None:
        super().__init__("")
        self._database, self._tell = database, tell

    def connect(self) -> Any:
        return self._database.connect()

    def add_run(self, dagster_run: dg.DagsterRun) -> dg.DagsterRun:
        run = super().add_run(dagster_run)
        if listener := self._tell():
            listener.run_added(run)
        return run

    def add_backfill(self, partition_backfill: Any) -> None:
        super().add_backfill(partition_backfill)
        if listener := self._tell():
            listener.backfill_stored(partition_backfill)

    def update_backfill(self, partition_backfill: Any) -> None:
        super().update_backfill(partition_backfill)
        if listener := self._tell():
            listener.backfill_stored(partition_backfill)


class _Events(_Shared, dagster_.ConsolidatedSqliteEventLogStorage):
    _has_asset_key_col_on_connection = has_secondary_index = _there

    def __init__(self, folder: str, database: _Database, tell: Callable[[], Listener | None]) -> None:
        super().__init__(folder)
        self._database, self._tell = database, tell
        self._steps_added = 0

    def _connect(self) -> Any:
        return self._database.connect()

    def has_table(self, table_name: str) -> bool:
        return self._database.has_table(table_name)

    def add_dynamic_partitions(self, partitions_def_name: str, partition_keys: Any) -> None:
        known = set(self.get_dynamic_partitions(partitions_def_name))
        super().add_dynamic_partitions(partitions_def_name, partition_keys)
        new = [key for key in dict.fromkeys(partition_keys) if key not in known]
        if listener := self._tell():
            listener.partitions_stored(partitions_def_name, new, True)

    def delete_dynamic_partition(self, partitions_def_name: str, partition_key: str) -> None:
        there = self.has_dynamic_partition(partitions_def_name, partition_key)
        super().delete_dynamic_partition(partitions_def_name, partition_key)
        if there and (listener := self._tell()):
            listener.partitions_stored(partitions_def_name, [partition_key], False)

    def store_event(self, event: Any) -> None:
        super().store_event(event)
        if listener := self._tell():
            listener.event_stored(event)

    # The slots of concurrency pools

    def claim_concurrency_slot(
        self, concurrency_key: str, run_id: str, step_key: str, priority: int | None = None
    ) -> Any:
        claim = super().claim_concurrency_slot(concurrency_key, run_id, step_key, priority)
        if listener := self._tell():
            listener.slot_claimed(concurrency_key, claim.is_claimed)
        return claim

    def add_pending_step(
        self,
        concurrency_key: str,
        run_id: str,
        step_key: str,
        priority: int | None = None,
        should_assign: bool = False,
    ) -> None:
        super().add_pending_step(concurrency_key, run_id, step_key, priority, should_assign)
        # SQLite gives all steps of a second the same time, and then run ids, which vary, would decide who comes first.
        steps = dagster_.PendingStepsTable
        self._steps_added += 1
        added = datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(microseconds=self._steps_added)
        with self._database.connect() as connection:
            connection.execute(
                steps.update()
                .where(steps.c.run_id == run_id, steps.c.step_key == step_key)
                .values(create_timestamp=added)
            )

    def free_concurrency_slots_for_run(self, run_id: str) -> None:
        super().free_concurrency_slots_for_run(run_id)
        self._slots_changed()

    def free_concurrency_slot_for_step(self, run_id: str, step_key: str) -> None:
        super().free_concurrency_slot_for_step(run_id, step_key)
        self._slots_changed()

    def set_concurrency_slots(self, concurrency_key: str, num: int) -> None:
        super().set_concurrency_slots(concurrency_key, num)
        self._slots_changed()

    def delete_concurrency_limit(self, concurrency_key: str) -> None:
        super().delete_concurrency_limit(concurrency_key)
        self._slots_changed()

    def _slots_changed(self) -> None:
        if listener := self._tell():
            listener.slots_changed()


class _Schedules(_Shared, dagster_.SqliteScheduleStorage):
    """What sensors and schedules keep between their ticks, such as cursors, and the ticks themselves, in memory.

    Dagster reads and writes them a dozen times for each tick of a sensor, which was more than half of the tick.
    """

    _has_instigators_table = _has_asset_daemon_asset_evaluations_table = has_secondary_index_table = _there
    has_built_index = _there
    # How each condition came to its result is told to the scenario, and not written, which takes a fifth of a tick.
    supports_auto_materialize_asset_evaluations = True

    def __init__(self, database: _Database, tell: Callable[[], Listener | None]) -> None:
        super().__init__("")
        self._database, self._tell = database, tell
        self._states: dict[str, Any] = {}
        self._ticks: dict[int, Any] = {}
        # The ids of the ticks of each sensor or schedule, oldest first.
        self._ticks_of: dict[str, list[int]] = {}

    def connect(self) -> Any:
        return self._database.connect()

    def add_auto_materialize_asset_evaluations(self, evaluation_id: int, asset_evaluations: Any) -> None:
        if listener := self._tell():
            listener.evaluations_stored(asset_evaluations)

    def purge_asset_evaluations(self, before: float) -> None: ...

    # Ticks

    def create_tick(self, tick_data: Any) -> Any:
        tick = dagster_.InstigatorTick(len(self._ticks) + 1, tick_data)
        self._ticks[tick.tick_id] = tick
        self._ticks_of.setdefault(tick.selector_id or tick_data.instigator_origin_id, []).append(tick.tick_id)
        return tick

    def update_tick(self, tick: Any) -> Any:
        self._ticks[tick.tick_id] = tick
        if listener := self._tell():
            listener.tick_stored(tick)
        return tick

    def get_tick(self, tick_id: int) -> Any:
        if tick_id not in self._ticks:
            raise dg.DagsterInvariantViolationError(f"InstigatorTick {tick_id} is not present in storage")
        return self._ticks[tick_id]

    def get_ticks_by_ids(self, tick_ids: Sequence[int]) -> list[Any]:
        return [self._ticks[tick_id] for tick_id in tick_ids if tick_id in self._ticks]

    def get_ticks(
        self,
        origin_id: str,
        selector_id: str,
        before: float | None = None,
        after: float | None = None,
        limit: int | None = None,
        statuses: Any = None,
    ) -> list[Any]:
        found: list[Any] = []
        for tick_id in reversed(self._ticks_of.get(selector_id) or self._ticks_of.get(origin_id) or []):
            tick = self._ticks[tick_id]
            if limit is not None and len(found) == limit:
                break
            if before is not None and tick.timestamp >= before:
                continue
            if after is not None and tick.timestamp <= after:
                continue
            if not statuses or tick.status in statuses:
                found.append(tick)
        return found

    def get_batch_ticks(
        self, selector_ids: Sequence[str], limit: int | None = None, statuses: Any = None
    ) -> dict[str, list[Any]]:
        ticks = {selector: self.get_ticks("", selector, limit=limit, statuses=statuses) for selector in selector_ids}
        return {selector: found for selector, found in ticks.items() if found}

    def get_tick_summaries(self, *arguments: Any, **named: Any) -> list[Any]:
        # A tick has all that its summary has.
        return self.get_ticks(*arguments, **named)

    def purge_ticks(self, origin_id: str, selector_id: str, before: float, tick_statuses: Any = None) -> None:
        """A scenario keeps all of its ticks; see the setting `retention` of its instance."""

    # What is kept between ticks

    def all_instigator_state(
        self,
        repository_origin_id: str | None = None,
        repository_selector_id: str | None = None,
        instigator_type: Any = None,
        instigator_statuses: Any = None,
    ) -> list[Any]:
        return [
            state
            for state in self._states.values()
            if (repository_origin_id is None or repository_origin_id == state.repository_origin_id)
            and (repository_selector_id is None or repository_selector_id == state.repository_selector_id)
            and instigator_type in (None, state.instigator_type)
            and (instigator_statuses is None or state.status in instigator_statuses)
        ]

    def get_instigator_state(self, origin_id: str, selector_id: str) -> Any:
        return self._states.get(selector_id)

    def add_instigator_state(self, state: Any) -> Any:
        self._states[state.selector_id] = state
        return state

    def update_instigator_state(self, state: Any) -> Any:
        self._states[state.selector_id] = state
        return state

    def delete_instigator_state(self, origin_id: str, selector_id: str) -> None:
        self._states.pop(selector_id, None)


class _InFolder(dagster_.ConfigurableClass):
    """What a dagster.yaml configures by a folder alone."""

    @property
    def inst_data(self) -> None:
        return None

    @classmethod
    def config_type(cls) -> Any:
        return {"base_dir": StringSource}


class ScenarioStorage(_Shared, dagster_.DagsterStorage, _InFolder):
    """What `storage` in a scenario's dagster.yaml names. The same object for every instance of this process."""

    _open: dict[tuple[str, int], "ScenarioStorage"] = {}  # noqa: RUF012

    def __init__(self, folder: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.listener: Listener | None = None
        # The launcher is told of through the storage, since both belong to the same scenario.
        self.launch: Callable[[Any], None] | None = None
        self.terminate: Callable[[str], bool] = lambda run_id: False
        self.worker_is_alive: Callable[[str], bool] = lambda run_id: True
        _copy_template(Path(folder))
        self._databases = {name: _Database(Path(folder) / f"{name}.db") for name in _TABLES}
        self._runs = _Runs(self._databases["runs"], lambda: self.listener)
        self._events = _Events(folder, self._databases["event_log"], lambda: self.listener)
        self._schedules = _Schedules(self._databases["schedules"], lambda: self.listener)

    @classmethod
    def at(cls, folder: str) -> "ScenarioStorage":
        """The storage of this folder in this process."""
        # A process that was forked must not use its parent's connections.
        key = (folder, os.getpid())
        if key not in cls._open:
            cls._open[key] = cls(folder)
        return cls._open[key]

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> "ScenarioStorage":
        return cls.at(config_value["base_dir"])

    @property
    def run_storage(self) -> Any:
        return self._runs

    @property
    def event_log_storage(self) -> Any:
        return self._events

    @property
    def schedule_storage(self) -> Any:
        return self._schedules

    def close(self, folder: str) -> None:
        """Close the files for good."""
        self._open.pop((folder, os.getpid()), None)
        for database in self._databases.values():
            database.close()


class ScenarioLauncher(dagster_.RunLauncher, _InFolder):
    """Hands each run to the scenario, which executes it after the daemons have had their turn."""

    def __init__(self, folder: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._folder = folder

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> "ScenarioLauncher":
        return cls(config_value["base_dir"])

    def launch_run(self, context: Any) -> None:
        launch = ScenarioStorage.at(self._folder).launch
        if launch is not None:
            launch(context.dagster_run)

    def terminate(self, run_id: str) -> bool:
        return ScenarioStorage.at(self._folder).terminate(run_id)

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> Any:
        if ScenarioStorage.at(self._folder).worker_is_alive(run.run_id):
            return dagster_.CheckRunHealthResult(dagster_.WorkerStatus.RUNNING)
        return dagster_.CheckRunHealthResult(dagster_.WorkerStatus.FAILED, "its process was killed")


_TABLES = ("runs", "event_log", "schedules")


def _copy_template(folder: Path) -> None:
    """Put the three empty databases into a new scenario's folder."""
    if not all((folder / f"{name}.db").exists() for name in _TABLES):
        for name, content in _empty_databases().items():
            (folder / f"{name}.db").write_bytes(content)


@functools.cache
def _empty_databases() -> dict[str, bytes]:
    """The databases as Dagster makes them, which takes it half a second; so it is done once in a process."""
    with tempfile.TemporaryDirectory(prefix="dagster-scenario-") as folder:
        dagster_.SqliteRunStorage.from_local(folder)
        dagster_.ConsolidatedSqliteEventLogStorage(folder)
        dagster_.SqliteScheduleStorage.from_local(folder)
        files = {name: Path(folder) / f"{name}.db" for name in _TABLES}
        for file in files.values():
            _checkpoint(file)
        return {name: file.read_bytes() for name, file in files.items()}


def _checkpoint(file: Path) -> None:
    """Bring what SQLite keeps beside the file into it."""
    engine = db.create_engine(f"sqlite:///{file}")
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()
