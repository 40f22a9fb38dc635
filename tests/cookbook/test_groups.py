"""A group of steps is used twice in one job, and a group of assets is selected by its name."""

import dagster as dg

from dedp_assets.cookbook import groups


def test_a_graph_is_used_twice_and_its_steps_run_in_the_same_run(instance: dg.DagsterInstance) -> None:
    result = groups.load_all.execute_in_process(instance=instance)
    steps = {event.step_key for event in result.get_step_success_events()}
    assert {"shop.extract", "shop.load", "warehouse.extract", "warehouse.load"} <= steps
    assert len(instance.get_runs()) == 1


def test_a_job_selects_a_group_of_assets(instance: dg.DagsterInstance) -> None:
    result = groups.defs.resolve_job_def("sales").execute_in_process(instance=instance)
    assert {event.step_key for event in result.get_step_success_events()} == {"sold", "turnover"}
