"""A request from outside has an id, so that sending it twice does its work once.

The id is a tag of the run. Two requests may race, and then both get a run: Dagster's API takes no key that is unique.
So each run looks, before its first step, whether an earlier run of the same request exists. If so, it ends as canceled,
without a step. The order is that in which Dagster has stored the runs. It is settled by then, because a run starts in a
process of its own after it was stored.

A run that failed or was canceled does not count: the request may be sent again.
"""

import dagster as dg

REQUEST_TAG = "dedp/request"

# The tag of a run that did nothing, with the id of the run that does the work.
DUPLICATE_OF_TAG = "dedp/duplicate_of"

_NOT_COUNTED = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.CANCELING)


def request_tag(request_id: str) -> dict[str, str]:
    """The tag of a run that does the work of a request, to add to its other tags."""
    return {REQUEST_TAG: request_id}


def earlier_run(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
    """The id of an earlier run that does, or has done, the work of the same request; None if there is none."""
    request_id = run.tags.get(REQUEST_TAG)
    if request_id is None:
        return None
    records = instance.get_run_records(dg.RunsFilter(tags=request_tag(request_id)), ascending=True, order_by="id")
    for record in records:
        if record.dagster_run.run_id == run.run_id:
            return None
        if record.dagster_run.status not in _NOT_COUNTED:
            return record.dagster_run.run_id
    return None
