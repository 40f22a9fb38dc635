"""A request that is sent twice does its work once."""

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run

from dedp_assets.request_ids import DUPLICATE_OF_TAG, request_tag
from dedp_assets.run_processes import in_process_executor

done: list[str] = []


@dg.asset
def work(context: dg.AssetExecutionContext) -> None:
    done.append(context.run.run_id)
    if "fails" in context.run.tags:
        raise ValueError("injected")


DEFS = dg.Definitions(assets=[work], executor=in_process_executor)
JOB = DEFS.resolve_implicit_global_asset_job_def()


def requested(instance: dg.DagsterInstance, request_id: str, **tags: str) -> dg.DagsterRun:
    """A run that is stored and has not started yet."""
    return instance.create_run_for_job(JOB, tags={**request_tag(request_id), **tags})


def status_after(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    """The status of a run after it was started."""
    execute_run(InMemoryJob(JOB), run, instance)
    return status(instance, run)


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found
    return found.status


SUCCESS, CANCELED, FAILURE = (getattr(dg.DagsterRunStatus, name) for name in ("SUCCESS", "CANCELED", "FAILURE"))


def test_of_two_runs_of_one_request_the_first_one_does_the_work_whichever_starts_first(
    instance: dg.DagsterInstance,
) -> None:
    done.clear()
    first, second = requested(instance, "order 17"), requested(instance, "order 17")
    assert status_after(instance, second) == CANCELED
    assert status_after(instance, first) == SUCCESS
    assert done == [first.run_id]
    canceled = instance.get_run_by_id(second.run_id)
    assert canceled
    assert canceled.tags[DUPLICATE_OF_TAG] == first.run_id


def test_a_request_that_is_sent_again_later_does_nothing(instance: dg.DagsterInstance) -> None:
    done.clear()
    runs = [requested(instance, "order 17"), requested(instance, "order 18")]
    assert [status_after(instance, run) for run in runs] == [SUCCESS, SUCCESS]
    assert status_after(instance, requested(instance, "order 17")) == CANCELED
    assert len(done) == 2


def test_a_request_whose_run_failed_may_be_sent_again(instance: dg.DagsterInstance) -> None:
    assert status_after(instance, requested(instance, "order 17", fails="yes")) == FAILURE
    assert status_after(instance, requested(instance, "order 17")) == SUCCESS


def test_runs_without_a_request_id_are_never_taken_for_the_same(instance: dg.DagsterInstance) -> None:
    runs = [instance.create_run_for_job(JOB) for _ in range(2)]
    assert [status_after(instance, run) for run in runs] == [SUCCESS, SUCCESS]
