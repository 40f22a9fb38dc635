"""Who may set a cursor in the UI can set any text. A tick goes on, or says what is wrong; it never does harm."""

from collections.abc import Iterator

import dagster as dg
import pytest

from jobs import (
    client_uploads,
    devices_aggregator,
    devices_loader,
    flight_search,
    late_data_integrator,
    promotion_reports,
    promotions,
    user_intake,
)

LOCATIONS = [
    *(client_uploads, devices_aggregator, devices_loader, flight_search, late_data_integrator, promotion_reports),
    *(promotions, user_intake),
]
pytestmark = pytest.mark.slow

SENSORS = [
    (location.defs, sensor)
    for location in LOCATIONS
    for sensor in location.defs.sensors or ()
    if isinstance(sensor, dg.SensorDefinition) and not isinstance(sensor, dg.AutomationConditionSensorDefinition)
]
HOSTILE = {
    "nested": "[" * 100_000,
    "objects": '{"a":' * 100_000,
    "null": "null",
    "list": "[1, 2]",
    "number": "1" * 5000,
    "text": '"text"',
    "no JSON": "\0\ud800';--",
    "wrong inside": '{"version": "x", "files": 7, "seen": [null], "days": {"x": 1}, "partitions": -1, "tables": {}}',
    "infinite": '{"version": 1e999, "since": NaN, "at": -Infinity}',
    "large": '{"files": {' + ",".join(f'"{number}": [1,2,3,4]' for number in range(100_000)) + "}}",
}


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.mark.parametrize(("defs", "sensor"), SENSORS, ids=[sensor.name for _, sensor in SENSORS])
def test_a_tick_survives_any_cursor(
    defs: dg.Definitions,
    sensor: dg.SensorDefinition,
    instance: dg.DagsterInstance,
    module_dsn: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", module_dsn)
    resources = {key: (defs.resources or {})[key] for key in sensor.required_resource_keys}
    for cursor in HOSTILE.values():
        with dg.build_sensor_context(instance, cursor, definitions=defs, resources=resources) as context:
            sensor.evaluate_tick(context)
