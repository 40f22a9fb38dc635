"""The branch that is taken runs, the others are skipped, and so is all of them if there is nothing to do."""

import dagster as dg
import pytest

from dedp_assets.cookbook import branching


@pytest.mark.parametrize(
    ("rows", "ran", "skipped"),
    [
        (5, {"choose", "load_here", "report"}, {"load_on_a_cluster"}),
        (5000, {"choose", "load_on_a_cluster", "report"}, {"load_here"}),
        (0, {"choose"}, {"load_here", "load_on_a_cluster", "report"}),
    ],
)
def test_one_branch_runs_and_the_other_one_is_skipped(
    instance: dg.DagsterInstance, rows: int, ran: set[str], skipped: set[str]
) -> None:
    config = {"ops": {"choose": {"config": {"rows": rows}}}}
    result = branching.load_by_size.execute_in_process(run_config=config, instance=instance)
    assert {event.step_key for event in result.get_step_success_events()} == ran
    assert {event.step_key for event in result.get_step_skipped_events()} == skipped
    assert result.success
