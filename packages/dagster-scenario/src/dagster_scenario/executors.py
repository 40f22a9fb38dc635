"""Executors: a scenario executes the steps of every job in this process, whatever executor the job names.

What would execute each step in a process of its own has each step in a thread of its own, so that steps take
simulated time side by side. Which step is ready, and how many at once, is decided by Dagster's own `ActiveExecution`.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_scenario import _dagster as dagster_

if TYPE_CHECKING:
    from dagster_scenario.runs import Worker

# Marks an IO manager that stands around another one, which is its value.
AROUND = "_dagster_scenario_around"
# How many CPUs the machine of a run has, unless the scenario says otherwise; the same on whatever machine the test is.
CPUS = 4
# What Dagster's executor of several processes takes for their number when its config does not say it, before it takes
# the number of CPUs.
_LIMIT = "DAGSTER_MULTIPROCESS_EXECUTOR_MAX_CONCURRENT"


def in_this_process(
    executor: dg.ExecutorDefinition, run_here: "Callable[[], Worker | None]", cpus: int
) -> dg.ExecutorDefinition:
    """An executor that takes the same config as this one, and executes the steps in this process.

    The config of a job is checked as it is in a deployment. Of what it says, the scenario keeps whether steps are
    retried and how many of them are under way at a time; where they run has no meaning here.

    run_here: tells which run this thread belongs to. cpus: of the machine that the run is on, which is how many steps
    Dagster's own executor has under way when nothing says how many.
    """
    if executor.name == dagster_.in_process_executor.name:
        return executor

    def create(context: dg.InitExecutorContext) -> Any:
        config = context.executor_config
        retries: Any = dagster_.RetryMode.from_config(_found("retries", config) or {"enabled": {}})
        waiting = dagster_.StepDependencyConfig.from_config(_found("step_dependency_config", config))
        if _is_in_process(executor, config):
            return dagster_.InProcessExecutor(retries=retries, step_dependency_config=waiting)
        limit = _found("max_concurrent", config)
        if not limit and executor.name in (dg.multiprocess_executor.name, dagster_.multi_or_in_process_executor.name):
            limit = int(os.environ.get(_LIMIT) or cpus)
        return SideBySide(retries, waiting, limit or None, _found("tag_concurrency_limits", config), run_here)

    schema: Any = executor.config_schema
    return dg.ExecutorDefinition(name=executor.name, config_schema=schema, executor_creation_fn=create, requirements=[])


def replaced(jobs: Iterable[dg.JobDefinition]) -> dict[str, list[str]]:
    """The jobs that ask for an executor of another process, by the name of the executor.

    A job that names no executor has Dagster's default one, of which nothing needs to be said.
    """
    found: dict[str, list[str]] = {}
    kept = (dagster_.in_process_executor.name, dagster_.multi_or_in_process_executor.name)
    for job in jobs:
        if job.executor_def.name not in kept:
            found.setdefault(job.executor_def.name, []).append(job.name)
    return found


@dataclass
class _Step:
    """A step that is under way: its thread, and what it has told and nobody has heard."""

    worker: "Worker"
    events: list[dg.DagsterEvent] = field(default_factory=list)
    # What ended it, other than an error of its own code.
    error: Any = None


class SideBySide(dg.Executor):
    """Executes the steps of a run as Dagster's executor of several processes does, with threads for its processes.

    Each step has a plan, and resources, of its own. At one moment the steps move one after another, in the order in
    which Dagster hands them out.
    """

    def __init__(
        self, retries: Any, waiting: Any, limit: int | None, tag_limits: Any, run_here: "Callable[[], Worker | None]"
    ) -> None:
        self._retries, self._waiting, self._run_here = retries, waiting, run_here
        self._limit, self._tag_limits = limit, tag_limits

    @property
    def retries(self) -> Any:
        return self._retries

    @property
    def step_dependency_config(self) -> Any:
        return self._waiting

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        run = self._run_here()
        # Outside of a run's thread, as in the process of a run that is to be killed, nothing can overlap.
        chain = self._waiting.require_upstream_step_success and _is_a_chain(execution_plan)
        if run is None or chain or self._limit == 1 or _keeps_values_in_memory(plan_context.job.get_definition()):
            one_by_one = dagster_.InProcessExecutor(retries=self._retries, step_dependency_config=self._waiting)
            return one_by_one.execute(plan_context, execution_plan)
        return self._side_by_side(run, plan_context, execution_plan)

    def _side_by_side(self, run: "Worker", plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        job = plan_context.job.get_definition()
        config = dagster_.ResolvedRunConfig.build(job, plan_context.run_config)
        under_way: dict[str, _Step] = {}
        errors: list[Any] = []
        with (
            dagster_.InstanceConcurrencyContext(plan_context.instance, plan_context.dagster_run) as claims,
            dagster_.ActiveExecution(
                execution_plan,
                retry_mode=self._retries,
                max_concurrent=self._limit,
                tag_concurrency_limits=self._tag_limits,
                instance_concurrency_context=claims,
                step_dependency_config=self._waiting,
            ) as active,
        ):
            while not active.is_complete:
                news = False
                for key, step in list(under_way.items()):
                    while step.events:
                        news = True
                        yield from self._heard(active, plan_context, key, step.events.pop(0))
                    if step.worker.done:
                        news = True
                        del under_way[key]
                        errors += [step.error] if step.error is not None else []
                        active.verify_complete(plan_context, key)
                for event in active.plan_events_iterator(plan_context):
                    news = True
                    yield event
                # Last, so that a step that waits for a slot finds the one that another has given back at this moment.
                for ready in active.get_steps_to_execute():
                    # As Dagster gives it to the process of a step: with what is known of the others until now.
                    known = execution_plan._replace(known_state=active.get_known_state())
                    plan = known.build_subset_plan([ready.key], job, config)
                    under_way[ready.key] = self._started(run, plan_context, ready.key, plan)
                yield from active.concurrency_event_iterator(plan_context)
                if not news and not active.is_complete:
                    active.sleep_til_ready()
            if errors:
                error: Any = dagster_.DagsterSubprocessError
                raise error(
                    "steps ended by errors that are not of their own code:\n"
                    + "\n".join(error.to_string() for error in errors),
                    subprocess_error_infos=errors,
                )

    def _heard(self, active: Any, plan_context: Any, key: str, event: Any) -> Iterator[dg.DagsterEvent]:
        yield event
        active.handle_event(event)
        if event.is_resource_init_failure:
            context = plan_context.for_step(active.get_step_by_key(key))
            error = event.engine_event_data.error
            assert dagster_.after_error is not None
            end = dagster_.after_error(self, context, error, active.get_known_state())
            yield end
            active.handle_event(end)

    def _started(self, run: "Worker", plan_context: Any, key: str, plan: Any) -> _Step:
        def execute() -> None:
            try:
                for event in dagster_.execute_plan_iterator(
                    plan,
                    plan_context.job,
                    plan_context.dagster_run,
                    plan_context.instance,
                    retry_mode=self._retries.for_inner_plan(),
                    run_config=plan_context.run_config,
                ):
                    step.events.append(event)
                    step.worker.has_news = True
            except (Exception, dg.DagsterExecutionInterruptedError):
                step.error = dagster_.serializable_error_info_from_exc_info(sys.exc_info())

        step = _Step(run.start_step(key, execute))
        return step


def _is_in_process(executor: dg.ExecutorDefinition, config: Any) -> bool:
    """Whether it executes one step after another: Dagster's own, by itself, under another name, or as a choice."""
    if executor.executor_creation_fn is dagster_.in_process_executor.executor_creation_fn:
        return True
    return executor.name == dagster_.multi_or_in_process_executor.name and "in_process" in config


def _is_a_chain(plan: Any) -> bool:
    """Whether no two steps of a plan can be under way at the same time."""
    levels = plan.get_steps_to_execute_by_level()
    dynamic = any(output.is_dynamic for level in levels for step in level for output in step.step_outputs)
    return all(len(level) == 1 for level in levels) and not dynamic


def _keeps_values_in_memory(job: dg.JobDefinition) -> bool:
    """Whether steps find each other's values only where they share an IO manager, which Dagster's processes do not.

    Tests put such an IO manager in place of a real one.
    """
    definitions = [getattr(resource, AROUND, resource) for resource in job.resource_defs.values()]
    return any(definition is dg.mem_io_manager for definition in definitions)


def _found(name: str, config: Any) -> Any:
    """What an executor's config says under this name, at whatever depth; None when it says nothing."""
    if not isinstance(config, Mapping):
        return None
    if config.get(name) is not None:
        return config[name]
    return next((found for below in config.values() if (found := _found(name, below)) is not None), None)
