"""What a test expects of all runs, in the sentences of `expectations`."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from dagster_scenario import outcomes
from dagster_scenario import timeline as timeline_
from dagster_scenario.expectations import Requested, explain
from dagster_scenario.shortening import About
from dagster_scenario.timeline import Mark, Run, between

if TYPE_CHECKING:
    from dagster_scenario.scenario import Scenario

# pytest shows the test's line, not the lines here.
__tracebackhide__ = True


class RunsExpectation:
    """What is expected of the runs, or of those of one job: `scenario.expect_runs()`."""

    def __init__(self, scenario: "Scenario", since: Mark | None, job: str | None) -> None:
        self._scenario, self._since, self._job = scenario, since, job

    def count(self, number: int, *, at_least: bool = False) -> Requested:
        """So many runs were requested, or so many at least."""
        requested = {e.run for e in self._scenario.timeline.since(self._since) if e.kind == timeline_.REQUESTED}
        runs = self._runs(lambda run: run.number in requested)
        if len(runs) < number or (len(runs) > number and not at_least):
            self._false(f"{'at least ' if at_least else ''}{number} to be requested", f"{len(runs)} were", runs)
        return Requested(self._scenario, "runs to be requested", [(str(run), run) for run in runs], self._since)

    def only(self, *targets: str) -> None:
        """All runs that were requested are of these assets or jobs, and of nothing else."""
        requested = {e.run for e in self._scenario.timeline.since(self._since) if e.kind == timeline_.REQUESTED}
        for target in targets:
            self._scenario.check_asset_or_job(target)
        known = set(targets)
        runs = self._runs(lambda run: run.job not in known and not {*run.assets} <= known)
        others = [run for run in runs if run.number in requested]
        if others:
            self._false(f"none but of {', '.join(targets)}", f"{len(others)} were of others", others)

    def none_failed(self) -> None:
        """None failed or was killed."""
        runs = self._runs(lambda run: run.status in (timeline_.FAILED, timeline_.KILLED))
        if runs:
            self._false("none to fail", f"{len(runs)} did", runs)

    def none_under_way(self) -> None:
        """Every run that was requested has ended."""
        runs = self._runs(lambda run: run.status in (timeline_.REQUESTED, timeline_.STARTED))
        if runs:
            self._false("all to have ended", f"{len(runs)} have not", runs)

    def no_slot_held_while_waiting(self) -> None:
        """No run sat in its slot doing nothing but sleep: what waits must be a sensor, which takes no slot."""
        runs = self._runs(lambda run: bool(run.waits))
        if runs:
            now = self._scenario.now
            why = [
                f"  {run} slept {between(since, until or now)}, from {since:%Y-%m-%d %H:%M:%S}, in {where}"
                for run in runs
                for since, until, where in run.waits[:5]
            ]
            want = "runs to hold no slot while they wait"
            about = About(runs=frozenset(run.number for run in runs[:20]))
            raise AssertionError(explain(self._scenario, want, f"{len(runs)} did", why, self._since, about))

    def _runs(self, chosen: Callable[[Run], bool]) -> list[Run]:
        numbers = {event.run for event in self._scenario.timeline.since(self._since) if event.run}
        runs = [run for run in self._scenario.timeline.runs.values() if self._job in (None, run.job)]
        return [run for run in runs if run.number in numbers and chosen(run)]

    def _false(self, expected: str, instead: str, runs: list[Run]) -> None:
        why = [f"  {line}" for line in outcomes.of_runs(self._scenario, runs[:20])]
        want = f"runs{f' of {self._job}' if self._job else ''}: {expected}"
        about = About(frozenset({self._job} if self._job else ()), runs=frozenset(run.number for run in runs[:20]))
        raise AssertionError(explain(self._scenario, want, instead, why, self._since, about))
