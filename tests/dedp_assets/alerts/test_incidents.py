"""People are told of a problem once, and once when it is over: whatever comes and goes, and whoever is restarted."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedp_assets.alerts.incidents import (
    LONGEST_QUIET_SECONDS,
    MEMORY_SECONDS,
    QUIET_SECONDS,
    Decision,
    Incident,
    Problem,
    State,
    decide,
)

EVERY = 15.0


def problem(key: str = "run/raw/2024-01-02", wait: float = 0.0, kind: str = "run") -> Problem:
    group = key.rpartition("/")[0]
    return Problem(key, kind, group, f"{group} failed", f"{key} failed.", "Mend it.", "error", wait)


def play(looks: Sequence[Sequence[Problem]], every: float = EVERY) -> list[tuple[int, str]]:
    """Looks one after the other. Returns the subject of each message, with the number of its look."""
    incidents: dict[str, Incident] = {}
    said = []
    for number, problems in enumerate(looks):
        decision = decide(problems, incidents, number * every)
        incidents = stored(decision)
        said += [(number, message.subject) for message in decision.messages]
    return said


def stored(decision: Decision) -> dict[str, Incident]:
    """The incidents, as another process reads them."""
    text = json.dumps({key: asdict(each) for key, each in decision.incidents.items()})
    return {key: Incident(**{**each, "problem": Problem(**each["problem"])}) for key, each in json.loads(text).items()}


def test_a_problem_that_lasts_is_told_once_and_its_end_once() -> None:
    assert play([[problem()]] * 50 + [[]] * 50) == [(0, "run/raw failed"), (54, "Over: run/raw failed")]


def test_what_to_do_is_in_the_message() -> None:
    (message,) = decide([problem()], {}, 0).messages
    assert "What to do: Mend it." in message.text


def test_a_problem_that_has_to_last_is_not_told_if_it_passes() -> None:
    short = problem(wait=60)
    assert play([[short]] * 4 + [[]] * 20) == []
    assert play([[short]] * 5) == [(4, "run/raw failed")]


def test_a_problem_that_is_gone_for_a_moment_is_the_same_incident() -> None:
    looks = [[problem()]] * 5 + [[]] * 2 + [[problem()]] * 5
    assert play(looks) == [(0, "run/raw failed")]


def test_a_problem_that_comes_and_goes_becomes_one_incident() -> None:
    # Here for a minute and gone for five: longer than the first pauses, shorter than the later ones.
    looks = ([[problem()]] * 4 + [[]] * 20) * 100
    said = play(looks)
    assert len(said) < 10
    assert all(number < 250 for number, _ in said)  # later, nothing more
    assert said[2][1] == "Again: run/raw failed"


def test_the_longest_quiet_is_an_hour() -> None:
    assert Incident(problem(), "open", 0, returns=1000).quiet_seconds == LONGEST_QUIET_SECONDS


def test_a_problem_that_returns_much_later_is_a_new_incident() -> None:
    looks = [[problem()]] + [[]] * int((MEMORY_SECONDS + 2 * QUIET_SECONDS) / EVERY) + [[problem()]]
    assert [subject for _, subject in play(looks)] == ["run/raw failed", "Over: run/raw failed", "run/raw failed"]


def test_problems_of_a_group_share_a_message() -> None:
    many = [problem(f"run/raw/{day}") for day in range(500)]
    decision = decide([*many, problem("run/totals/1")], {}, 0)
    assert [message.subject for message in decision.messages] == ["run/raw failed (500 problems)", "run/totals failed"]
    assert "and 480 more" in decision.messages[0].text
    assert decision.messages[0].text.count("\n") < 30


def test_a_new_problem_of_a_group_is_told_while_another_one_lasts() -> None:
    old, new = problem("run/raw/1"), problem("run/raw/2")
    assert play([[old]] * 5 + [[old, new]] * 5) == [(0, "run/raw failed"), (5, "run/raw failed")]


def test_what_could_not_be_looked_at_is_not_over() -> None:
    incidents = decide([problem(), problem("queue", kind="time-out")], {}, 0).incidents
    for number in range(1, 100):
        decision = decide([], incidents, number * EVERY, unseen={"run"})
        incidents = decision.incidents
        assert all("run/raw" not in message.subject for message in decision.messages)
    assert incidents["run/raw/2024-01-02"].state == "open"
    assert "queue" not in incidents or incidents["queue"].state == "over"


def test_a_clock_that_was_set_back_delays_no_message_for_ever() -> None:
    waiting = problem(wait=60)
    incidents = decide([waiting], {}, 1e9).incidents
    incidents = decide([waiting], incidents, 0.0).incidents
    assert [message.subject for message in decide([waiting], incidents, 60.0).messages] == ["run/raw failed"]
    incidents = decide([], decide([problem()], {}, 1e9).incidents, 1e9).incidents
    incidents = decide([], incidents, 0.0).incidents
    assert len(decide([], incidents, QUIET_SECONDS).messages) == 1


def test_a_message_is_as_urgent_as_the_worst_of_its_problems() -> None:
    mild = replace(problem("run/raw/1"), severity="warning")
    (message,) = decide([mild, problem("run/raw/2")], {}, 0).messages
    assert message.severity == "error"


LOOKS = st.lists(st.sets(st.sampled_from(["run/a/1", "run/a/2", "tick/b"])), max_size=120)


@given(LOOKS, st.sampled_from([1.0, EVERY, 120.0, 4000.0]))
def test_beginnings_and_ends_alternate_whatever_comes_and_goes(looks: list[set[str]], every: float) -> None:
    incidents: dict[str, Incident] = {}
    keys = []
    told: dict[str, list[str]] = {}
    for number, here in enumerate(looks):
        decision = decide([problem(key) for key in here], incidents, number * every)
        keys += [message.key for message in decision.messages]
        for key in {*incidents, *decision.incidents}:
            before, after = (each[key].state if key in each else "over" for each in (incidents, decision.incidents))
            if "open" in (before, after) and before != after:
                told.setdefault(key, []).append(after)
        open_groups = {each.problem.group for each in decision.incidents.values() if each.state == "open"}
        # Whoever has a problem now is in an incident that people know of.
        assert {problem(key).group for key in here} <= open_groups
        incidents = stored(decision)
    assert all(count == 1 for count in Counter(keys).values())
    for states in told.values():
        assert states == ["open", "over"] * (len(states) // 2) + ["open"] * (len(states) % 2)


@pytest.mark.parametrize("state", get_args(State))
def test_nothing_is_remembered_for_ever(state: State) -> None:
    incidents = {"run/raw/2024-01-02": Incident(problem(), state, 0.0, 0.0 if state == "over" else None)}
    for number in range(1000):
        incidents = decide([], incidents, number * EVERY).incidents
    assert incidents == {}
