"""The trigger rules that Dagster offers within a run: all_success, none_failed_min_one_success, none_failed, always.

No step of Dagster follows a failure in the same run. For the other rules see `trigger_rules_between_runs`.
"""

import dagster as dg

from dedp_assets.cookbook.three_tasks import TASKS, before, task


@dg.op(ins={name: dg.In(dg.Nothing) for name in TASKS})
def all_success() -> None:
    """One input for each task: skipped if one of them is skipped."""


@dg.op(ins={"any_of": dg.In(dg.Nothing)})
def none_failed_min_one_success() -> None:
    """One input that collects all tasks: skipped only if all of them are skipped."""


@dg.op(out=dg.Out(dg.Nothing))
def never_skipped() -> None:
    """The fourth in the collection of none_failed."""


@dg.op(ins={"any_of": dg.In(dg.Nothing)})
def none_failed() -> None:
    """The same with one more that always succeeds, so that never all of them are skipped."""


@dg.op
def always() -> None:
    """No input: it waits for nobody."""


@dg.job
def rules_in_a_run() -> None:
    upstream = {name: task(name)(before(name)()) for name in TASKS}
    all_success(**upstream)
    none_failed_min_one_success(any_of=list(upstream.values()))
    none_failed(any_of=[*upstream.values(), never_skipped()])
    always()


defs = dg.Definitions(jobs=[rules_in_a_run])
