"""What a test expects of sensors and schedules, in the sentences of `expectations`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dagster_scenario import outcomes
from dagster_scenario import timeline as timeline_
from dagster_scenario.expectations import Count, Expectation, Requested, explain
from dagster_scenario.shortening import About
from dagster_scenario.timeline import Event, Mark, Run

if TYPE_CHECKING:
    from dagster_scenario.scenario import Scenario

# pytest shows the test's line, not the lines here.
__tracebackhide__ = True


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
    ) -> Requested:
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
        raise AssertionError(explain(self._scenario, f"{self._subject} to {expected}", instead, why, since, about))


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
