"""A sensor with its ticks, as Dagster's daemon stores them in an instance."""

import logging
import time
from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.instigation_logger import InstigationLogger
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster_shared.error import SerializableErrorInfo

_SILENT = logging.Logger("silent")


def add_sensor(
    instance: dg.DagsterInstance, location: str, name: str, ticks: Sequence[tuple[TickStatus, str]], logged: str = ""
) -> None:
    """Add a sensor that is on.

    Args:
        instance: Where to add it.
        location: Of the sensor.
        name: Of the sensor.
        ticks: How each of its ticks ended, with its message or its error; the latest one last.
        logged: What each of its ticks has logged, first as a note, and then as an error.
    """
    server = GrpcServerCodeLocationOrigin(host="localhost", port=1, location_name=location)
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(server, "__repository__"), name)
    state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, SensorInstigatorData())
    instance.add_instigator_state(state)
    now = time.time()
    for before, (status, said) in enumerate(reversed(ticks)):
        log_key = ["__repository__", name, str(before)]
        if logged:
            with InstigationLogger(log_key, instance, "__repository__", name, console_logger=_SILENT) as log:
                log.info("a note")
                log.error(logged)
        instance.create_tick(
            TickData(
                origin.get_id(),
                name,
                InstigatorType.SENSOR,
                status,
                now - before,
                error=SerializableErrorInfo(said, [], None) if status == TickStatus.FAILURE else None,
                skip_reason=said if status == TickStatus.SKIPPED else None,
                run_ids=[] if status == TickStatus.SUCCESS else None,
                selector_id=state.selector_id,
                log_key=log_key if logged else None,
            )
        )
