"""What each role may do. The words are those of Dagster's own permissions and mutations.

What is not named here, because a later release of Dagster has brought it, is for admins alone.
"""

from collections.abc import Mapping
from enum import IntEnum


class Role(IntEnum):
    """A role may do what those below it may.

    A viewer reads everything. A launcher also starts, repeats and ends runs and backfills, and reports events of
    assets. An admin also changes how the system goes on: sensors, schedules, cursors, locations, pools, partitions,
    and the history.
    """

    viewer = 1
    launcher = 2
    admin = 3


NAMES = tuple(role.name for role in Role)

_FOR_LAUNCHERS = frozenset(
    {
        "launch_pipeline_execution",
        "launch_pipeline_reexecution",
        "terminate_pipeline_execution",
        "launch_partition_backfill",
        "cancel_partition_backfill",
        "report_runless_asset_events",
    }
)

# Everything else needs an admin. What is spelled "pipeline" are the old names of the same mutations.
_MUTATIONS: Mapping[str, Role] = {
    # They change nothing of the system: what the page has shown, and telemetry if it is on.
    "logTelemetry": Role.viewer,
    "setNuxSeen": Role.viewer,
    "launchRun": Role.launcher,
    "launchPipelineExecution": Role.launcher,
    "launchMultipleRuns": Role.launcher,
    "launchRunReexecution": Role.launcher,
    "launchPipelineReexecution": Role.launcher,
    "terminateRun": Role.launcher,
    "terminatePipelineExecution": Role.launcher,
    "terminateRuns": Role.launcher,
    "launchPartitionBackfill": Role.launcher,
    "resumePartitionBackfill": Role.launcher,
    "reexecutePartitionBackfill": Role.launcher,
    "cancelPartitionBackfill": Role.launcher,
    "reportRunlessAssetEvents": Role.launcher,
    "reportAssetCheckEvaluations": Role.launcher,
}


def role_for_mutation(name: str) -> Role:
    """The lowest role that may use a mutation of Dagster's GraphQL."""
    return _MUTATIONS.get(name, Role.admin)


def may(role: Role, permission: str) -> bool:
    """Whether a role has one of Dagster's permissions, of those that a web server without sign-in gives to all."""
    return role >= (Role.launcher if permission in _FOR_LAUNCHERS else Role.admin)
