"""What a restore does about the runs that were under way, or waited, when the backup was made."""

import dagster as dg
import pytest
import yaml
from dagster._core.test_utils import create_run_for_test

from dedp_assets import settings
from dedp_assets.backup.interrupted_runs import end_interrupted_runs

Status = dg.DagsterRunStatus
# A run in the queue has to name a code location, which there is none of here.
STATUSES = set(Status) - {Status.QUEUED, Status.MANAGED}


@pytest.mark.parametrize("configuration", ["dedp_assets/deployment/dagster.yaml", "docker/dagster.yaml"])
def test_runs_that_were_under_way_fail_and_are_repeated_and_others_stay_as_they_are(configuration: str) -> None:
    retries = yaml.safe_load((settings.REPOSITORY / configuration).read_text())["run_retries"]
    with dg.DagsterInstance.ephemeral(settings={"run_retries": retries}) as instance:
        runs = {status: create_run_for_test(instance, status=status).run_id for status in STATUSES}
        end_interrupted_runs(instance)
        after = {status: instance.get_run_by_id(run_id) for status, run_id in runs.items()}
    ended = {Status.STARTING: Status.FAILURE, Status.STARTED: Status.FAILURE, Status.CANCELING: Status.CANCELED}
    assert {was: run.status for was, run in after.items() if run} == {was: ended.get(was, was) for was in STATUSES}
    repeated = {was for was, run in after.items() if run and run.tags.get("dagster/will_retry") == "true"}
    assert repeated == {Status.STARTING, Status.STARTED}
