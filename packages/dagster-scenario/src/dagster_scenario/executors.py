"""Executors: a scenario executes the steps of every job in this process, one after another."""

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from dagster_scenario import _dagster as dagster_


def in_this_process(executor: dg.ExecutorDefinition) -> dg.ExecutorDefinition:
    """An executor that takes the same config as this one, and executes the steps in this process.

    The config of a job is checked as it is in a deployment. Of what it says, the scenario keeps whether steps are
    retried; how many processes there are, and where, has no meaning here.
    """
    if executor.name == dagster_.in_process_executor.name:
        return executor

    def create(context: dg.InitExecutorContext) -> Any:
        return dagster_.InProcessExecutor(retries=_retries(context.executor_config))

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


def _retries(config: Any) -> Any:
    """What an executor's config says of retries, wherever it says it; by default they are made."""
    if isinstance(config, Mapping):
        if isinstance(config.get("retries"), Mapping):
            return dagster_.RetryMode.from_config(config["retries"])
        for below in config.values():
            found = _retries(below)
            if found is not dagster_.RetryMode.ENABLED:
                return found
    return dagster_.RetryMode.ENABLED
