"""What wakes a sensor, as metadata of the sensor. So the daemon reads it, and imports nothing of the code location."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

KEY = "doorbell"


def woken_by(
    *,
    folders: str | None = None,
    assets: Collection[dg.AssetKey] = (),
    own_runs: bool = False,
    polls: bool = False,
) -> dict[str, dg.MetadataValue[Any]]:
    """The metadata of a sensor that the doorbell wakes. Elsewhere it means nothing.

    Name everything that the sensor looks at. With the doorbell, it is then looked for anything else only once in a
    while (see `docs/reactions.md`).

    Args:
        folders: a function without arguments that returns the directories to watch, as `folders.Watch`, written
            `module:name`. The daemon's process imports it, so its module should be light.
        assets: a new materialization or observation of one of them wakes the sensor.
        own_runs: whether the end of any run of its own code location wakes it, too.
        polls: whether each tick also looks, in turn, at a part of what nothing rings for. Such a sensor is evaluated as
            often as by Dagster, and at once when something rings.
    """
    return {
        KEY: dg.MetadataValue.json(
            {
                "folders": folders,
                "assets": sorted(key.to_user_string() for key in assets),
                "own_runs": own_runs,
                "polls": polls,
            }
        )
    }


@dataclass(frozen=True)
class Listener:
    """What wakes a sensor.

    Attributes:
        name: of the sensor, for messages.
        location: its code location.
        interval: its `minimum_interval_seconds`.
        folders: names the function that returns its directories, see `woken_by`; None for none.
        assets: the assets whose events wake it, as Dagster stores their keys.
        own_runs: whether the end of a run of its code location wakes it.
        all_runs: whether any change of any run wakes it.
        polls: whether it is evaluated as often as by Dagster all the same.
        daemon: which of Dagster's daemons evaluates it: "SENSOR" or "ASSET".
    """

    name: str
    location: str
    interval: float
    folders: str | None = None
    assets: frozenset[str] = frozenset()
    own_runs: bool = False
    all_runs: bool = False
    polls: bool = False
    daemon: str = "SENSOR"

    @property
    def listens_to_log(self) -> bool:
        return bool(self.assets) or self.own_runs or self.all_runs

    @property
    def has_bell(self) -> bool:
        return self.folders is not None or self.listens_to_log


def listener_from_metadata(name: str, location: str, interval: float, metadata: Mapping[str, Any]) -> Listener:
    """What wakes a sensor by its metadata; nothing, if it has none of `woken_by`."""
    said = metadata.get(KEY)
    value = getattr(said, "value", None)
    if not isinstance(value, Mapping):
        return Listener(name, location, interval)
    keys = [dg.AssetKey.from_user_string(key) for key in value.get("assets") or ()]
    return Listener(
        name,
        location,
        interval,
        folders=value.get("folders"),
        assets=frozenset(key.to_string() for key in keys),
        own_runs=bool(value.get("own_runs")),
        polls=bool(value.get("polls")),
    )
