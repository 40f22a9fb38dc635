"""Steps that wait, for their retry or for a slot of a concurrency pool, wait in simulated time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dagster_scenario import _dagster as dagster_
from dagster_scenario.runs import worker_here

# Seconds by which sums of floating-point times may be wrong, and more.
_ROUNDING = 0.0001


@contextmanager
def steps_sleep_until_ready() -> Iterator[None]:
    """Within it, a run whose steps all wait sleeps until the first of them is to look again.

    Dagster means to do the same, but computes that time as `min(0, ...)`. So it looks all the time for a slot that only
    becomes free when time goes on, and a simulated clock stands still while a run is busy.

    A retry's time is a sum of floating-point numbers, which may lie a fraction of a microsecond after the moment that
    was meant. A step that has slept until that moment is ready.

    While other steps are under way, it sleeps until one of them has ended, or until then.
    """
    execution = dagster_.ActiveExecution
    original = execution.sleep_til_ready

    def sleep_til_ready(self: Any) -> None:
        retries = self._waiting_to_retry
        moments = [*retries.values(), *_next_looks(self._instance_concurrency_context)]
        worker = worker_here()
        if worker is not None and self.has_in_flight_steps:
            # One whose time has come and that is not under way waits for those that are.
            moments = [moment for moment in moments if moment > time.time()]
            if not moments:
                worker.wait_for_steps()
        if not moments:
            return
        if worker is not None:
            worker.only_claims = not retries
        time.sleep(max(0.0, min(moments) - time.time()))
        now = time.time()
        retries.update({step: now for step, moment in retries.items() if moment - now < _ROUNDING})

    execution.sleep_til_ready = sleep_til_ready  # type: ignore[method-assign]
    try:
        yield
    finally:
        execution.sleep_til_ready = original  # type: ignore[method-assign]


def _next_looks(claims: Any) -> Iterator[float]:
    """When the steps of a run that wait for a slot look for one again."""
    if claims is not None:
        for step in claims.pending_claim_steps():
            # Dagster looks after that moment, not at it.
            yield claims._pending_timeouts[step] + _ROUNDING
