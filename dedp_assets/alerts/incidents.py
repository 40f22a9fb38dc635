"""The rule of the alerts: from what is wrong now and the incidents so far to messages and the incidents from now on.

Nothing here reads a clock, a table or a setting.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal, TypeAlias

from dedp_assets.notifications.notification import Severity
from dedp_assets.wording import counted, duration

State: TypeAlias = Literal["suspected", "open", "over"]

# How long a problem has to be gone before people are told that it is over. The time doubles with each return of the
# problem, up to the longest one: a problem that comes and goes is one incident.
QUIET_SECONDS = 60.0
LONGEST_QUIET_SECONDS = 3600.0
# How long an incident that is over is remembered. A problem that returns in this time counts as returned.
MEMORY_SECONDS = 3600.0

# A message that lists every problem would be too long to read.
_NAMED = 20


@dataclass(frozen=True)
class Problem:
    """Something that is wrong now.

    Attributes:
        key: identifies the problem as long as it lasts, such as `run/devices_raw/2024-01-02`.
        kind: what kind of problem it is, such as `run`. What was not looked at, is named by its kind.
        group: what is told in one message, such as `run/devices_raw`.
        headline: what the problems of the group have in common: one line, without names of partitions.
        what: what is wrong: one line.
        action: what to do.
        severity: how urgent it is.
        wait: how long it has to last before people are told, in s.
        run_id: the run that it is about, or "".
    """

    key: str
    kind: str
    group: str
    headline: str
    what: str
    action: str
    severity: Severity = "error"
    wait: float = 0.0
    run_id: str = ""


@dataclass(frozen=True)
class Incident:
    """A problem over time. Times are in s since the epoch.

    Attributes:
        problem: the problem, as it was seen when people were told, or first.
        state: `suspected`: people do not know of it yet; `open`: they do; `over`: they know that it is over.
        since: when the problem was first seen.
        gone_at: since when it has not been seen any more; None if it is there.
        returns: how often it has returned.
    """

    problem: Problem
    state: State
    since: float
    gone_at: float | None = None
    returns: int = 0

    @property
    def quiet_seconds(self) -> float:
        """How long the problem has to be gone, until the incident is over."""
        return min(QUIET_SECONDS * 2.0 ** min(self.returns, 10), LONGEST_QUIET_SECONDS)


@dataclass(frozen=True)
class Message:
    """A message about incidents. `key` identifies it for ever."""

    key: str
    subject: str
    text: str
    severity: Severity


@dataclass(frozen=True)
class Decision:
    """What to tell people now, and the incidents from now on, by the keys of their problems."""

    messages: list[Message]
    incidents: dict[str, Incident]


def decide(
    problems: Iterable[Problem], incidents: Mapping[str, Incident], now: float, unseen: Collection[str] = ()
) -> Decision:
    """Compare what is wrong now with the incidents so far.

    People are told once when a problem has lasted for its `wait`, and once when it has been gone for a while. A problem
    that is gone before they are told is forgotten. Problems of a group that begin or end together share a message.

    Args:
        problems: what is wrong now.
        incidents: the incidents so far, by the keys of their problems.
        now: in s since the epoch.
        unseen: the kinds of problems that could not be looked at. Their incidents stay as they are.
    """
    here = {problem.key: problem for problem in problems}
    after: dict[str, Incident] = {}
    opened: list[Incident] = []
    ended: list[Incident] = []
    for key in sorted({*here, *incidents}):
        before, problem = incidents.get(key), here.get(key)
        incident: Incident | None
        if problem is not None:
            incident = _seen(problem, before, now)
            if incident.state == "suspected" and now - incident.since >= problem.wait:
                incident = replace(incident, state="open")
                opened.append(incident)
        elif before is None or before.problem.kind in unseen:
            incident = before
        else:
            incident = _not_seen(before, now)
            if incident is not None and incident.state == "over" and before.state == "open":
                ended.append(incident)
        if incident is not None:
            after[key] = incident
    return Decision([*_messages("over", ended, now), *_messages("opened", opened, now)], after)


def _seen(problem: Problem, before: Incident | None, now: float) -> Incident:
    if before is None:
        return Incident(problem, "suspected", now)
    if before.state == "over":
        return Incident(problem, "suspected", now, returns=before.returns + 1)
    if before.state == "suspected":
        return replace(before, problem=problem, since=min(before.since, now))  # the clock may have been set back
    # Only what interrupts the end of an incident counts: a problem that just lasts does not return.
    return replace(before, gone_at=None, returns=before.returns + (before.gone_at is not None))


def _not_seen(before: Incident, now: float) -> Incident | None:
    if before.state == "suspected":
        return replace(before, state="over", gone_at=now) if before.returns else None
    gone_at = now if before.gone_at is None else min(before.gone_at, now)
    if before.state == "over":
        return before if now - gone_at < MEMORY_SECONDS else None
    is_over = now - gone_at >= before.quiet_seconds
    return replace(before, state="over" if is_over else "open", gone_at=gone_at)


def _messages(what: Literal["opened", "over"], incidents: Sequence[Incident], now: float) -> list[Message]:
    def group_of(incident: Incident) -> str:
        return incident.problem.group

    write = _opening if what == "opened" else _ending
    return [
        write(f"alert/{group}/{what}/{now:.3f}", list(members))
        for group, members in groupby(sorted(incidents, key=group_of), key=group_of)
    ]


def _opening(key: str, incidents: Sequence[Incident]) -> Message:
    first = incidents[0].problem
    again = "Again: " if all(incident.returns for incident in incidents) else ""
    severity = max((incident.problem.severity for incident in incidents), key=("info", "warning", "error").index)
    if len(incidents) == 1:
        return Message(key, f"{again}{first.headline}", f"{first.what}\n\nWhat to do: {first.action}", severity)
    lines = _listed([incident.problem.what for incident in incidents])
    actions = "\n".join(dict.fromkeys(incident.problem.action for incident in incidents))
    subject = f"{again}{first.headline} ({counted(len(incidents), 'problem')})"
    return Message(key, subject, f"{lines}\n\nWhat to do: {actions}", severity)


def _ending(key: str, incidents: Sequence[Incident]) -> Message:
    first = incidents[0].problem
    number = f" ({counted(len(incidents), 'problem')})" if len(incidents) > 1 else ""
    # An incident that is over has `gone_at`.
    said = [
        f"{each.problem.what.rstrip('.')}. It lasted {duration((each.gone_at or each.since) - each.since)}."
        for each in incidents
    ]
    return Message(
        key,
        f"Over: {first.headline}{number}",
        f"This is over. It was:\n{_listed(said)}\n\nThere is nothing to do.",
        "info",
    )


def _listed(lines: Sequence[str]) -> str:
    more = [f"- and {len(lines) - _NAMED:,} more"] if len(lines) > _NAMED else []
    return "\n".join([*(f"- {line}" for line in lines[:_NAMED]), *more]) if len(lines) > 1 else lines[0]
