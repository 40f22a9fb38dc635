"""What a test expects, in sentences that explain themselves when they are false.

Every expectation raises AssertionError with what was expected, what happened instead, why as far as Dagster tells,
and the timeline since the mark.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from dagster_scenario import _dagster as dagster_
from dagster_scenario import outcomes
from dagster_scenario import timeline as timeline_
from dagster_scenario.errors import ScenarioError, unknown
from dagster_scenario.locations import Asset
from dagster_scenario.overlaps import end_of, overlapping
from dagster_scenario.runs import delta
from dagster_scenario.shortening import About
from dagster_scenario.timeline import Event, Mark, Run, between

if TYPE_CHECKING:
    from dagster_scenario.scenario import Scenario


# pytest shows the test's line, not the lines here.
__tracebackhide__ = True


class Expectation:
    """What all expectations have in common: what is counted, and how a false one is told."""

    def __init__(self, scenario: "Scenario", subject: str, *names: str) -> None:
        """names: of what it is about, as the timeline has them."""
        self._scenario, self._subject, self._names = scenario, subject, frozenset(names)

    def _exactly(
        self,
        verb: str,
        events: Sequence[Event],
        partitions: Sequence[str],
        count: "Count",
        why: Callable[[Sequence[str], Sequence[str]], list[str]],
    ) -> "Requested":
        """These events are for exactly these partitions, or as many as were expected."""
        if partitions and count.times is not None:
            raise ScenarioError("name the partitions, each as often as expected, or give times=, not both")
        found = [event.partition or "" for event in events]
        if partitions and not count.has(partitions, found):
            want = f"{verb} for {count.wanted(partitions)}"
            self._false(
                want,
                _instead(found),
                why(partitions, found),
                count.since,
                [*partitions, *_too_much(partitions, found)[:10]],
            )
        elif not partitions and not count.is_enough(len(found)):
            want = verb if count.times is None else f"{verb} {count.number()}"
            self._false(want, _instead(found), why([], found), count.since)
        runs = [self._scenario.timeline.run(event.run) if event.run else None for event in events]
        happened = [(_where(event), run) for event, run in zip(events, runs, strict=True)]
        return Requested(self._scenario, f"{self._subject} to be {verb}", happened, count.since, self._names)

    def _none(self, verb: str, events: Sequence[Event], partitions: Sequence[str], since: Mark | None) -> None:
        """None of these events happened, or none for these partitions."""
        those = [event for event in events if not partitions or event.partition in partitions]
        if those:
            why = [f"  {_requested_by(self._scenario, event)}" for event in those[:10]]
            named = f" for {', '.join(partitions)}" if partitions else ""
            self._false(
                f"not {verb}{named}", _instead([event.partition or "" for event in those]), why, since, partitions
            )

    def _never_overlapped(self, runs: Sequence[Run], same_partition: bool, since: Mark | None) -> None:
        """No two of these runs were under way at the same time, or none for the same partition."""
        pairs = overlapping(runs, self._scenario.timeline, same_partition, since)
        if pairs:
            which = " for the same partition" if same_partition and any(run.partitions for run in runs) else ""
            why = [f"  {_while(one, self._scenario)}, and {_while(other, self._scenario)}" for one, other in pairs[:10]]
            times = "" if len(pairs) == 1 else f", {len(pairs)} pairs of runs"
            about = About(self._names, runs=frozenset(run.number for pair in pairs[:10] for run in pair))
            want = f"{self._subject} to be never under way twice at once{which}"
            raise AssertionError(_explain(self._scenario, want, f"it was{times}", why, since, about))

    def _false(
        self, expected: str, instead: str, why: list[str], since: Mark | None, partitions: Sequence[str] = ()
    ) -> None:
        about = About(self._names, frozenset(partitions))
        raise AssertionError(_explain(self._scenario, f"{self._subject} to be {expected}", instead, why, since, about))


@dataclass(frozen=True)
class Count:
    """How many are expected, in which order, and from when on."""

    times: int | None = None
    since: Mark | None = None
    in_any_order: bool = False
    at_least: bool = False

    def has(self, expected: Sequence[str], found: Sequence[str]) -> bool:
        """Whether what was found is what was expected."""
        if self.at_least and self.in_any_order:
            return not Counter(expected) - Counter(found)
        if self.at_least:
            rest = iter(found)
            return all(partition in rest for partition in expected)
        return sorted(found) == sorted(expected) if self.in_any_order else list(found) == list(expected)

    def is_enough(self, number: int) -> bool:
        """Whether so many are as many as expected; without a number, one is enough."""
        if self.times is None:
            return number > 0
        return number >= self.times if self.at_least else number == self.times

    def number(self) -> str:
        """What is_enough asks for, in words."""
        return f"at least {_times(self.times or 1)}" if self.at_least else _times(self.times or 0)

    def wanted(self, partitions: Sequence[str]) -> str:
        """What `has` asks for, in words."""
        order = "in any order" if self.in_any_order else "in this order"
        notes = [*(["at least"] if self.at_least else []), *([order] if len(partitions) > 1 else [])]
        return ", ".join(partitions) + (f" ({', '.join(notes)})" if notes else "")


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
    ) -> "Requested":
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
            return [*self._why(expected, found, since), *self._who_requested(_too_much(expected, found), events)]

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
    ) -> "Requested":
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
    ) -> "Requested":
        """Runs of it were requested for exactly these partitions, whatever came of them; as in `materialized`."""
        self._scenario.check_partitions(self._asset, partitions)
        count = Count(times, since, in_any_order, at_least)
        events = self._requests(since)

        def why(expected: Sequence[str], found: Sequence[str]) -> list[str]:
            return [*self._why(expected, found, since), *self._who_requested(_too_much(expected, found), events)]

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
            others = [run for run in runs if run.which in _too_much(partitions, found)]
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
        return [
            f"  {_requested_by(self._scenario, event)}" for event in events if (event.partition or "") in partitions
        ]

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


class Requested:
    """What was expected and has happened, and by which run; says who requested the runs."""

    def __init__(
        self,
        scenario: "Scenario",
        what: str,
        happened: Sequence[tuple[str, Run | None]],
        since: Mark | None,
        names: frozenset[str] = frozenset(),
    ) -> None:
        """names: of what has happened, as the timeline has them."""
        self._scenario, self._what, self._happened, self._since = scenario, what, happened, since
        self._names = names

    def by_sensor(self, name: str = "") -> "Requested":
        """Each by a run that a sensor requested, this one if it is named."""
        return self._by("sensor", name)

    def by_schedule(self, name: str = "") -> "Requested":
        """Each by a run that a schedule requested."""
        return self._by("schedule", name)

    def by_automation(self, name: str = "") -> "Requested":
        """Each by a run, or a backfill, that an automation condition requested; `name` is its sensor's."""
        return self._by("automation", name)

    def by_backfill(self) -> "Requested":
        """Each by a run of a backfill."""
        return self._by("backfill", "")

    def by_retry(self) -> "Requested":
        """Each by a run that repeats one that failed."""
        return self._by("retry", "")

    def by_hand(self) -> "Requested":
        """Each by a run that the scenario requested itself."""
        return self._by("hand", "")

    def requested_at(self, *moments: datetime | str) -> "Requested":
        """Each by a run that was requested at this time; of several times, each at its own, in this order."""
        clock = self._scenario.clock
        at = [clock.parse(moment) for moment in moments]
        if len(at) not in (1, len(self._happened)):
            raise ScenarioError(f"{len(self._happened)} runs and {len(at)} times: give one for all, or one for each")
        pairs = zip(self._happened, at if len(at) > 1 else at * len(self._happened), strict=True)
        others = [
            (what, run)
            for (what, run), moment in pairs
            if run is None or run.requested.timestamp() != moment.timestamp()
        ]
        return self._all(f"at {', '.join(clock.show(moment) for moment in at)}", others)

    def requested_within(self, **duration: float) -> "Requested":
        """Each by a run that was requested at most so long after the mark of the expectation: `minutes=10`."""
        if self._since is None:
            raise ScenarioError(
                "requested_within(...) counts from a mark: expect(...).requested(..., since=scenario.mark())"
            )
        length, clock = delta(**duration), self._scenario.clock
        end = self._since.at.timestamp() + length.total_seconds()
        others = [(what, run) for what, run in self._happened if run is None or run.requested.timestamp() > end]
        until = clock.show(datetime.fromtimestamp(end, timezone.utc))
        return self._all(f"within {timeline_.lateness(length)}, until {until}", others)

    def _all(self, how: str, others: Sequence[tuple[str, Run | None]]) -> "Requested":
        if others:
            what = self._what if self._what.endswith("requested") else f"{self._what} by a run requested"
            instead = "1 was not" if len(others) == 1 else f"{len(others)} were not"
            those = [(f"run {run.number} at {run.requested:%Y-%m-%d %H:%M:%S}" if run else w, run) for w, run in others]
            self._false(f"{what} {how}", instead, those)
        return self

    def with_tags(self, **tags: str) -> "Requested":
        """Each by a run that has these tags; a name with a slash is given as `**{"team/name": "sales"}`."""
        others = [(what, run) for what, run in self._happened if not run or not tags.items() <= run.tags.items()]
        if others:
            lines = [(f"{what}, with {_shown(run.tags, tags) if run else 'no tags'}", None) for what, run in others]
            self._false(f"{self._what} with the tags {_pairs(tags)}", f"{len(others)} were not", lines)
        return self

    def with_config(self, config: Mapping[str, Any]) -> "Requested":
        """Each by a run whose config has this; what else it has is of no interest."""
        others = [(what, run) for what, run in self._happened if not run or not _has(run.config, config)]
        if others:
            lines = [(f"{what}, with {run.config if run else 'no config'}", None) for what, run in others]
            self._false(f"{self._what} with the config {dict(config)}", f"{len(others)} were not", lines)
        return self

    def nothing_else(self) -> "Requested":
        """No other run was requested; look from the mark of the expectation on."""
        numbers = {run.number for _, run in self._happened if run}
        requested = [e for e in self._scenario.timeline.since(self._since) if e.kind == timeline_.REQUESTED]
        others = [self._scenario.timeline.run(e.run) for e in requested if e.run and e.run not in numbers]
        if others:
            instead = f"{len(others)} other run{'s were' if len(others) > 1 else ' was'} requested"
            self._false(f"{self._what} and nothing else", instead, [(str(run), run) for run in others])
        return self

    def in_one_run(self) -> "Requested":
        """All by the same run."""
        runs = {run.number if run else 0 for _, run in self._happened}
        if len(runs) > 1:
            self._false(f"{self._what} in one run", f"it took {len(runs)}", self._happened)
        return self

    def _by(self, kind: str, name: str) -> "Requested":
        if name:
            known = {known for _, known, _ in self._scenario.timeline.instigators.values()}
            if name not in known:
                raise unknown(kind if kind != "automation" else "automation sensor", name, known)
        others = [
            (what, run)
            for what, run in self._happened
            if not any(cause.kind == kind and name in ("", cause.name) for cause in (run.causes if run else ()))
        ]
        if others:
            self._false(f"{self._what} by {kind}{f' {name}' if name else ''}", f"{len(others)} were not", others)
        return self

    def _false(self, expected: str, instead: str, those: Sequence[tuple[str, Run | None]]) -> None:
        why = [f"  {what}" + (f", requested {_list(run.causes)}" if run else "") for what, run in those[:10]]
        about = About(self._names, runs=frozenset(run.number for _, run in those if run))
        raise AssertionError(_explain(self._scenario, expected, instead, why, self._since, about))


class InstigatorExpectation(Expectation):
    """What is expected of a sensor or a schedule."""

    def __init__(self, scenario: "Scenario", kind: str, name: str) -> None:
        super().__init__(scenario, f"{kind} {name}", name)
        self._kind, self._name = kind, name

    def requested(
        self,
        *partitions: str,
        times: int | None = None,
        since: Mark | None = None,
        in_any_order: bool = False,
        at_least: bool = False,
    ) -> "Requested":
        """It has requested runs for exactly these partitions, in this order; or so many runs, at least one for None."""
        count = Count(times, since, in_any_order, at_least)
        runs = [(event, self._scenario.timeline.run(event.run)) for event in self._requests(since) if event.run]
        events = [replace(event, partition=run.which or None) for event, run in runs]
        found = [event.partition or "" for event in events]
        if partitions and not count.has(partitions, found):
            self._tell(f"request runs for {count.wanted(partitions)}", self._instead(runs), since)
        elif not partitions and not count.is_enough(len(runs)):
            number = "a run" if times is None else f"{'at least ' if at_least else ''}{times} runs"
            self._tell(f"request {number}", self._instead(runs), since)
        happened = [(str(run), run) for _, run in runs]
        what = f"runs of {self._subject} to be requested"
        return Requested(self._scenario, what, happened, since, self._names)

    def not_requested(self, *, since: Mark | None = None) -> None:
        """It has requested no run."""
        runs = [(event, self._scenario.timeline.run(event.run)) for event in self._requests(since) if event.run]
        if runs:
            self._tell("request no run", self._instead(runs), since)

    def failed(self, error: str = "") -> None:
        """Its last tick failed; `error` is part of what it said."""
        looking = self._looking()
        if looking is None or not looking.error:
            self._tell("fail", "it has not looked yet" if looking is None else "its last tick did not fail", None)
        elif error not in looking.error:
            self._tell(f"fail with {error!r}", f"it failed with {looking.error!r}", None)

    def off(self) -> None:
        """It is switched off."""
        if not self._scenario.is_off(self._name):
            self._false("off", "it is on", [], None)

    def _requests(self, since: Mark | None) -> list[Event]:
        kinds = ("sensor", "automation") if self._kind == "sensor" else (self._kind,)
        return [
            event
            for event in self._scenario.timeline.since(since)
            if event.kind == timeline_.REQUESTED
            and any(cause.kind in kinds and cause.name == self._name for cause in event.causes)
        ]

    def _instead(self, runs: Sequence[tuple[Event, Run]]) -> str:
        return f"it has requested {', '.join(str(run) for _, run in runs)}" if runs else "it has requested none"

    def _looking(self) -> timeline_.Looking | None:
        looks = [look for look in self._scenario.timeline.looking.values() if look.name == self._name]
        return max(looks, key=lambda look: look.last) if looks else None

    def _tell(self, expected: str, instead: str, since: Mark | None) -> None:
        looking = self._looking()
        why = [f"  {line}" for line in outcomes.of_ticks(looking)] if looking else ["  it has not looked yet"]
        if self._scenario.is_off(self._name):
            why.append(f"  it is switched off; scenario.turn_on({self._name!r}) turns it on")
        about = About(self._names)
        raise AssertionError(_explain(self._scenario, f"{self._subject} to {expected}", instead, why, since, about))


class ScheduleExpectation(InstigatorExpectation):
    """What is expected of one schedule: `scenario.expect_schedule('nightly')`."""

    def __init__(self, scenario: "Scenario", name: str) -> None:
        super().__init__(scenario, "schedule", name)

    def ticked(self, *moments: Any, since: Mark | None = None) -> None:
        """It has ticked at exactly these times, or at any time."""
        looking = self._looking()
        clock = self._scenario.clock
        ticks = [tick for tick in (looking.ticks if looking else ()) if since is None or tick >= since.at]
        wanted = [clock.parse(moment).timestamp() for moment in moments]
        if not ticks or (moments and [tick.timestamp() for tick in ticks] != wanted):
            named = f" at {', '.join(clock.show(clock.parse(moment)) for moment in moments)}" if moments else ""
            shown = ", ".join(f"{tick:%Y-%m-%d %H:%M:%S}" for tick in ticks[-20:])
            self._tell(f"tick{named}", f"it has ticked at {shown}" if shown else "it has not ticked", since)

    def skipped(self, *, because: str = "") -> None:
        """Its last tick requested nothing; `because` is part of its reason."""
        looking = self._looking()
        if looking is None or looking.idle_since is None or looking.error:
            instead = "it has not ticked yet" if looking is None else looking.error or "its last tick requested runs"
            self._tell("skip", instead, None)
        elif because not in looking.reason:
            self._tell(f"skip because of {because!r}", f"it gave as its reason {looking.reason!r}", None)


class SensorExpectation(InstigatorExpectation):
    """What is expected of one sensor: `scenario.expect_sensor('new_files')`."""

    def __init__(self, scenario: "Scenario", name: str) -> None:
        super().__init__(scenario, "sensor", name)

    def waiting(self, *, since: Any = None, because: str = "") -> None:
        """Its last tick found nothing to do. since: so has every tick since this time. because: part of its reason."""
        looking = self._looking()
        if looking is None or looking.idle_since is None or looking.error:
            instead = "it has not looked yet" if looking is None else looking.error or "its last tick requested runs"
            self._tell("be waiting", instead, None)
            return
        began = looking.idle_since
        clock = self._scenario.clock
        if since is not None and began.timestamp() != clock.parse(since).timestamp():
            self._false(
                f"waiting since {clock.show(clock.parse(since))}",
                f"it has been waiting since {began:%Y-%m-%d %H:%M:%S} ({looking.reason or 'no reason given'})",
                [],
                None,
            )
        if because not in looking.reason:
            self._false(f"waiting because of {because!r}", f"it gave as its reason {looking.reason!r}", [], None)


class RunsExpectation:
    """What is expected of the runs, or of those of one job: `scenario.expect_runs()`."""

    def __init__(self, scenario: "Scenario", since: Mark | None, job: str | None) -> None:
        self._scenario, self._since, self._job = scenario, since, job

    def count(self, number: int, *, at_least: bool = False) -> "Requested":
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
            raise AssertionError(_explain(self._scenario, want, f"{len(runs)} did", why, self._since, about))

    def _runs(self, chosen: Callable[[Run], bool]) -> list[Run]:
        numbers = {event.run for event in self._scenario.timeline.since(self._since) if event.run}
        runs = [run for run in self._scenario.timeline.runs.values() if self._job in (None, run.job)]
        return [run for run in runs if run.number in numbers and chosen(run)]

    def _false(self, expected: str, instead: str, runs: list[Run]) -> None:
        why = [f"  {line}" for line in outcomes.of_runs(self._scenario, runs[:20])]
        want = f"runs{f' of {self._job}' if self._job else ''}: {expected}"
        about = About(frozenset({self._job} if self._job else ()), runs=frozenset(run.number for run in runs[:20]))
        raise AssertionError(_explain(self._scenario, want, instead, why, self._since, about))


def _while(run: Run, scenario: "Scenario") -> str:
    ended = end_of(run, scenario.timeline)
    return f"{run} from {run.started:%Y-%m-%d %H:%M:%S} {f'to {ended:%Y-%m-%d %H:%M:%S}' if ended else 'on'}"


def _too_much(expected: Sequence[str], found: Sequence[str]) -> list[str]:
    """What was found more often than expected; nothing where anything was expected."""
    return [key for key in dict.fromkeys(found) if expected and found.count(key) > expected.count(key)]


def _no_reasons(expected: Sequence[str], found: Sequence[str]) -> list[str]:
    return []


def _has(config: Any, wanted: Any) -> bool:
    """Whether a config has what is wanted, at any depth."""
    if isinstance(wanted, Mapping) and isinstance(config, Mapping):
        return all(key in config and _has(config[key], value) for key, value in wanted.items())
    return bool(config == wanted)


def _pairs(tags: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in tags.items())


def _shown(tags: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """Of the tags of a run those that were asked for, and those that are not Dagster's own."""
    named = {key: value for key, value in tags.items() if key in wanted or not key.startswith((".dagster", "dagster/"))}
    return _pairs(named) or "none of them"


def _explain(
    scenario: "Scenario", expected: str, instead: str, why: list[str], since: Mark | None, about: About
) -> str:
    shown = scenario.timeline.shortened(since, about=about)
    return "\n".join(
        [
            f"expected {expected}{f' since {since}' if since else ''}, but {instead}",
            *why,
            f"timeline{' since then' if since else ''}, until {scenario.now:%Y-%m-%d %H:%M:%S}:",
            *(f"  {line}" for line in shown or ["nothing happened"]),
        ]
    )


def _instead(partitions: list[str]) -> str:
    if not partitions:
        return "it was not"
    named = [partition for partition in partitions if partition]
    return f"it was for {', '.join(named)}" if named else f"it was {_times(len(partitions))}"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def _list(causes: Sequence[Any]) -> str:
    return " and ".join(str(cause) for cause in causes)


def _where(event: Event) -> str:
    what = f"{event.partition}: " if event.partition else ""
    return f"{what}{f'run {event.run}' if event.run else 'without a run'} at {event.at:%Y-%m-%d %H:%M:%S}"


def _requested_by(scenario: "Scenario", event: Event) -> str:
    requested = f", requested {_list(scenario.timeline.run(event.run).causes)}" if event.run else ""
    return f"{_where(event)}{requested}"
