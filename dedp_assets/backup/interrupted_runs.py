"""`python -m dedp_assets.backup.interrupted_runs`: after a restore, ends the runs whose processes are nowhere.

They were under way when the backup was made. Otherwise Dagster would take them for runs that take long, and what they
were to do would wait for them.
"""

import dagster as dg

_UNDER_WAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def end_interrupted_runs(instance: dg.DagsterInstance) -> None:
    """Report the runs as failed that were under way. What waits in the queue starts as it would have."""
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNDER_WAY)):
        if run.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, "It was being canceled when the backup was made that is restored here.")
        else:
            instance.report_run_failed(run, "It was under way when the backup was made that is restored here.")


if __name__ == "__main__":
    with dg.DagsterInstance.get() as restored:
        end_interrupted_runs(restored)
