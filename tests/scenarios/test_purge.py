"""`dedp purge` in the running system: it may come at any time, and nobody notices but the disk."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
import yaml

from dedp_assets import settings
from dedp_assets.isolated_sequencer import contract
from tests.scenarios.system import System, temporary_home

pytestmark = pytest.mark.slow

LOCATIONS = {"jobs.devices_loader": "devices_landed", "jobs.devices_aggregator": "follow_inputs"}
OLD = ("2024-01-01", "2024-01-02", "2024-01-03")
NEW = "2024-01-04"

_LATEST = """
    query ($key: AssetKeyInput!, $day: String!) {
      assetOrError(assetKey: $key) {
        ... on Asset {
          assetMaterializations(partitions: [$day], limit: 1) { runId partition runOrError { __typename } }
        }
      }
    }
"""
_FORGET = """
    mutation ($selector: SensorSelector!) {
      setSensorCursor(sensorSelector: $selector) { __typename ... on PythonError { message } }
    }
"""


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """The isolated sequencer, without the other pipelines."""
    with temporary_home() as home:
        workspace = home.with_name("workspace")
        workspace.mkdir()
        for name in ("jobs", "sensors", "dedp_assets"):
            (workspace / name).symlink_to(settings.REPOSITORY / name)
        modules = [{"python_module": module} for module in LOCATIONS]
        (workspace / "workspace.yaml").write_text(yaml.safe_dump({"load_from": modules}))
        # Sensors are also evaluated every 5 s, so the test need not wait for the next tick.
        system = System(home, DEDP_SETTLE_SECONDS="0.2", DEDP_START=OLD[0], DEDP_DOORBELL_NET_SECONDS="5")
        system.up_with_workspace_of(workspace)
        yield system
        system.down()
        shutil.rmtree(workspace)


def drop(system: System, day: str, name: str) -> None:
    """Let a file with one device land, renamed into place."""
    path: Path = system.home / "landing" / "devices" / day / "dataset.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(".draft")
    draft.write_text(f"type;full_name;version\nphone;{name};v1\n")
    draft.replace(path)


def totals(system: System) -> set[str]:
    """The names in the totals; none before the first aggregation has made the table."""
    with closing(system.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('dedp.devices_aggregates')")
        if cursor.fetchone() == (None,):
            return set()
        cursor.execute("SELECT full_name FROM dedp.devices_aggregates")
        return {name for (name,) in cursor.fetchall()}


def grow_old(system: System) -> None:
    """As if all that Dagster has stored had happened 100 days earlier."""
    columns = {"runs": "update_timestamp", "event_logs": "timestamp", "job_ticks": "timestamp"}
    with closing(system.connect()) as connection, connection, connection.cursor() as cursor:
        for table, column in columns.items():
            cursor.execute(f"UPDATE dagster.{table} SET {column} = {column} - interval '100 days'")


def runs_of(system: System, *days: str) -> list[str]:
    return sorted(
        run.run_id for day in days for run in system.instance.get_runs(dg.RunsFilter(tags={"dagster/partition": day}))
    )


def wait_for_runs(system: System) -> None:
    """Wait until no run is under way or in the queue."""
    system.wait_until(lambda: all(run.is_finished for run in system.instance.get_runs()))


def wait_for_ticks(system: System, count: int) -> None:
    """Wait until each sensor has had so many ticks more."""
    states = {state.instigator_name: state for state in system.instance.all_instigator_state()}

    def ticks(name: str) -> int:
        state = states[name]
        return len(system.instance.get_ticks(state.instigator_origin_id, state.selector_id))

    before = {name: ticks(name) for name in LOCATIONS.values()}
    system.wait_until(lambda: all(ticks(name) >= number + count for name, number in before.items()))


def test_a_purge_of_a_system_that_works_loses_no_update_and_makes_nothing_run_again(system: System) -> None:
    for day in OLD:
        drop(system, day, f"first of {day}")
    system.wait_until(lambda: totals(system) == {f"first of {day}" for day in OLD})
    drop(system, OLD[0], "second")
    system.wait_until(lambda: "second" in totals(system) and f"first of {OLD[0]}" not in totals(system))
    wait_for_runs(system)
    grow_old(system)

    drop(system, NEW, "new")
    for _ in range(3):
        system.dedp("purge", "--older-than", "90d")
    system.wait_until(lambda: "new" in totals(system))
    wait_for_runs(system)
    system.dedp("purge", "--older-than", "90d")

    made = runs_of(system, *OLD)
    for location, sensor in LOCATIONS.items():
        selector = {"repositoryLocationName": location, "repositoryName": "__repository__", "sensorName": sensor}
        done = system.graphql(_FORGET, selector=selector)["setSensorCursor"]
        assert done["__typename"] == "Sensor", done
    wait_for_ticks(system, 3)
    assert runs_of(system, *OLD) == made

    drop(system, OLD[1], "late")
    system.wait_until(lambda: "late" in totals(system) and f"first of {OLD[1]}" not in totals(system))
    assert totals(system) == {"second", "late", f"first of {OLD[2]}", "new"}

    for key in (contract.DEVICES_FILE, contract.DEVICES_RAW, contract.DEVICES_AGGREGATES):
        for day in (*OLD, NEW):
            shown = system.graphql(_LATEST, key={"path": key.path}, day=day)["assetOrError"]["assetMaterializations"]
            assert [each["partition"] for each in shown] == [day]
            assert shown[0]["runOrError"]["__typename"] == "Run"
