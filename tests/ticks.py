"""Ticks of one sensor, evaluated in this process."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import dagster as dg


class Tick(NamedTuple):
    """What a tick handed to Dagster. `message` is empty beside run requests."""

    run_requests: list[dg.RunRequest]
    events: list[dg.AssetMaterialization]
    message: str
    cursor: str | None


class SensorTicks:
    """A sensor that ticks as the daemon makes it tick: each tick gets the cursor that the tick before it stored.

    Args:
        sensor: the sensor.
        instance: the instance of its context.
        definitions: the code location of the sensor, if the sensor needs it.
        resources: the resources that the sensor needs.
        records_events: whether its events are recorded in the instance, as the daemon does.
    """

    def __init__(
        self,
        sensor: dg.SensorDefinition,
        instance: dg.DagsterInstance,
        *,
        definitions: dg.Definitions | None = None,
        resources: Mapping[str, object] | None = None,
        records_events: bool = False,
    ) -> None:
        self.instance = instance
        self.cursor: str | None = None
        self._sensor, self._records_events = sensor, records_events
        self._environment: dict[str, Any] = {"definitions": definitions, "resources": resources}

    def __call__(self) -> Tick:
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor, **self._environment)
        result = self._sensor.evaluate_tick(context)
        events = [event for event in result.asset_events if isinstance(event, dg.AssetMaterialization)]
        assert len(events) == len(result.asset_events)
        if self._records_events:
            for event in events:
                self.instance.report_runless_asset_event(event)
        self.cursor = result.cursor
        return Tick(list(result.run_requests or ()), events, result.skip_message or "", result.cursor)
