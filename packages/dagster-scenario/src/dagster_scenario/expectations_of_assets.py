"""What a test expects of one asset, in the sentences of `expectations`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dagster_scenario import _dagster as dagster_
from dagster_scenario import outcomes
from dagster_scenario import timeline as timeline_
from dagster_scenario.expectations import Count, Expectation, Requested, requested_by, too_much
from dagster_scenario.locations import Asset
from dagster_scenario.timeline import Event, Mark, Run

if TYPE_CHECKING:
    from dagster_scenario.scenario import Scenario

# pytest shows the test's line, not the lines here.
__tracebackhide__ = True


class AssetExpectation(Expectation):
    """What is expected of one asset: `scenario.expect('orders')`."""

    def __init__(self, scenario: "Scenario", asset: Asset) -> None:
        super().__init__(scenario, asset.name, asset.name)
        self._asset = asset

    def materialized(
        self,
        *partitions: str,
        times: int | None = None,
        since: Mark | None = None,
        in_any_order: bool = False,
        at_least: bool = False,
    ) -> Requested:
        """It was materialized for exactly these partitions, in this order, a partition as often as it is named.

        Args:
            partitions: their keys; none for an asset without partitions, or for any of them.
            times: without partitions: how often; None for at least once.
            since: look from this mark on.
            in_any_order: the order is of no interest.
            at_least: other partitions, or more times, are right too.
        """
        self._scenario.check_partitions(self._asset, partitions)
        count = Count(times, since, in_any_order, at_least)
        events = self._events(timeline_.MATERIALIZED, since)

        def why(expected: Sequence[str], found: Sequence[str]) -> list[str]:
            return [*self._why(expected, found, since), *self._who_requested(too_much(expected, found), events)]

        return self._exactly("materialized", events, partitions, count, why)

    def not_materialized(self, *partitions: str, since: Mark | None = None) -> None:
        """It was not materialized, for none of these partitions, or not at all."""
        self._scenario.check_partitions(self._asset, partitions)
        self._none("materialized", self._events(timeline_.MATERIALIZED, since), partitions, since)

    def observed(
        self,
        *partitions: str,
        times: int | None = None,
        since: Mark | None = None,
        in_any_order: bool = False,
        at_least: bool = False,
    ) -> Requested:
        """It was observed for exactly these partitions; the arguments are those of `materialized`."""
        self._scenario.check_partitions(self._asset, partitions)
        count = Count(times, since, in_any_order, at_least)
        return self._exactly("observed", self._events(timeline_.OBSERVED, since), partitions, count, _no_reasons)

    def not_observed(self, *partitions: str, since: Mark | None = None) -> None:
        """It was not observed, for none of these partitions, or not at all."""
        self._scenario.check_partitions(self._asset, partitions)
        self._none("observed", self._events(timeline_.OBSERVED, since), partitions, since)

    def requested(
        self,
        *partitions: str,
        times: int | None = None,
        since: Mark | None = None,
        in_any_order: bool = False,
        at_least: bool = False,
    ) -> Requested:
        """Runs of it were requested for exactly these partitions, whatever came of them; as in `materialized`."""
        self._scenario.check_partitions(self._asset, partitions)
        count = Count(times, since, in_any_order, at_least)
        events = self._requests(since)

        def why(expected: Sequence[str], found: Sequence[str]) -> list[str]:
            return [*self._why(expected, found, since), *self._who_requested(too_much(expected, found), events)]

        return self._exactly("requested", events, partitions, count, why)

    def not_requested(self, *partitions: str, since: Mark | None = None) -> None:
        """No run of it was requested, for none of these partitions, or not at all."""
        self._scenario.check_partitions(self._asset, partitions)
        self._none("requested", self._requests(since), partitions, since)

    def never_overlapped(self, *, since: Mark | None = None, any_partition: bool = False) -> None:
        """No two runs of it were under way for the same partition at the same time.

        Args:
            since: look from this mark on.
            any_partition: not for different partitions either.
        """
        self._never_overlapped(self._runs(None), not any_partition, since)

    def fresh(self) -> None:
        """By its freshness policy it is fresh."""
        self._freshness("pass", "fresh")

    def stale(self, *, warning: bool = False) -> None:
        """By its freshness policy it is too old; `warning`: only old enough for a warning."""
        self._freshness("warn" if warning else "fail", "old enough for a warning" if warning else "too old")

    def _freshness(self, wanted: str, words: str) -> None:
        state = self._scenario.freshness_of(self._asset)
        if state != wanted:
            self._false(f"{words} (freshness {wanted})", f"its freshness is {state}", [], None)

    def failed(self, *partitions: str, since: Mark | None = None, error: str = "", in_any_order: bool = False) -> None:
        """Its runs for exactly these partitions failed, in this order; `error` is part of what each of them said."""
        self._scenario.check_partitions(self._asset, partitions)
        runs = [run for run in self._runs(since) if run.status in (timeline_.FAILED, timeline_.KILLED)]
        found = [run.which for run in runs]
        if not runs or (partitions and not Count(in_any_order=in_any_order).has(partitions, found)):
            named = f" for {', '.join(partitions)}" if partitions else ""
            instead = f"runs of {', '.join(found)} failed" if found else "no run of it failed"
            others = [run for run in runs if run.which in too_much(partitions, found)]
            why = [f"  {line}" for line in outcomes.of_runs(self._scenario, others)]
            self._false(f"failed{named}", instead, [*self._why(partitions, found, since), *why], since, partitions)
        for run in runs:
            if error not in run.error:
                why = [f"  {line}" for line in outcomes.of_runs(self._scenario, [run])]
                self._false(f"failed with {error!r}", f"{run} failed with {run.error!r}", why, since)

    def running(self, *partitions: str, in_any_order: bool = False) -> None:
        """Runs for exactly these partitions are under way: started and not ended."""
        self._scenario.check_partitions(self._asset, partitions)
        runs = [run for run in self._runs(None) if run.status == timeline_.STARTED]
        found = [run.which for run in runs]
        if not runs or (partitions and not Count(in_any_order=in_any_order).has(partitions, found)):
            named = f" for {', '.join(partitions)}" if partitions else ""
            instead = f"running are {', '.join(found)}" if found else "it is not"
            self._false(f"running{named}", instead, self._why(partitions, found, None), None, partitions)

    def _events(self, kind: str, since: Mark | None) -> list[Event]:
        events = self._scenario.timeline.since(since)
        return [event for event in events if event.kind == kind and event.asset == self._asset.name]

    def _requests(self, since: Mark | None) -> list[Event]:
        runs = {run.number: run for run in self._scenario.timeline.runs.values() if self._asset.name in run.assets}
        events = self._scenario.timeline.since(since)
        requests = [event for event in events if event.kind == timeline_.REQUESTED and event.run in runs]
        return [
            replace(event, partition=partition)
            for event in requests
            for partition in runs[event.run or 0].partitions or (None,)
        ]

    def _runs(self, since: Mark | None) -> list[Run]:
        numbers = {event.run for event in self._scenario.timeline.since(since) if event.run}
        runs = self._scenario.timeline.runs.values()
        return [run for run in runs if run.number in numbers and self._asset.name in run.assets]

    def _why(self, expected: Sequence[str], found: Sequence[str], since: Mark | None) -> list[str]:
        """What came of each partition that is missing, of all runs without partitions, or why none was requested."""
        missing: list[str | None] = [p for p in dict.fromkeys(expected) if found.count(p) < expected.count(p)]
        if not expected and not found:
            missing = [None]
        all_runs = self._runs(since)
        runs = [run for run in all_runs if any(run.covers(partition) for partition in missing)]
        lines = outcomes.of_runs(self._scenario, runs[-20:])
        unrequested = [partition for partition in missing if not any(run.covers(partition) for run in runs)]
        if unrequested:
            lines += self._why_unrequested(unrequested, since)
        return [f"  {line}" for line in dict.fromkeys(lines)]

    def _who_requested(self, partitions: Sequence[str], events: Sequence[Event]) -> list[str]:
        """Who requested these partitions, which are too much."""
        return [f"  {requested_by(self._scenario, event)}" for event in events if (event.partition or "") in partitions]

    def _why_unrequested(self, partitions: Sequence[str | None], since: Mark | None) -> list[str]:
        named = ", ".join(partition for partition in partitions if partition)
        lines = [f"no run was requested{f' for {named}' if named else ''}"]
        lines += outcomes.of_nobody(self._scenario, self._asset.location)
        # Which dynamic partitions there are, and which have begun, stands in the instance and depends on the time.
        with dagster_.partition_loading_context(
            effective_dt=self._scenario.now, dynamic_partitions_store=self._scenario.instance
        ):
            since_when = since.at if since else None
            return lines + self._scenario.evaluations.explain(self._asset.name, partitions[0], since_when)


def _no_reasons(expected: Sequence[str], found: Sequence[str]) -> list[str]:
    return []
