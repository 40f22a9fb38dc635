"""The running system, from files that land to totals: bursts, rewrites, outages, kills and latecomers."""

import signal
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
import requests
import yaml

from dedp_assets import local_stack, settings
from dedp_assets.isolated_sequencer import contract
from dedp_assets.isolated_sequencer.aggregator.tables import ensure_tables
from dedp_assets.resources import embedded_postgres
from jobs import devices_aggregator
from tests.scenarios.system import System, temporary_home

pytestmark = pytest.mark.slow

BURST_DAYS = 30

# The one day that takes the undated file.
YESTERDAY = (datetime.now(timezone.utc).date() - timedelta(days=1)).isoformat()


class Sequencer(System):
    """The running system, for somebody who drops files and reads tables."""

    def _attach(self, port: int) -> None:
        super()._attach(port)
        self.database = self._attached.enter_context(closing(self.connect()))
        self.database.autocommit = True
        ensure_tables(self.database)

    def ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self.database.cursor() as cursor:
            cursor.execute(query, values)
            return cursor.fetchall()

    def drop(self, day: str | None, names: list[str]) -> None:
        """Let a file with one device for each name land: the file of a day, or, if `day` is None, the undated file."""
        path = self.home / "landing" / "devices" / (day or "") / "dataset.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.draft")
        draft.write_text("type;full_name;version\n" + "".join(f"phone;{name};v1\n" for name in names))
        draft.replace(path)

    def loaded(self, *days: str) -> dict[str, list[str]]:
        """The names in the load of each day that has one."""
        rows = self.ask(
            'SELECT load_id, array_agg(full_name::text ORDER BY full_name COLLATE "C") FROM dedp.devices_raw '
            "WHERE load_id = ANY(%s::bpchar[]) GROUP BY load_id",
            [contract.load_id(day) for day in days],
        )
        return {f"{load_id[:4]}-{load_id[4:6]}-{load_id[6:]}": names for load_id, names in rows}

    def totals(self, prefix: str) -> dict[str, int]:
        return dict(
            self.ask(
                "SELECT full_name, all_occurrences FROM dedp.devices_aggregates WHERE starts_with(full_name, %s)",
                prefix,
            )
        )

    def wait_until_copied(self, *days: str) -> None:
        self.wait_until(lambda: set(days) <= self.materialized(contract.DEVICES_FILE))

    def wait_until_loaded(self, expected: dict[str, list[str]]) -> None:
        """Wait until the load of each day has exactly these names, in order, and is in the totals."""
        self.wait_until(lambda: self.loaded(*expected) == expected)
        self.wait_until(lambda: set(expected) <= self.materialized(contract.DEVICES_AGGREGATES))
        loads = [contract.load_id(day) for day in expected]
        unfolded = "SELECT 1 FROM dedp.devices_loads WHERE load_id = ANY(%s::bpchar[]) AND NOT folded"
        noted = "SELECT 1 FROM dedp.devices_changes WHERE load_id = ANY(%s::bpchar[])"
        self.wait_until(lambda: not self.ask(f"{unfolded} UNION ALL {noted}", loads, loads))
        assert self.loaded(*expected) == expected


@pytest.fixture(scope="module")
def whole_system() -> Iterator[Sequencer]:
    with temporary_home() as home:
        system = Sequencer(home, DEDP_SETTLE_SECONDS="0.2", DEDP_START=YESTERDAY)
        yield system
        system.down()


@pytest.fixture
def system(whole_system: Sequencer) -> Sequencer:
    if not whole_system.stop:
        whole_system.up()
    return whole_system


def days_from(first: str, count: int) -> list[str]:
    return [(date.fromisoformat(first) + timedelta(days=number)).isoformat() for number in range(count)]


@contextmanager
def followers_off(system: Sequencer) -> Iterator[None]:
    """Stop the aggregator's sensors for the length of the block."""
    for sensor in devices_aggregator.defs.sensors or ():
        (state,) = system.graphql(
            "query ($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) "
            "{ ... on Sensor { sensorState { id } } } }",
            selector=selector_of(sensor),
        )["sensorOrError"].values()
        stopped = system.graphql(
            "mutation ($id: String!) { stopSensor(id: $id) "
            "{ ... on StopSensorMutationResult { instigationState { status } } } }",
            id=state["id"],
        )
        assert stopped == {"stopSensor": {"instigationState": {"status": "STOPPED"}}}
    yield
    for sensor in devices_aggregator.defs.sensors or ():
        started = system.graphql(
            "mutation ($selector: SensorSelector!) { startSensor(sensorSelector: $selector) "
            "{ ... on Sensor { sensorState { status } } } }",
            selector=selector_of(sensor),
        )
        assert started == {"startSensor": {"sensorState": {"status": "RUNNING"}}}


def selector_of(sensor: dg.SensorDefinition) -> dict[str, str]:
    return {
        "repositoryLocationName": "jobs.devices_aggregator",
        "repositoryName": "__repository__",
        "sensorName": sensor.name,
    }


def test_a_burst_of_days_is_loaded_whole_with_no_further_file_arriving(system: Sequencer) -> None:
    expected = {
        day: [f"burst {day} a", f"burst {day} b", "burst of all"] for day in days_from("2024-05-01", BURST_DAYS)
    }
    for day, names in expected.items():
        system.drop(day, names)
    system.wait_until_loaded(expected)
    assert system.totals("burst") == {
        **{name: 1 for names in expected.values() for name in names},
        "burst of all": BURST_DAYS,
    }


def test_a_file_rewritten_while_the_system_runs_is_loaded_again_and_the_totals_are_exact(system: Sequencer) -> None:
    day = "2024-03-09"
    system.drop(day, ["rewritten a", "rewritten b"])
    system.wait_until_loaded({day: ["rewritten a", "rewritten b"]})
    system.drop(day, ["rewritten b", "rewritten c"])
    system.wait_until_loaded({day: ["rewritten b", "rewritten c"]})
    assert system.totals("rewritten") == {"rewritten b": 1, "rewritten c": 1}


def test_days_that_came_while_nobody_followed_are_all_loaded_each_with_its_own_rows(system: Sequencer) -> None:
    first, *later = days = days_from("2024-03-10", 3)
    with followers_off(system):
        system.drop(first, [f"unfollowed {first}"])
        system.drop(None, ["unfollowed undated"])
        system.wait_until_copied(first, YESTERDAY)
        # Its day has taken the undated file; what overwrites it now is for later days.
        system.drop(None, ["unfollowed and too late"])
        for day in later:
            system.drop(day, [f"unfollowed {day}"])
            system.wait_until_copied(day)
        assert system.loaded(YESTERDAY, *days) == {}
    system.wait_until_loaded({YESTERDAY: ["unfollowed undated"], **{day: [f"unfollowed {day}"] for day in days}})
    assert system.totals("unfollowed 2024") == {f"unfollowed {day}": 1 for day in days}


def test_a_run_whose_process_is_killed_is_found_and_its_load_ends_exact(system: Sequencer) -> None:
    day = "2024-03-13"
    with closing(system.connect()) as blocking, blocking.cursor() as cursor:
        # Whoever loads this day waits for us to commit: the run stands still in the middle of its work.
        cursor.execute("INSERT INTO dedp.devices_loads (load_id) VALUES (%s)", [contract.load_id(day)])
        system.drop(day, ["killed a", "killed b"])
        waiting = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'dedp' AND wait_event_type = 'Lock'"
        system.wait_until(lambda: system.ask(waiting))
        of_day = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED], tags={"dagster/partition": day})
        # The run that has copied the file may not have said yet that it has ended.
        started = system.instance.get_runs(of_day)
        (run,) = (run for run in started if contract.DEVICES_RAW in (run.asset_selection or ()))
        worker = psutil.Process(system.process_of(run))
        worker.send_signal(signal.SIGKILL)
        system.wait_until(lambda: not worker.is_running())
    system.wait_until_loaded({day: ["killed a", "killed b"]})
    assert (ended := system.instance.get_run_by_id(run.run_id))
    assert ended.status == dg.DagsterRunStatus.FAILURE
    assert system.totals("killed") == {"killed a": 1, "killed b": 1}


# Longer than all retries of a run: the loader's are 20 s apart, three of them.
OUTAGE_SECONDS = 75


def test_a_database_that_is_away_for_longer_than_all_retries_costs_nothing_but_time(system: Sequencer) -> None:
    before, meanwhile = days_from("2024-03-20", 2)
    system.drop(before, ["away before"])
    system.wait_until_copied(before)
    folder = system.home / "postgres"
    server = psutil.Process(int((folder / "data" / "postmaster.pid").read_text().splitlines()[0]))
    server.send_signal(signal.SIGQUIT)
    psutil.wait_procs([server])
    system.drop(meanwhile, ["away meanwhile"])
    time.sleep(OUTAGE_SECONDS)
    # It belongs to the system, which is still there: this process's lease only starts it.
    with embedded_postgres.server_lease(folder):
        pass
    system.attach_again()
    system.wait_until_loaded({before: ["away before"], meanwhile: ["away meanwhile"]})
    assert system.totals("away") == {"away before": 1, "away meanwhile": 1}


LATECOMER = """
    import os
    from contextlib import closing
    from pathlib import Path

    import dagster as dg
    import psycopg2

    DAYS = dg.DailyPartitionsDefinition(start_date="2024-01-01", timezone="UTC")


    @dg.asset(
        partitions_def=DAYS,
        deps=[dg.AssetKey(["dedp", "devices_raw"])],
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def rows_of_day(context: dg.AssetExecutionContext) -> None:
        with closing(psycopg2.connect(os.environ["DEDP_POSTGRES_DSN"])) as database, database.cursor() as cursor:
            for day in context.partition_keys:
                query = "SELECT count(*) FROM dedp.devices_raw WHERE load_id = %s"
                cursor.execute(query, [day.replace("-", "")])
                Path(os.environ["DEDP_HOME"], "rows of " + day).write_text(str(cursor.fetchone()[0]))


    defs = dg.Definitions(assets=[dg.AssetSpec(["dedp", "devices_raw"], partitions_def=DAYS), rows_of_day])
"""


@pytest.fixture
def repository_with_a_latecomer(tmp_path: Path) -> Path:
    """A folder whose workspace has one more code location than ours."""
    workspace = yaml.safe_load((settings.REPOSITORY / "workspace.yaml").read_text())
    workspace["load_from"].append({"python_module": "latecomer"})
    (tmp_path / "workspace.yaml").write_text(yaml.safe_dump(workspace))
    (tmp_path / "latecomer.py").write_text(textwrap.dedent(LATECOMER))
    return tmp_path


def test_what_came_while_the_system_was_down_is_loaded_and_a_new_location_can_catch_up(
    system: Sequencer, repository_with_a_latecomer: Path, left_running: Callable[[Path], list[str]]
) -> None:
    known, missed = days_from("2024-03-14", 2)
    system.drop(known, ["outage before"])
    system.wait_until(lambda: known in system.materialized(contract.DEVICES_RAW))
    past_loads = sorted(system.materialized(contract.DEVICES_RAW))
    system.down()
    assert left_running(system.home) == []

    expected = {known: ["outage after"], missed: ["outage missed"]}
    for day, names in expected.items():
        system.drop(day, names)
    system.up_with_workspace_of(repository_with_a_latecomer)
    launched = system.graphql(
        "mutation ($parameters: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $parameters) "
        "{ __typename ... on PythonError { message } } }",
        parameters={"assetSelection": [{"path": ["rows_of_day"]}], "partitionNames": past_loads},
    )
    assert launched == {"launchPartitionBackfill": {"__typename": "LaunchBackfillSuccess"}}
    system.wait_until_loaded(expected)
    assert system.totals("outage") == {"outage after": 1, "outage missed": 1}

    system.wait_until(lambda: set(past_loads) <= system.materialized(dg.AssetKey("rows_of_day")))
    counted = {path.name.removeprefix("rows of "): int(path.read_text()) for path in system.home.glob("rows of *")}
    assert counted == {day: len(names) for day, names in system.loaded(*past_loads).items()}


@pytest.fixture(scope="module")
def plain_system(whole_system: Sequencer) -> Sequencer:
    """The system, brought up again without the launcher and the doorbell, on what looks like the home of a demo."""
    whole_system.down()
    (whole_system.home / settings.DEMO_MARK).touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_WARM_LAUNCHER", "off")
        patch.setenv("DEDP_DOORBELL", "off")
        whole_system.up()
    return whole_system


def test_a_demos_home_that_somebody_brought_up_is_theirs_and_no_demo_wipes_it(plain_system: Sequencer) -> None:
    assert not (plain_system.home / settings.DEMO_MARK).exists()


def test_with_the_launcher_and_the_doorbell_switched_off_files_are_loaded_all_the_same(
    plain_system: Sequencer,
) -> None:
    day = "2024-03-25"
    plain_system.drop(day, ["stock"])
    plain_system.wait_until_loaded({day: ["stock"]})
    assert plain_system.totals("stock") == {"stock": 1}
    runs = plain_system.instance.get_runs(limit=2)
    assert not [run for run in runs if ".dagster/warm_run" in run.tags], "forks"


def test_a_second_system_on_the_same_home_is_refused_and_harms_nothing(system: Sequencer) -> None:
    refused = pytest.raises(local_stack.StackError, match=rf"the system of {system.home} is running already \(process")
    with system.settings_in_force(), refused, local_stack.running(local_stack.free_port()):
        pass
    assert system.graphql("{ version }")["version"]


def test_nothing_is_left_running_when_the_system_is_down(
    system: Sequencer, left_running: Callable[[Path], list[str]]
) -> None:
    assert left_running(system.home) != []
    system.down()
    assert left_running(system.home) == []
    assert not (system.home / "postgres" / "data" / "postmaster.pid").exists()
    with pytest.raises(requests.ConnectionError):
        system.graphql("{ version }")
