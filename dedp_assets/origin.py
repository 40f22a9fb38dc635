"""What has started a run. Every run of every code location has a tag that says it, so that the UI can filter by it."""

from collections.abc import Mapping
from typing import Literal, get_args

ORIGIN_TAG = "dedp/origin"

# Dagster's own tag: who has launched the run, repeated it, or launched its backfill. The web server puts the name of
# the signed-in user there, and replaces any other. A retry has it from the run that failed.
USER_TAG = "user"

# `file` and `rule` are sensors that say more about themselves. `http` is another system, by a call.
Origin = Literal["schedule", "sensor", "automation", "backfill", "by hand", "http", "file", "rule"]
ORIGINS: tuple[Origin, ...] = get_args(Origin)

# What Dagster writes at a run. The first tag that is there counts: an automation is a sensor, too, and may make a
# backfill.
_BY_DAGSTER: tuple[tuple[str, Origin], ...] = (
    ("dagster/from_automation_condition", "automation"),
    ("dagster/schedule_name", "schedule"),
    ("dagster/sensor_name", "sensor"),
    ("dagster/backfill", "backfill"),
)


def origin_tag(origin: Origin) -> dict[str, str]:
    """The tag of a run, to add to its other tags."""
    return {ORIGIN_TAG: origin}


def origin_of(tags: Mapping[str, str]) -> str:
    """What has started a run.

    A retry that Dagster makes by itself has the origin of the run that failed. A run that a person makes again was
    started by hand, although Dagster copies the tags of the earlier run.

    Args:
        tags: The tags of the run.
    """
    if "dagster/parent_run_id" in tags and "dagster/retry_number" not in tags:
        return "by hand"
    if ORIGIN_TAG in tags:
        return tags[ORIGIN_TAG]
    return next((origin for tag, origin in _BY_DAGSTER if tag in tags), "by hand")
