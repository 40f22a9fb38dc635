"""What a test expects, in sentences that explain themselves when they are false.

Every expectation raises AssertionError with what was expected, what happened instead, why as far as Dagster tells,
and the timeline since the mark.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dagster_scenario import timeline as timeline_
from dagster_scenario.errors import ScenarioError, unknown
from dagster_scenario.locations import Asset
from dagster_scenario.timeline import Event, Mark, Run, between

if TYPE_CHECKING:
    from dagster_scenario.scenario import Scenario


# pytest shows the test's line, not the lines here.
__tracebackhide__ = True


class AssetExpectation:
    """What is expected of one asset: `scenario.expect('orders')`."""

    def __init__(self, scenario: "Scenario", asset: Asset) -> None:
        self._scenario, self._asset = scenario, asset

    def materialized(
        self, *partitions: str, times: int | None = None, since: Mark | None = None, in_any_order: bool = False
    ) -> "Requested":
        """It was materialized for exactly these partitions, in this order, a partition as often as it is named.

        Without partitions: it was materialized `times` times, at least once for None. since: look from this mark on.
        """
        self._scenario.check_partitions(self._asset, partitions)
        if partitions and times is not None:
            raise ScenarioError("name the partitions, each as often as expected, or give times=, not both")
        events = self._events(timeline_.MATERIALIZED, since)
        found = [event.partition or "" for event in events]
        if partitions:
            expected, same = list(partitions), found == list(partitions)
            if in_any_order:
                same = sorted(found) == sorted(partitions)
            if not same:
                order = "in any order" if in_any_order else "in this order"
                want = f"materialized for {', '.join(expected)}{f' ({order})' if len(expected) > 1 else ''}"
                self._false(want, _instead(found), self._why(expected, found, since), since)
        elif times is None and not found:
            self._false("materialized", "it was not", self._why([], [], since), since)
        elif times is not None and len(found) != times:
            self._false(f"materialized {_times(times)}", _instead(found), self._why([], found, since), since)
        runs = [self._scenario.timeline.run(event.run) if event.run else None for event in events]
        happened = [(_where(event), run) for event, run in zip(events, runs, strict=True)]
        return Requested(self._scenario, f"{self._asset.name} to be materialized", happened, since)

    def not_materialized(self, *partitions: str, since: Mark | None = None) -> None:
        """It was not materialized, for none of these partitions, or not at all."""
        self._scenario.check_partitions(self._asset, partitions)
        events = [e for e in self._events(timeline_.MATERIALIZED, since) if not partitions or e.partition in partitions]
        if events:
            why = [f"  {_requested_by(self._scenario, event)}" for event in events[:10]]
            named = f" for {', '.join(partitions)}" if partitions else ""
            self._false(f"not materialized{named}", _instead([event.partition or "" for event in events]), why, since)

    def failed(self, *partitions: str, since: Mark | None = None, error: str = "") -> None:
        """Its runs for exactly these partitions failed, in this order; `error` is part of what each of them said."""
        self._scenario.check_partitions(self._asset, partitions)
        runs = [run for run in self._runs(since) if run.status in (timeline_.FAILED, timeline_.KILLED)]
        found = [run.which for run in runs]
        if not runs or (partitions and found != list(partitions)):
            named = f" for {', '.join(partitions)}" if partitions else ""
            instead = f"runs of {', '.join(found)} failed" if found else "no run of it failed"
            self._false(f"failed{named}", instead, [], since)
        for run in runs:
            if error not in run.error:
                self._false(f"failed with {error!r}", f"{run} failed with {run.error!r}", [], since)

    def running(self, *partitions: str) -> None:
        """Runs for exactly these partitions are under way: started and not ended."""
        self._scenario.check_partitions(self._asset, partitions)
        runs = [run for run in self._runs(None) if run.status == timeline_.STARTED]
        found = [run.which for run in runs]
        if not runs or (partitions and found != list(partitions)):
            named = f" for {', '.join(partitions)}" if partitions else ""
            self._false(f"running{named}", f"running are {', '.join(found)}" if found else "it is not", [], None)

    def _events(self, kind: str, since: Mark | None) -> list[Event]:
        events = self._scenario.timeline.since(since)
        return [event for event in events if event.kind == kind and event.asset == self._asset.name]

    def _runs(self, since: Mark | None) -> list[Run]:
        numbers = {event.run for event in self._scenario.timeline.since(since) if event.run}
        runs = self._scenario.timeline.runs.values()
        return [run for run in runs if run.number in numbers and self._asset.name in run.assets]

    def _why(self, expected: Sequence[str], found: Sequence[str], since: Mark | None) -> list[str]:
        """What is known of each partition that is missing or too much."""
        lines = []
        missing: list[str | None] = [p for p in dict.fromkeys(expected) if found.count(p) < expected.count(p)]
        if not expected and not found:
            missing = [None]
        unrequested = []
        for partition in missing:
            runs = [run for run in self._runs(since) if run.covers(partition)]
            name = f"{partition}: " if partition else ""
            for run in runs:
                state = f"{run.status}: {run.error}" if run.error else run.status
                lines.append(f"  {name}run {run.number}, requested {_list(run.causes)}, {state}")
                lines += [f"    {line}" for line in run.trace]
            if not runs:
                unrequested.append(partition)
        if unrequested:
            named = ", ".join(partition for partition in unrequested if partition)
            lines.append(f"  no run was requested{f' for {named}' if named else ''}")
            lines += [f"  {line}" for line in self._looks()]
            since_when = since.at if since else None
            reasons = self._scenario.evaluations.explain(self._asset.name, unrequested[0], since_when)
            lines += [f"  {line}" for line in reasons]
        for event in self._events(timeline_.MATERIALIZED, since):
            if expected and found.count(event.partition or "") > expected.count(event.partition or ""):
                lines.append(f"  {_requested_by(self._scenario, event)}")
        return list(dict.fromkeys(lines))

    def _looks(self) -> list[str]:
        """What the sensors and schedules of its location last said, and which of them are off."""
        looks = [look for look in self._scenario.timeline.looking.values() if look.location == self._asset.location]
        lines = [line for look in looks for line in _said(look)]
        off = self._scenario.switched_off(self._asset.location)
        if not lines:
            lines.append("no sensor or schedule of its code location has looked yet")
        if off:
            lines.append(f"switched off: {', '.join(off)}; scenario.turn_on() turns everything on")
        return lines

    def _false(self, expected: str, instead: str, why: list[str], since: Mark | None) -> None:
        raise AssertionError(_explain(self._scenario, f"{self._asset.name} to be {expected}", instead, why, since))


class Requested:
    """What was expected and has happened, and by which run; says who requested the runs."""

    def __init__(
        self, scenario: "Scenario", what: str, happened: list[tuple[str, Run | None]], since: Mark | None
    ) -> None:
        self._scenario, self._what, self._happened, self._since = scenario, what, happened, since

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

    def _false(self, expected: str, instead: str, those: list[tuple[str, Run | None]]) -> None:
        why = [f"  {what}" + (f", requested {_list(run.causes)}" if run else "") for what, run in those[:10]]
        raise AssertionError(_explain(self._scenario, expected, instead, why, self._since))


class SensorExpectation:
    """What is expected of one sensor: `scenario.expect_sensor('new_files')`."""

    def __init__(self, scenario: "Scenario", name: str) -> None:
        self._scenario, self._name = scenario, name

    def waiting(self, *, since: Any = None, because: str = "") -> None:
        """Its last tick found nothing to do. since: so has every tick since this time. because: part of its reason."""
        looking = self._looking()
        if looking is None or looking.idle_since is None or looking.error:
            instead = "it has not looked yet" if looking is None else looking.error or "its last tick requested runs"
            self._false("waiting", instead)
            return
        began = looking.idle_since
        clock = self._scenario.clock
        if since is not None and began.timestamp() != clock.parse(since).timestamp():
            self._false(
                f"waiting since {clock.show(clock.parse(since))}",
                f"it has been waiting since {began:%Y-%m-%d %H:%M:%S} ({looking.reason or 'no reason given'})",
            )
        if because not in looking.reason:
            self._false(f"waiting because of {because!r}", f"it gave as its reason {looking.reason!r}")

    def failed(self, error: str = "") -> None:
        """Its last tick failed; `error` is part of what it said."""
        looking = self._looking()
        if looking is None or not looking.error:
            self._false("failing", "it has not looked yet" if looking is None else "its last tick did not fail")
        elif error not in looking.error:
            self._false(f"failing with {error!r}", f"it failed with {looking.error!r}")

    def _looking(self) -> timeline_.Looking | None:
        looks = [look for look in self._scenario.timeline.looking.values() if look.name == self._name]
        return max(looks, key=lambda look: look.last) if looks else None

    def _false(self, expected: str, instead: str) -> None:
        raise AssertionError(_explain(self._scenario, f"sensor {self._name} to be {expected}", instead, [], None))


class RunsExpectation:
    """What is expected of the runs, or of those of one job: `scenario.expect_runs()`."""

    def __init__(self, scenario: "Scenario", since: Mark | None, job: str | None) -> None:
        self._scenario, self._since, self._job = scenario, since, job

    def count(self, number: int) -> "Requested":
        """So many runs were requested."""
        requested = {e.run for e in self._scenario.timeline.since(self._since) if e.kind == timeline_.REQUESTED}
        runs = self._runs(lambda run: run.number in requested)
        if len(runs) != number:
            self._false(f"{number} to be requested", f"{len(runs)} were", runs)
        return Requested(self._scenario, "runs to be requested", [(str(run), run) for run in runs], self._since)

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
            raise AssertionError(_explain(self._scenario, want, f"{len(runs)} did", why, self._since))

    def _runs(self, chosen: Callable[[Run], bool]) -> list[Run]:
        numbers = {event.run for event in self._scenario.timeline.since(self._since) if event.run}
        runs = [run for run in self._scenario.timeline.runs.values() if self._job in (None, run.job)]
        return [run for run in runs if run.number in numbers and chosen(run)]

    def _false(self, expected: str, instead: str, runs: list[Run]) -> None:
        why = []
        for run in runs[:20]:
            why.append(f"  {run}, requested {_list(run.causes)}: {run.status}{f', {run.error}' if run.error else ''}")
            why += [f"    {line}" for line in run.trace]
        raise AssertionError(
            _explain(
                self._scenario, f"runs{f' of {self._job}' if self._job else ''}: {expected}", instead, why, self._since
            )
        )


def _said(look: timeline_.Looking) -> Iterator[str]:
    """What a sensor or schedule said when it last looked, and what it had said before."""
    said = look.error or look.reason or "requested nothing"
    if look.idle_since is None:
        said = "requested something"
    yield f"{look.kind} {look.name} last looked at {look.last:%Y-%m-%d %H:%M:%S}: {said}"
    earlier = [(at, what) for at, what in look.said if what != said]
    yield from (f"  from {at:%Y-%m-%d %H:%M:%S} on: {what}" for at, what in earlier[-3:])


def _explain(scenario: "Scenario", expected: str, instead: str, why: list[str], since: Mark | None) -> str:
    shown = scenario.timeline.shortened(since)
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
