import time

import pytest

from dedp_assets.doorbell.bell import Bell
from dedp_assets.doorbell.woken_by import listener_from_metadata, woken_by
from sensors.pipelines.client_uploads import uploads_arrived
from sensors.pipelines.devices_loader import devices_landed
from sensors.pipelines.promotions import promotions_delivered


@pytest.mark.parametrize("polls", [False, True])
def test_a_sensor_that_looks_at_a_part_in_turn_is_polled_although_a_bell_rings_for_it(polls: bool) -> None:
    metadata = woken_by(folders="somewhere:folders", polls=polls)
    bell = Bell(net_seconds=30)
    bell.set_deaf("folders", lambda sensor: False)
    bell.set_listeners({"it": listener_from_metadata("it", "here", 1.0, metadata)})
    assert bell.is_due("it", time.time() - 6, False) is polls


def test_the_sensors_that_look_at_a_part_in_turn_say_so() -> None:
    polls = {
        sensor.name: listener_from_metadata(sensor.name, "here", 1.0, sensor.metadata).polls
        for sensor in (uploads_arrived, promotions_delivered, devices_landed)
    }
    assert polls == {"uploads_arrived": True, "promotions_delivered": True, "devices_landed": False}
