"""Suppliers, the file system, PostgreSQL and the daemons of the promotions, under a schedule that says who moves when.

Real are the folders, the copies, the SQL on PostgreSQL, the sensors and the steps of the runs. Simulated are the clock,
Dagster's lists of runs and of materializations, the notifier, and who moves: a run stops before every statement and
every file that it writes, and goes on, or dies, when the schedule says so.
"""

import errno
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from html import unescape
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from dedp_assets.landing import copies, delivery_copies
from dedp_assets.landing.delivery_folders import DeliveryFolders
from dedp_assets.landing.directories import Directory, Scan, scan_directory
from dedp_assets.notifications.notification import Notification, NotificationNotSent
from dedp_assets.pages import writing
from dedp_assets.promotions import contract
from dedp_assets.promotions.contract import Delivery
from dedp_assets.promotions.deliveries import tables as delivery_tables
from dedp_assets.promotions.deliveries.assets import promotion_deliveries
from dedp_assets.promotions.deliveries.config import Deliveries
from dedp_assets.promotions.reports import dashboard
from dedp_assets.promotions.reports import tables as report_tables
from dedp_assets.promotions.reports.assets import ChangedDeliveries, promotion_reports
from dedp_assets.resources.postgres import _begin, named_database_errors
from sensors import deliveries as delivery_sensors
from sensors.pipelines import promotion_reports as followed
from sensors.pipelines import promotions as delivered
from sensors.pipelines import promotions_reconciled as reconciled
from tests.model.deployment import InThread
from tests.model.promotion_recount import Key, Recount, differences, recount, shown

SUPPLIERS = ["supermarket1", "supermarket2"]
DAYS = ["2024-01-04", "2024-01-05", "2024-01-06"]
BEGIN = datetime(2024, 1, 5, 15, tzinfo=timezone.utc)
# Before that, its delivery is not taken.
_LAST_DAY_BEGINS = datetime(2024, 1, 6, tzinfo=timezone.utc)
SETTLE_SECONDS = 10.0

DELIVERED, RECONCILED, FOLLOWED = "promotions_delivered", "promotions_reconciled", "promotions_followed"
SENSORS = [DELIVERED, RECONCILED, FOLLOWED]

_TABLES = (
    *("promotion_deliveries", "promotions", "promotion_quarantine", "promotion_metrics"),
    *("promotion_differences", "promotion_comparisons", "promotion_notifications"),
)
# Where a run stops that waits for another one.
_LOCKED = "a lock"
_LOCKS = re.compile(r"pg_advisory(_xact)?_lock\(")

# A row of the dashboard's first table: the supplier, its state, and its products and discounts.
_ROW = re.compile(
    r'<td class="name">(.*?)</td>\s*<td><span[^>]*>(.*?)</span></td>\s*<td class="time">.*?</td>\s*'
    r'<td class="number">(.*?)</td>\s*<td class="number">(.*?)</td>\s*<td class="number">(.*?)</td>'
)

Action = tuple[Any, ...]
Pause = Callable[[str], None]


class Dead(BaseException):
    """Ends what is left of a run whose process was killed."""


class _Cursor(Cursor):
    """Stops before each statement. A lock that somebody else has is asked for again and again."""

    def execute(self, query: Any, vars: Any = None) -> None:
        connection: Any = self.connection
        connection.stop("a statement")
        if isinstance(query, str) and _LOCKS.search(query):
            while True:
                super().execute(_LOCKS.sub(r"pg_try_advisory\1_lock(", query), vars)
                if self.fetchall() == [(True,)]:
                    return
                connection.stop(_LOCKED)
        super().execute(query, vars)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        connection: Any = self.connection
        connection.stop("a copy into a table")
        super().copy_expert(sql, file, size)


class _Connection(Connection):
    """Calls `stop` before each statement, and after each commit."""

    stop: Pause = staticmethod(lambda where: None)

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        return super().cursor(*args, cursor_factory=_Cursor, **kwargs)

    def commit(self) -> None:
        super().commit()
        self.stop("a commit")


class Database:
    """Connections to the one database, which are used again: to open one takes longer than what is done on it."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._idle: list[_Connection] = []
        self.is_away = False
        with self.connected() as connection:
            delivery_tables.ensure_tables(connection)
            report_tables.ensure_tables(connection)

    @contextmanager
    def connected(self, stop: Pause | None = None) -> Iterator[Connection]:
        """A connection for the length of the block, as `resources.postgres.connect` gives it."""
        with named_database_errors():
            if self.is_away and stop:
                raise psycopg2.OperationalError("connection refused")
            connection = self._idle.pop() if self._idle else self._open()
            if stop:
                connection.stop = self._unless_away(connection, stop)
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            connection.stop = lambda where: None
            connection.rollback()
            self._idle.append(connection)

    def _open(self) -> _Connection:
        connection: _Connection = psycopg2.connect(self._dsn, connection_factory=_Connection)
        _begin(connection)
        return connection

    def _unless_away(self, connection: _Connection, stop: Pause) -> Pause:
        def stop_or_fail(where: str) -> None:
            try:
                stop(where)
            except Dead:
                connection.close()
                raise
            if self.is_away and not connection.closed:
                connection.close()
                raise psycopg2.OperationalError("server closed the connection unexpectedly")

        return stop_or_fail

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with self.connected() as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    def execute(self, sql: str) -> None:
        with self.connected() as connection, connection, connection.cursor() as cursor:
            cursor.execute(sql)

    def empty(self) -> None:
        self.is_away = False
        self.execute(
            "".join(f"DELETE FROM dedp.{table};" for table in _TABLES)
            + "ALTER SEQUENCE dedp.promotion_load_numbers RESTART"
        )

    def close(self) -> None:
        for connection in self._idle:
            connection.close()


@dataclass(eq=False)
class Run:
    """A run that was requested.

    Attributes:
        number: Its place in the order of runs.
        definition: The asset definition that it executes.
        assets: Which of its assets.
        partitions: Its partition keys.
        config: Of its step.
        state: "queued", "under way", "killed" (Dagster does not know it yet), "failed" or "done".
    """

    number: int
    definition: dg.AssetsDefinition
    assets: frozenset[dg.AssetKey]
    partitions: tuple[str, ...]
    config: dict[str, Any]
    state: str = "queued"
    steps: Iterator[str] | None = None
    stop: Pause = lambda where: None
    is_dead: bool = False

    def as_dagster(self) -> Any:
        """The run as Dagster lists it."""
        return SimpleNamespace(
            run_id=str(self.number),
            asset_selection=self.assets,
            job_name="",
            tags={"dagster/partition": self.partitions[0]} if self.partitions else {},
            run_config={"ops": {self.definition.op.name: {"config": self.config}}},
        )


@dataclass
class _Supplied:
    """What a supplier's folder of a day has held.

    Attributes:
        versions: The files of each version that ever lay there beside a marker.
        first_ready: When the first of them lay there.
    """

    versions: dict[str, dict[str, bytes]] = field(default_factory=dict)
    first_ready: datetime | None = None


class Shop:
    """Everything, at the moment that the schedule has come to."""

    def __init__(self, database: Database, home: Path, patch: pytest.MonkeyPatch, clock: Any) -> None:
        self.database, self.home, self._clock = database, home, clock
        self.log: list[str] = []
        self.runs: list[Run] = []
        self.run_keys: set[tuple[str, str]] = set()
        self.cursors: dict[str, list[str | None]] = {name: [None] for name in SENSORS}
        self.materialized: dict[tuple[dg.AssetKey, str | None], str] = {}
        self.sent: Counter[str] = Counter()
        self.notifier_is_away = self.disk_is_full = False
        self.supplied: dict[Key, _Supplied] = {}
        self.ever_loaded: set[Key] = set()
        self._locks: set[Path] = set()
        self._last_change_ns = 0
        self._turn: Run | None = None
        self._instance = SimpleNamespace(get_runs=self._get_runs, fetch_materializations=self._fetch_materializations)
        self._sensors: dict[str, Any] = {
            RECONCILED: reconciled.promotions_reconciled,
            FOLLOWED: followed.promotions_followed,
        }
        self.start_daemon()
        self._patch(patch)

    # The clock and the parts that are simulated

    @property
    def now(self) -> datetime:
        return datetime.now(timezone.utc)

    def let_pass(self, seconds: float) -> None:
        self._clock.shift(timedelta(seconds=seconds))

    def start_daemon(self) -> None:
        """What the process of the sensors remembered of the folders is gone."""
        self._sensors[DELIVERED] = delivery_sensors.delivery_sensor(
            DELIVERED, delivered.PIPELINE, description="", folders=DeliveryFolders()
        )

    def _patch(self, patch: pytest.MonkeyPatch) -> None:
        patch.setenv("DEDP_HOME", str(self.home))
        patch.setenv("DEDP_SETTLE_SECONDS", str(SETTLE_SECONDS))
        patch.setattr(os, "fsync", lambda descriptor: None)  # nobody cuts the power
        patch.setattr(delivery_copies, "time", SimpleNamespace(monotonic=self._monotonic, sleep=self._sleep))
        patch.setattr(delivery_copies, "scan_directory", self._scan)
        patch.setattr(delivery_copies, "lock_of", self._lock_of)
        patch.setattr(copies, "lock_of", self._lock_of)
        for module, name in (
            (delivery_copies, "_copy_content"),
            (delivery_copies, "write_whole"),
            (delivery_copies, "_delete_others"),
            (copies, "_write"),
            (dashboard, "write_page"),
        ):
            patch.setattr(module, name, self._stopping(getattr(module, name), name))
        patch.setattr(writing, "write_whole", self._write_page)
        for sensors in (delivery_sensors, reconciled, followed):
            patch.setattr(sensors, "fail_ended_runs", lambda instance: self.notice())
        # Everything is compared, and told apart, within the few ticks of a schedule.
        patch.setattr(reconciled, "_FULL_COMPARISON_TICKS", 3)

    def _monotonic(self) -> float:
        return self.now.timestamp()

    def _sleep(self, seconds: float) -> None:
        self.let_pass(seconds)
        self._stop("the folder to rest")

    def _scan(self, directory: Directory) -> Scan:
        """As a scan sees a folder that changes during it: the first file as it was when it began, the others later."""
        early = scan_directory(directory)
        self._stop("the middle of a scan")
        late = scan_directory(directory)
        return late if late.failure else late._replace(files={**late.files, **dict(sorted(early.files.items())[:1])})

    def _write_page(self, path: Path, content: bytes) -> None:
        if self.disk_is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        path.write_bytes(content)

    def _stopping(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def stop_and_do(*args: Any, **kwargs: Any) -> Any:
            self._stop(name)
            return function(*args, **kwargs)

        return stop_and_do

    @contextmanager
    def _lock_of(self, folder: Path, **_: Any) -> Iterator[None]:
        while folder in self._locks:
            self._stop(_LOCKED)
        folder.mkdir(parents=True, exist_ok=True)
        self._locks.add(folder)
        try:
            yield
        finally:
            self._locks.discard(folder)

    # What Dagster knows

    def _get_runs(self, filters: dg.RunsFilter) -> list[Any]:
        return [run.as_dagster() for run in self.runs if run.state in ("queued", "under way", "killed")]

    def _fetch_materializations(self, filters: dg.AssetRecordsFilter, limit: int) -> Any:
        (partition,) = filters.asset_partitions or ()
        version = self.materialized.get((filters.asset_key, str(partition)))
        event = SimpleNamespace(tags={"dagster/data_version": version})
        return SimpleNamespace(records=[SimpleNamespace(asset_materialization=event)] if version else [])

    def notice(self) -> list[str]:
        """Dagster sees whose processes have ended."""
        killed = [run for run in self.runs if run.state == "killed"]
        for run in killed:
            run.state = "failed"
        return [str(run.number) for run in killed]

    # The notifier

    def send(self, notification: Notification) -> None:
        self._stop("a message")
        if self.notifier_is_away:
            raise NotificationNotSent("no answer")
        self.sent[notification.key] += 1

    # Suppliers

    def folder(self, key: Key) -> Path:
        return self.home.joinpath("landing", "promotions", *key)

    def files(self, key: Key) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.folder(key).glob("data-*.csv"))}

    def put(self, key: Key, name: str, content: bytes) -> None:
        path = self.folder(key) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        # A later change has a later time, also where the clock of the file system is coarse.
        while (changed_ns := path.stat().st_ctime_ns) <= self._last_change_ns:
            time.sleep(0.001)
            path.touch()
        self._last_change_ns = changed_ns
        self.look(key)

    def remove(self, key: Key, name: str) -> None:
        (self.folder(key) / name).unlink(missing_ok=True)
        self.look(key)

    def look(self, key: Key) -> None:
        """Remember what lies in a folder, if it is a delivery."""
        files = self.files(key)
        if any(files.values()) and (self.folder(key) / "_SUCCESS").exists():
            supplied = self.supplied.setdefault(key, _Supplied())
            supplied.versions.setdefault(recount(files).version, files)
            supplied.first_ready = supplied.first_ready or self.now

    # Ticks and runs

    def tick(self, name: str, *, meanwhile: Action | None = None, is_stored: bool = True) -> None:
        """A tick of a sensor. `meanwhile`: at which statement of the tick which run goes on by how many steps."""
        statements = 0

        def stop(where: str) -> None:
            nonlocal statements
            statements += 1
            if meanwhile and statements == meanwhile[0]:
                self.go(*meanwhile[1:])

        resources = SimpleNamespace(
            postgres=SimpleNamespace(connect=lambda: self.database.connected(stop)),
            notifier=SimpleNamespace(send=self.send),
        )
        nothing = SimpleNamespace(log=lambda level, text: None)
        context = SimpleNamespace(
            cursor=self.cursors[name][-1], instance=self._instance, resources=resources, log=nothing
        )
        # Not as Dagster calls it: to make a real context takes longer than the tick.
        result = self._sensors[name]._raw_fn(context)
        requests = result.run_requests or []
        self.log.append(
            f"{self.now:%d %H:%M:%S} {name} requests {[each.run_key for each in requests]} {_message(result)}"
        )
        if is_stored:
            self.cursors[name].append(result.cursor)
        for request in requests:
            self._launch(name, request)

    def _launch(self, sensor: str, request: dg.RunRequest) -> None:
        if (sensor, request.run_key or "") in self.run_keys:
            return
        self.run_keys.add((sensor, request.run_key or ""))
        definition = promotion_reports if sensor == FOLLOWED else promotion_deliveries
        config = dict(request.run_config or {}).get("ops", {}).get(definition.op.name, {}).get("config", {})
        partitions = (request.partition_key,) if request.partition_key else ()
        self.launch(definition, frozenset(request.asset_selection or ()), partitions, config)

    def launch(
        self,
        definition: dg.AssetsDefinition,
        assets: frozenset[dg.AssetKey],
        partitions: Sequence[str],
        config: Mapping[str, Any],
    ) -> None:
        self.runs.append(Run(len(self.runs), definition, assets, tuple(map(str, partitions)), dict(config)))

    def retry(self, number: int) -> None:
        ended = [run for run in self.runs if run.state == "failed"]
        if ended:
            again = ended[number % len(ended)]
            self.launch(again.definition, again.assets, again.partitions, again.config)

    def active(self) -> list[Run]:
        return [run for run in self.runs if run.state in ("queued", "under way")]

    def go(self, number: int, steps: int | None = None) -> None:
        """Let a run go on, until it has stopped for that many times, waits for another run, or ends."""
        active = self.active()
        if not active:
            return
        run = active[number % len(active)]
        run.state = "under way"
        run.steps = run.steps or InThread(lambda pause: self._work(run, pause)).steps()
        before, self._turn = self._turn, run
        try:
            for _ in count() if steps is None else range(steps):
                where = next(run.steps, None)
                if where is None:
                    run.state = "done"
                if where in (None, _LOCKED):
                    break
        except dg.Failure as failure:
            run.state = "failed"
            self.log.append(f"run {run.number} fails: {failure.description}")
        finally:
            self._turn = before

    def kill(self, number: int, steps: int = 0) -> None:
        """End the process of a run after some more steps. What it has not committed is lost."""
        active = self.active()
        if not active:
            return
        run = active[number % len(active)]
        self.go(number, steps)
        if run.state != "under way":
            return
        run.is_dead, run.state = True, "killed"
        self.log.append(f"run {run.number} is killed")
        before, self._turn = self._turn, run
        try:
            if run.steps is not None:
                with suppress(BaseException):
                    run.steps.close()  # type: ignore[attr-defined]
        finally:
            self._turn = before

    def _stop(self, where: str) -> None:
        """The run whose turn it is stops. What is no run, a tick, does not stop."""
        if self._turn is not None:
            self._turn.stop(where)

    def _work(self, run: Run, pause: Pause) -> None:
        def stop(where: str) -> None:
            if run.is_dead:
                raise Dead
            try:
                pause(where)
            except BaseException:
                raise Dead from None  # nothing else is thrown into it

        run.stop = stop

        def record(event: dg.AssetMaterialization) -> None:
            stop("an event")
            version = (event.tags or {}).get("dagster/data_version", "")
            self.materialized[event.asset_key, event.partition and str(event.partition)] = version

        silent = SimpleNamespace(info=_say_nothing, warning=_say_nothing, error=_say_nothing)
        context = SimpleNamespace(
            run=run.as_dagster(),
            log=silent,
            log_event=record,
            has_partition_key=len(run.partitions) == 1,
            has_partition_key_range=len(run.partitions) > 1,
            selected_asset_keys=run.assets,
            selected_asset_check_keys=frozenset(),
        )
        context.op_execution_context = context
        resources: dict[str, Any] = {"postgres": SimpleNamespace(connect=lambda: self.database.connected(stop))}
        if run.definition is promotion_reports:
            resources["notifier"] = SimpleNamespace(send=self.send)
            config: dg.Config = ChangedDeliveries(**run.config)
        else:
            config = Deliveries(**run.config)
        step: Any = run.definition.op.compute_fn
        list(step.decorated_fn(context, config, **resources))

    def end_runs(self) -> None:
        """Let all runs go on until they end."""
        for number in count():
            if not self.active():
                return
            assert number < 1000, "runs wait for one another"
            self.go(number)

    def end(self) -> None:
        """Every run that is left dies."""
        while self.active():
            if self.active()[0].steps is None:
                self.active()[0].state = "failed"
            else:
                self.kill(0)

    # At rest

    def come_to_rest(self) -> None:
        """Nothing happens any more but ticks and runs, and everything works. Deliveries get their markers."""
        self.database.is_away = self.notifier_is_away = self.disk_is_full = False
        self.let_pass(max(0.0, (_LAST_DAY_BEGINS - self.now).total_seconds()))
        for key in [(supplier, day) for supplier in SUPPLIERS for day in DAYS]:
            if any(self.files(key).values()):
                self.put(key, "_SUCCESS", b"")
        quiet = 0
        for _ in range(40):
            before = len(self.runs)
            for name in SENSORS:
                self.tick(name)
                self.end_runs()
            quiet = quiet + 1 if len(self.runs) == before else 0
            # No pause between two requests is longer than an hour.
            if quiet == 4:
                return
            self.let_pass(1300)
        raise AssertionError("it does not come to rest: a run is requested again and again")

    def loaded(self) -> dict[Key, Recount]:
        """The deliveries that are loaded, each counted again from the files of the version that its row names."""
        found = {}
        for supplier, day, version in self.database.query(
            "SELECT supplier, day::text, version FROM dedp.promotion_deliveries ORDER BY 1, 2"
        ):
            versions = self.supplied[supplier, day].versions if (supplier, day) in self.supplied else {}
            assert version in versions, f"{supplier}/{day} is loaded in a version that never lay there"
            found[supplier, day] = recount(versions[version])
        self.ever_loaded |= found.keys()
        return found

    def check_loads(self) -> dict[Key, Recount]:
        """At any moment: what is loaded of a delivery is one version of it, as a whole."""
        loaded = self.loaded()
        _same("promotion_deliveries", self._accounts(), {key: _account(each) for key, each in loaded.items()})
        _same(
            "promotions",
            {
                (supplier, day, product_id): (product, _exact(price), _exact(promotion), starts_on, ends_on)
                for supplier, day, product_id, product, price, promotion, starts_on, ends_on in self.database.query(
                    "SELECT supplier, day::text, product_id, product, price, promotion_price, starts_on::text, "
                    "ends_on::text FROM dedp.promotions WHERE (supplier, day) IN "
                    "(SELECT supplier, day FROM dedp.promotion_deliveries)"
                )
            },
            {(*key, product): tuple(offer) for key, each in loaded.items() for product, offer in each.offers.items()},
        )
        _same(
            "promotion_quarantine",
            {
                (supplier, day, file, line): reason
                for supplier, day, file, line, reason in self.database.query(
                    "SELECT supplier, day::text, file, line_number, reason FROM dedp.promotion_quarantine "
                    "WHERE (supplier, day) IN (SELECT supplier, day FROM dedp.promotion_deliveries)"
                )
            },
            {(*key, *line): reason for key, each in loaded.items() for line, reason in each.quarantine.items()},
        )
        return loaded

    def _accounts(self) -> dict[Key, tuple[int, ...]]:
        rows = self.database.query(
            "SELECT supplier, day::text, lines_read, rows_loaded, rows_quarantined FROM dedp.promotion_deliveries"
        )
        return {(supplier, day): tuple(counts) for supplier, day, *counts in rows}

    def check_at_rest(self) -> None:
        """Every table equals a recount, the dashboard shows it, and people were told of each delivery."""
        loaded = self.check_loads()
        self._check_what_is_loaded(loaded)
        late = {
            (supplier, day): is_late
            for supplier, day, is_late in self.database.query(
                "SELECT supplier, day::text, is_late FROM dedp.promotion_deliveries"
            )
        }
        for key, is_late in late.items():
            first = self.supplied[key].first_ready
            assert first
            if first > contract.window_closes(key[1]).replace(tzinfo=timezone.utc):
                assert is_late, f"{key} came after its window, and is not late"
        _same(
            "promotion_metrics",
            {
                (supplier, day): (products, _exact(mean), _exact(highest))
                for supplier, day, products, mean, highest in self.database.query(
                    "SELECT supplier, day::text, products, mean_discount, max_discount FROM dedp.promotion_metrics "
                    "JOIN dedp.promotion_deliveries USING (supplier, day, load_number)"
                )
            },
            {key: each.metrics for key, each in loaded.items()},
        )
        found = self.database.query(
            "SELECT supplier, day::text, previous_day::text, product_id, change, price_before, price_after "
            "FROM dedp.promotion_differences ORDER BY 1, 2, 3, 4"
        )
        expected = {row[:4]: row[4:] for row in differences(loaded)}
        _same("promotion_differences", {row[:4]: (row[4], _exact(row[5]), _exact(row[6])) for row in found}, expected)
        self._check_comparisons()
        self._check_dashboard(loaded, late)
        self._check_notifications(loaded)
        self._check_events(loaded)

    def _check_what_is_loaded(self, loaded: Mapping[Key, Recount]) -> None:
        for key in self.supplied:
            files = self.files(key)
            now = recount(files)
            if any(files.values()) and now.offers:
                assert key in loaded, f"{key} lies there, and is not loaded"
                assert loaded[key].version == now.version, f"{key} is not loaded as it lies there"
            assert key not in self.ever_loaded or key in loaded, f"{key} was loaded, and is gone"

    def _check_comparisons(self) -> None:
        rows = self.database.query(
            "SELECT supplier, day::text, load_number FROM dedp.promotion_deliveries ORDER BY supplier, day"
        )
        loads = {(supplier, day): number for supplier, day, number in rows}
        assert len(set(loads.values())) == len(loads)
        expected = {}
        for supplier, day in loads:
            earlier = [other for name, other in loads if name == supplier and other < day]
            previous = max(earlier, default=None)
            expected[supplier, day] = loads[supplier, day], previous, previous and loads[supplier, previous]
        found = {
            (supplier, day): tuple(numbers)
            for supplier, day, *numbers in self.database.query(
                "SELECT supplier, day::text, load_number, previous_day::text, previous_load_number "
                "FROM dedp.promotion_comparisons"
            )
        }
        _same("promotion_comparisons", found, expected)
        for key, (number, _, before) in expected.items():
            partition = str(Delivery(*key).key)
            known = self.materialized.get((contract.DIFFERENCES, partition))
            assert known == f"{number}-{before or 'first'}", f"Dagster does not know the differences of {partition}"

    def _check_dashboard(self, loaded: Mapping[Key, Recount], late: Mapping[Key, bool]) -> None:
        page = contract.dashboard_file().read_text() if contract.dashboard_file().exists() else ""
        if not loaded:
            return
        rows = {unescape(name): tuple(row) for name, *row in _ROW.findall(page)}
        suppliers = contract.SUPPLIERS.get_partition_keys()
        _same("the dashboard", rows, shown(suppliers, loaded, late, self.now.replace(tzinfo=None)))

    def _check_notifications(self, loaded: Mapping[Key, Recount]) -> None:
        for (supplier, day), each in loaded.items():
            assert self.sent[f"promotions/{supplier}/{day}/{each.version}"], f"nobody was told of {supplier}/{day}"
        for supplier, day, version in self.database.query(
            "SELECT supplier, day::text, version FROM dedp.promotion_notifications"
        ):
            assert self.sent[f"promotions/{supplier}/{day}/{version}"], f"{supplier}/{day} counts as told, and was not"

    def _check_events(self, loaded: Mapping[Key, Recount]) -> None:
        for key, each in loaded.items():
            partition = str(Delivery(*key).key)
            known = self.materialized.get((contract.METRICS, partition))
            assert known == each.version, f"Dagster does not know the metrics of {partition}"


def _message(result: dg.SensorResult) -> str:
    return result.skip_reason.skip_message or "" if result.skip_reason else ""


def _say_nothing(*texts: object) -> None:
    pass


def _exact(number: Any) -> Fraction | None:
    return None if number is None else Fraction(number)


def _account(counted: Recount) -> tuple[int, int, int]:
    loaded, quarantined = len(counted.offers), len(counted.quarantine)
    return loaded + quarantined, loaded, quarantined


def _same(what: str, found: Mapping[Any, Any], expected: Mapping[Any, Any]) -> None:
    different = [key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)]
    if different:
        first = min(different, key=str)
        raise AssertionError(f"{what}, {first}: {found.get(first)} instead of {expected.get(first)}")
