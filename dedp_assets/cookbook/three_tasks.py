"""Three tasks whose outcome you choose in the run config, to try the trigger rules with.

    ops: {a: {config: {outcome: failed}}}

An outcome is success, failed, skipped, or upstream_failed: then the task before it fails.
"""

from collections.abc import Iterator
from functools import cache

import dagster as dg

TASKS = ("a", "b", "c")


class Task(dg.Config):
    outcome: str = "success"


@cache
def task(name: str) -> dg.OpDefinition:
    """An op that succeeds, fails, or skips what follows it, because it yields no output."""

    @dg.op(name=name, ins={"after": dg.In(dg.Nothing)}, out=dg.Out(is_required=False))
    def run(config: Task) -> Iterator[dg.Output[str]]:
        if config.outcome == "failed":
            raise dg.Failure(f"{name} fails, as its config says", allow_retries=False)
        if config.outcome != "skipped":
            yield dg.Output(name)

    return run


@cache
def before(name: str) -> dg.OpDefinition:
    """The op upstream of a task."""

    @dg.op(name=f"before_{name}", out=dg.Out(dg.Nothing))
    def run(config: Task) -> None:
        if config.outcome == "upstream_failed":
            raise dg.Failure(f"fails before {name}, as its config says", allow_retries=False)

    return run


def config_of(outcomes: dict[str, str]) -> dict[str, object]:
    """The run config in which the tasks have these outcomes."""
    return {
        "ops": {
            step: {"config": {"outcome": outcome}}
            for name, outcome in outcomes.items()
            for step in (name, f"before_{name}")
        }
    }
