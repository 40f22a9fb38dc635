"""Airflow's trigger rules as one function: from the states of the upstream tasks to what becomes of the task.

`trigger_rules_in_a_run` has the rules that Dagster offers itself. `trigger_rules_between_runs` applies all of them.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Literal, NamedTuple

State = Literal["success", "failed", "skipped", "upstream_failed", "unfinished"]
Decision = Literal["run", "skip", "upstream_failed", "wait"]


class Counts(NamedTuple):
    """How many upstream tasks are in which state. `failed` includes those that failed because of their own upstream."""

    total: int
    done: int
    success: int
    skipped: int
    failed: int
    failed_itself: int


Cases = tuple[tuple[Decision, Callable[[Counts], object]], ...]

# The first case that holds decides, also before all upstream tasks are done. If none holds, the task waits.
RULES: Mapping[str, Cases] = {
    "all_success": (
        ("upstream_failed", lambda n: n.failed),
        ("skip", lambda n: n.skipped),
        ("run", lambda n: n.success == n.total),
    ),
    "all_failed": (("skip", lambda n: n.success or n.skipped), ("run", lambda n: n.failed == n.total)),
    "all_done": (("run", lambda n: n.done == n.total),),
    "one_success": (
        ("run", lambda n: n.success),
        ("skip", lambda n: n.skipped == n.total),
        ("upstream_failed", lambda n: n.done == n.total),
    ),
    "one_failed": (("run", lambda n: n.failed), ("skip", lambda n: n.done == n.total)),
    # A task that never ran, because it was skipped or its upstream failed, is not "done" for this rule.
    "one_done": (("run", lambda n: n.success or n.failed_itself), ("skip", lambda n: n.done == n.total)),
    "none_failed": (("upstream_failed", lambda n: n.failed), ("run", lambda n: n.done == n.total)),
    "none_failed_min_one_success": (
        ("upstream_failed", lambda n: n.failed),
        ("skip", lambda n: n.skipped == n.total),
        ("run", lambda n: n.done == n.total),
    ),
    "none_skipped": (("skip", lambda n: n.skipped), ("run", lambda n: n.done == n.total)),
    "all_skipped": (("skip", lambda n: n.success or n.failed), ("run", lambda n: n.skipped == n.total)),
    "all_done_min_one_success": (
        ("skip", lambda n: n.skipped),
        ("run", lambda n: n.done == n.total and n.success),
        ("upstream_failed", lambda n: n.done == n.total),
    ),
    "always": (("run", lambda n: True),),
}


def decide(rule: str, upstream: Collection[State]) -> Decision:
    """What becomes of a task.

    Args:
        rule: a name in RULES.
        upstream: the state of each upstream task, at least one.
    """
    counts = _counts(upstream)
    return next((decision for decision, holds in RULES[rule] if holds(counts)), "wait")


def _counts(upstream: Collection[State]) -> Counts:
    of = list(upstream).count
    return Counts(
        total=len(upstream),
        done=len(upstream) - of("unfinished"),
        success=of("success"),
        skipped=of("skipped"),
        failed=of("failed") + of("upstream_failed"),
        failed_itself=of("failed"),
    )
