"""What has started a run: the tags of Dagster that stand for the beginning of an Airflow run id."""

from collections.abc import Mapping

PREFIXES = {
    "dagster/parent_run_id": "a run again",
    "dagster/from_automation_condition": "asset_triggered__",
    "dagster/backfill": "backfill__",
    "dagster/schedule_name": "scheduled__",
    "dagster/sensor_name": "a sensor",
}


def prefix_of(tags: Mapping[str, str]) -> str:
    """The prefix that the run would have in Airflow. What no tag explains was started by hand, or over the API."""
    return next((prefix for tag, prefix in PREFIXES.items() if tag in tags), "manual__")
