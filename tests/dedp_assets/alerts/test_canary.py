"""What the alerts take from Dagster's private parts is still there. If a release moves it, this says what."""

import socket
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    ScheduleInstigatorData,
    SensorInstigatorData,
)

from dedp_assets.alerts._dagster import TAKEN, broken_locations, freshness, instigators_that_are_on
from dedp_assets.doorbell._dagster import moved


def test_everything_that_the_alerts_take_from_dagster_is_where_it_was_and_takes_what_it_took() -> None:
    assert moved(TAKEN) == []


@pytest.mark.slow
def test_an_instance_says_which_sensors_and_schedules_are_on() -> None:
    location = GrpcServerCodeLocationOrigin(host="localhost", port=1, location_name="jobs.tides")
    repository = RemoteRepositoryOrigin(location, "__repository__")
    states: list[tuple[str, InstigatorType, InstigatorStatus, ScheduleInstigatorData | SensorInstigatorData]] = [
        ("watched", InstigatorType.SENSOR, InstigatorStatus.DECLARED_IN_CODE, SensorInstigatorData(cursor="v1")),
        ("off", InstigatorType.SENSOR, InstigatorStatus.STOPPED, SensorInstigatorData()),
        ("daily", InstigatorType.SCHEDULE, InstigatorStatus.RUNNING, ScheduleInstigatorData("0 0 * * *")),
    ]
    with dg.instance_for_test() as instance:
        for name, kind, status, data in states:
            origin = RemoteInstigatorOrigin(repository, name)
            instance.add_instigator_state(InstigatorState(origin, kind, status, data))
        found = {each.name: (each.location, each.kind, each.cursor) for each in instigators_that_are_on(instance)}
    assert found == {"watched": ("jobs.tides", "sensor", "v1"), "daily": ("jobs.tides", "schedule", None)}


def test_an_instance_says_how_fresh_an_asset_is(instance: dg.DagsterInstance) -> None:
    key = dg.AssetKey(["tides", "flood"])
    instance.report_runless_asset_event(dg.AssetMaterialization(key))
    change = FreshnessStateChange(
        key=key, previous_state=FreshnessState.UNKNOWN, new_state=FreshnessState.FAIL, state_change_timestamp=0.0
    )
    instance._report_runless_asset_event(change)  # as Dagster's freshness daemon does
    assert freshness(instance) == {"tides/flood": "FAIL"}


def test_a_code_server_that_takes_connections_and_never_answers_holds_up_nobody(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        workspace = tmp_path / "workspace.yaml"
        workspace.write_text(
            "load_from:\n"
            f"  - grpc_server: {{host: 127.0.0.1, port: {silent.getsockname()[1]}, location_name: hangs}}\n"
            "  - grpc_server: {host: 127.0.0.1, port: 1, location_name: gone}\n"
        )
        found = broken_locations(workspace, seconds=0.2)
    assert "taking longer than 0.2 seconds" in found["hangs"]
    assert "does not answer" in found["gone"]
