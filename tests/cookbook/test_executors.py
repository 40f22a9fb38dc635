"""The same steps with each executor that needs no cluster."""

import dagster as dg
import pytest

from dedp_assets.cookbook import executors


def workers(instance: dg.DagsterInstance, run_id: str) -> int:
    """How many processes were started for steps of a run."""
    return len(instance.all_logs(run_id, of_type={dg.DagsterEventType.STEP_WORKER_STARTED}))


def test_the_steps_run_one_after_another_in_the_process_of_the_run(instance: dg.DagsterInstance) -> None:
    result = executors.in_order.execute_in_process(instance=instance)
    assert result.output_for_node("both") == "left and right"
    assert workers(instance, result.run_id) == 0


@pytest.mark.slow
def test_each_step_has_a_process_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    with (
        dg.instance_for_test(temp_dir=str(tmp_path_factory.mktemp("dagster"))) as instance,
        dg.execute_job(dg.reconstructable(executors_side_by_side), instance) as result,
    ):
        assert result.output_for_node("both") == "left and right"
        assert workers(instance, result.run_id) == 3


def executors_side_by_side() -> dg.JobDefinition:
    return executors.side_by_side
