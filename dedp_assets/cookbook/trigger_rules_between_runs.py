"""Every trigger rule: a job that starts when the tasks of another job's run are in the states that its rule asks for.

The example is the notes': `task_D` when a, b and c succeed, `alert` as soon as one of them fails.
"""

import datetime as dt
from collections.abc import Sequence

import dagster as dg

from dedp_assets.cookbook.three_tasks import TASKS, before, task
from dedp_assets.cookbook.trigger_rules import State, decide

_EVENTS = {
    dg.DagsterEventType.STEP_OUTPUT,
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_SKIPPED,
}


def states_in(instance: dg.DagsterInstance, run: dg.DagsterRun, steps: Sequence[str]) -> list[State]:
    """The states of steps of a run, which may still be under way, in Airflow's terms.

    Args:
        instance: the instance that has the run.
        run: the run. If it is a re-execution, the other steps have their states from the run before.
        steps: keys of steps, each of them with an output. One that succeeds without output counts as skipped.
    """
    events: dict[str, set[str]] = {step: set() for step in steps}
    for event in instance.all_logs(run.run_id, of_type=_EVENTS):
        if event.step_key in events:
            events[event.step_key].add(event.get_dagster_event().event_type_value)
    found = {step: _state(kinds, is_over=run.is_finished) for step, kinds in events.items()}
    elsewhere = [step for step in steps if run.step_keys_to_execute and step not in run.step_keys_to_execute]
    parent = instance.get_run_by_id(run.parent_run_id) if run.parent_run_id and elsewhere else None
    if parent:
        found |= dict(zip(elsewhere, states_in(instance, parent, elsewhere), strict=True))
    return [found[step] for step in steps]


def _state(events: set[str], *, is_over: bool) -> State:
    if "STEP_FAILURE" in events:
        return "failed"
    if "STEP_SUCCESS" in events:
        return "success" if "STEP_OUTPUT" in events else "skipped"
    if "STEP_SKIPPED" in events:
        return "skipped"
    return "upstream_failed" if is_over else "unfinished"


def start_by_rule(
    job: dg.JobDefinition, rule: str, upstream_job: str, steps: Sequence[str] = TASKS
) -> dg.SensorDefinition:
    """A sensor that requests a run of `job` for each run of `upstream_job` in which the rule is met.

    It begins with the runs that are created after its first tick, and decides while they are under way.
    """

    @dg.sensor(name=f"{job.name}_{rule}", job=job, minimum_interval_seconds=5)
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        if not context.cursor:
            context.update_cursor(dt.datetime.now(dt.timezone.utc).isoformat())
            return dg.SkipReason("looks for runs from now on")
        since = dt.datetime.fromisoformat(context.cursor)
        filters = dg.RunsFilter(job_name=upstream_job, created_after=since)
        records = context.instance.get_run_records(filters, ascending=True)
        decisions = {
            record.dagster_run.run_id: decide(rule, states_in(context.instance, record.dagster_run, steps))
            for record in records
        }
        # Runs that are not decided are looked at again, with all that were created after them.
        # The run key takes care that none of these starts the job twice.
        undecided = [r.create_timestamp for r in records if decisions[r.dagster_run.run_id] == "wait"]
        latest = [record.create_timestamp for record in records]
        begin = min(undecided) - dt.timedelta(microseconds=1) if undecided else max(latest, default=since)
        started = [run_id for run_id, decision in decisions.items() if decision == "run"]
        said = ", ".join(f"{run_id[:8]}: {decision}" for run_id, decision in decisions.items())
        return dg.SensorResult(
            run_requests=[dg.RunRequest(run_key=run_id) for run_id in started],
            skip_reason=None if started else dg.SkipReason(said or "no new run"),
            cursor=begin.isoformat(),
        )

    return sensor


@dg.op(ins={name: dg.In(dg.Nothing) for name in TASKS})
def task_D() -> None:
    """all_success is what Dagster does by itself."""


@dg.job
def tasks() -> None:
    task_D(**{name: task(name)(before(name)()) for name in TASKS})


@dg.op
def tell_somebody(context: dg.OpExecutionContext) -> None:
    context.log.error("a, b or c has failed")


@dg.job
def alert() -> None:
    tell_somebody()


defs = dg.Definitions(jobs=[tasks, alert], sensors=[start_by_rule(alert, "one_failed", upstream_job="tasks")])
