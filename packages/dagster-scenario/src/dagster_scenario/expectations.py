"""What a test expects, in sentences that explain themselves when they are false.

Every expectation raises AssertionError with what was expected, what happened instead, why as far as Dagster tells,
and the timeline since the mark.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from dagster_scenario import timeline as timeline_
from dagster_scenario.errors import ScenarioError, unknown
from dagster_scenario.overlaps import end_of, overlapping
from dagster_scenario.runs import delta
from dagster_scenario.shortening import About
from dagster_scenario.timeline import Event, Mark, Run

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
                [*partitions, *too_much(partitions, found)[:10]],
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
            why = [f"  {requested_by(self._scenario, event)}" for event in those[:10]]
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
            raise AssertionError(explain(self._scenario, want, f"it was{times}", why, since, about))

    def _false(
        self, expected: str, instead: str, why: list[str], since: Mark | None, partitions: Sequence[str] = ()
    ) -> None:
        about = About(self._names, frozenset(partitions))
        raise AssertionError(explain(self._scenario, f"{self._subject} to be {expected}", instead, why, since, about))


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
        raise AssertionError(explain(self._scenario, expected, instead, why, self._since, about))


def _while(run: Run, scenario: "Scenario") -> str:
    ended = end_of(run, scenario.timeline)
    return f"{run} from {run.started:%Y-%m-%d %H:%M:%S} {f'to {ended:%Y-%m-%d %H:%M:%S}' if ended else 'on'}"


def too_much(expected: Sequence[str], found: Sequence[str]) -> list[str]:
    """What was found more often than expected; nothing where anything was expected."""
    return [key for key in dict.fromkeys(found) if expected and found.count(key) > expected.count(key)]


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


def explain(scenario: "Scenario", expected: str, instead: str, why: list[str], since: Mark | None, about: About) -> str:
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


def requested_by(scenario: "Scenario", event: Event) -> str:
    requested = f", requested {_list(scenario.timeline.run(event.run).causes)}" if event.run else ""
    return f"{_where(event)}{requested}"
