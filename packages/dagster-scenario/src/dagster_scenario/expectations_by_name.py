"""What a test expects of jobs, asset checks and dynamic partitions, in the sentences of `expectations`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dagster_scenario import outcomes
from dagster_scenario import timeline as timeline_
from dagster_scenario.expectations import Count, Expectation, Requested
from dagster_scenario.timeline import Event, Mark, Run

if TYPE_CHECKING:
    from dagster_scenario.scenario import Scenario

# pytest shows the test's line, not the lines here.
__tracebackhide__ = True


class JobExpectation(Expectation):
    """What is expected of the runs of one job: `scenario.expect_job('nightly_job')`."""

    def __init__(self, scenario: "Scenario", job: str) -> None:
        super().__init__(scenario, f"job {job}", job)
        self._job = job

    def succeeded(
        self,
        *partitions: str,
        times: int | None = None,
        since: Mark | None = None,
        in_any_order: bool = False,
        at_least: bool = False,
    ) -> Requested:
        """Its runs for exactly these partitions succeeded, in this order; or so many, at least one for None."""
        count = Count(times, since, in_any_order, at_least)
        return self._exactly("successful", self._of_runs(since, timeline_.SUCCEEDED), partitions, count, self._why)

    def failed(
        self,
        *partitions: str,
        times: int | None = None,
        since: Mark | None = None,
        in_any_order: bool = False,
        at_least: bool = False,
        error: str = "",
    ) -> Requested:
        """Its runs for exactly these partitions failed or were killed; `error` is part of what each of them said."""
        events = self._of_runs(since, timeline_.FAILED, timeline_.KILLED)
        for event in events:
            run = self._run(event)
            if error not in run.error:
                why = [f"  {line}" for line in outcomes.of_runs(self._scenario, [run])]
                self._false(f"failed with {error!r}", f"{run} failed with {run.error!r}", why, since)
        count = Count(times, since, in_any_order, at_least)
        return self._exactly("failed", events, partitions, count, self._why)

    def running(self, *partitions: str, in_any_order: bool = False) -> None:
        """Runs for exactly these partitions are under way: started and not ended."""
        runs = [run for run in self._runs() if run.status == timeline_.STARTED]
        found = [run.which for run in runs]
        if not runs or (partitions and not Count(in_any_order=in_any_order).has(partitions, found)):
            named = f" for {', '.join(partitions)}" if partitions else ""
            self._false(
                f"running{named}", f"running are {', '.join(found)}" if runs else "it is not", self._why((), ()), None
            )

    def requested(
        self,
        *partitions: str,
        times: int | None = None,
        since: Mark | None = None,
        in_any_order: bool = False,
        at_least: bool = False,
    ) -> Requested:
        """Runs of it were requested for exactly these partitions, whatever came of them."""
        count = Count(times, since, in_any_order, at_least)
        return self._exactly("requested", self._of_runs(since, timeline_.REQUESTED), partitions, count, self._why)

    def not_requested(self, *, since: Mark | None = None) -> None:
        """No run of it was requested."""
        self._none("requested", self._of_runs(since, timeline_.REQUESTED), (), since)

    def never_overlapped(self, *, since: Mark | None = None, any_partition: bool = False) -> None:
        """No two runs of it were under way for the same partition at the same time; `any_partition`: for any two."""
        self._never_overlapped(self._runs(), not any_partition, since)

    def _of_runs(self, since: Mark | None, *kinds: str) -> list[Event]:
        events = [e for e in self._scenario.timeline.since(since) if e.kind in kinds and self._is(e)]
        # Run monitoring records a killed run as failed, later.
        last = {event.run: event for event in events}
        return [
            Event(event.at, event.kind, event.text, event.run, partition=self._run(event).which or None)
            for event in last.values()
        ]

    def _is(self, event: Event) -> bool:
        return event.run is not None and self._run(event).job == self._job

    def _run(self, event: Event) -> Run:
        return self._scenario.timeline.run(event.run or 0)

    def _runs(self) -> list[Run]:
        return [run for run in self._scenario.timeline.runs.values() if run.job == self._job]

    def _why(self, expected: Sequence[str], found: Sequence[str]) -> list[str]:
        lines = outcomes.of_runs(self._scenario, self._runs()[-20:])
        if not lines:
            location = self._scenario.location_of_job(self._job)
            lines = ["no run was requested", *outcomes.of_nobody(self._scenario, location)]
        return [f"  {line}" for line in lines]


class CheckExpectation(Expectation):
    """What is expected of one asset check: `scenario.expect_check('orders', 'has_rows')`."""

    def __init__(self, scenario: "Scenario", asset: str, check: str) -> None:
        super().__init__(scenario, f"check {check} of {asset}", asset)
        self._asset, self._check = asset, check

    def passed(self, *, times: int | None = None, since: Mark | None = None, at_least: bool = False) -> Requested:
        """It was evaluated so many times, at least once for None, and passed each time."""
        return self._came_out("passed", True, Count(times, since, at_least=at_least))

    def failed(self, *, times: int | None = None, since: Mark | None = None, at_least: bool = False) -> Requested:
        """It was evaluated so many times, at least once for None, and passed at none of them."""
        return self._came_out("failed", False, Count(times, since, at_least=at_least))

    def not_evaluated(self, *, since: Mark | None = None) -> None:
        """It was not evaluated."""
        self._none("evaluated", self._events(since), (), since)

    def _came_out(self, verb: str, passed: bool, count: Count) -> Requested:
        events = self._events(count.since)
        others = [event for event in events if event.problem is passed]
        if others:
            why = [f"  {event.at:%Y-%m-%d %H:%M:%S}: {event.text}" for event in others[:10]]
            self._false(verb, f"{len(others)} of {len(events)} times it did not", why, count.since)
        return self._exactly(verb, events, (), count, self._why)

    def _events(self, since: Mark | None) -> list[Event]:
        return [
            event
            for event in self._scenario.timeline.since(since)
            if event.kind == timeline_.CHECKED and event.asset == self._asset and event.subject == self._check
        ]

    def _why(self, expected: Sequence[str], found: Sequence[str]) -> list[str]:
        runs = [run for run in self._scenario.timeline.runs.values() if self._asset in run.assets]
        lines = outcomes.of_runs(self._scenario, runs[-10:]) or [f"no run of {self._asset} was requested"]
        return [f"  {line}" for line in lines]


class PartitionsExpectation(Expectation):
    """What is expected of dynamic partitions: `scenario.expect_partitions('shops')`."""

    def __init__(self, scenario: "Scenario", name: str) -> None:
        super().__init__(scenario, f"partitions of {name}", name)
        self._name = name

    def are(self, *partitions: str) -> None:
        """There are exactly these now, in any order."""
        there = self._scenario.instance.get_dynamic_partitions(self._name)
        if sorted(there) != sorted(partitions):
            self._false(", ".join(partitions) or "none", f"there are {', '.join(there) or 'none'}", [], None)

    def added(
        self, *partitions: str, since: Mark | None = None, in_any_order: bool = False, at_least: bool = False
    ) -> None:
        """Exactly these were added, in this order; or any, without names."""
        count = Count(None, since, in_any_order, at_least)
        self._exactly("added", self._events(timeline_.PARTITION_ADDED, since), partitions, count, _nothing_more)

    def removed(
        self, *partitions: str, since: Mark | None = None, in_any_order: bool = False, at_least: bool = False
    ) -> None:
        """Exactly these were removed, in this order; or any, without names."""
        count = Count(None, since, in_any_order, at_least)
        self._exactly("removed", self._events(timeline_.PARTITION_REMOVED, since), partitions, count, _nothing_more)

    def _events(self, kind: str, since: Mark | None) -> list[Event]:
        events = self._scenario.timeline.since(since)
        return [event for event in events if event.kind == kind and event.subject == self._name]


def _nothing_more(expected: Sequence[str], found: Sequence[str]) -> list[str]:
    return []
