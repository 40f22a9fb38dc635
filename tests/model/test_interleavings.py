"""Nothing late is lost and nothing is counted twice, whatever happens in whichever order.

    MODEL_INTERLEAVINGS=10000 python -m pytest -n 2 tests/model

plays that many schedules (some hundred without it). One that breaks something is made as small as it gets, and shown
with what happened in it.
"""

import os
from collections.abc import Iterator

import dagster as dg
import pytest

from tests.model.deployment import AUTOMATION, COMMITS, RECONCILIATION, System, fast_instance
from tests.model.interleavings import BEGUN, CALM, DAYS, ROUGH, Action, Kinds, play, search

_INTERLEAVINGS = int(os.environ.get("MODEL_INTERLEAVINGS", "200"))
_AT_ONCE = 20

INTEGRATOR = System()
CONDITION_ALONE = System(reconciled=False)


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with fast_instance() as instance:
        yield instance


def _survives(system: System, instance: dg.DagsterInstance, kinds: Kinds, first: int) -> None:
    broken = search(system, instance, kinds, range(first, first + _AT_ONCE))
    if broken:
        pytest.fail(str(broken), pytrace=False)


@pytest.mark.parametrize("first", range(0, _INTERLEAVINGS * 4 // 5, _AT_ONCE))
def test_whatever_happens_every_closed_day_equals_a_recount_of_its_input(instance, first):
    _survives(INTEGRATOR, instance, ROUGH, first)


@pytest.mark.parametrize("first", range(0, _INTERLEAVINGS // 5, _AT_ONCE))
def test_while_nothing_fails_the_condition_alone_forgets_nothing(instance, first):
    _survives(CONDITION_ALONE, instance, CALM, first)


# What the condition does not survive, because it follows events: something happened to what came after the event.
_FORGOTTEN: dict[str, list[Action]] = {
    "a run fails, and its retries too": [
        *BEGUN,
        ("overwrite", DAYS[0]),
        ("tick", COMMITS),
        ("tick", AUTOMATION),
        ("fail for good", 0),
    ],
    "a run is canceled": [*BEGUN, ("overwrite", DAYS[0]), ("tick", COMMITS), ("tick", AUTOMATION), ("cancel", 0, 3)],
    "a run dies again and again": [
        *BEGUN,
        ("overwrite", DAYS[0]),
        ("tick", COMMITS),
        ("tick", AUTOMATION),
        *[("die", 0), ("notice",), ("retry",)] * 4,
    ],
}


@pytest.mark.parametrize("schedule", _FORGOTTEN.values(), ids=_FORGOTTEN)
def test_what_the_condition_alone_forgets_the_reconciliation_brings_back(instance, schedule):
    alone = play(CONDITION_ALONE, instance, schedule)
    assert {broken.kind for broken in alone.broken} == {"late data lost"}, alone
    both = play(INTEGRATOR, instance, schedule)
    assert not both.broken, both
    assert RECONCILIATION in {run.by for run in both.world.launched}


# What happened before the first tick that the condition remembers.
_BEFORE: dict[str, list[Action]] = {
    "a day was run by hand, and then changed": [
        ("append", DAYS[1], DAYS[2]),
        ("run by hand", 1, 2),
        ("go", 0),
        ("overwrite", DAYS[1]),
    ],
    "a day changed while it was run by hand": [
        ("append", *DAYS),
        ("run by hand", 0, 0),
        ("go", 0, 3),
        ("append", DAYS[0], DAYS[1]),
    ],
    # The tick goes on with what it had begun, but Dagster does not store its cursor.
    "the daemon died while it launched runs": [
        *BEGUN,
        ("overwrite", DAYS[0]),
        ("tick", COMMITS),
        ("tick", AUTOMATION, 2),
        ("overwrite", DAYS[1]),
        ("tick", COMMITS),
        ("daemon dies",),
    ],
}


@pytest.mark.parametrize("schedule", _BEFORE.values(), ids=_BEFORE)
def test_the_condition_follows_what_was_changed_before_its_first_tick(instance, schedule):
    played = play(CONDITION_ALONE, instance, schedule)
    assert not played.broken, played


def test_compaction_starts_no_run_and_writes_no_counts(instance):
    played = play(INTEGRATOR, instance, [*BEGUN, ("append", DAYS[0]), *BEGUN[1:], ("compact", DAYS[0])])
    before = play(INTEGRATOR, instance, [*BEGUN, ("append", DAYS[0]), *BEGUN[1:]])
    assert not played.broken, played
    assert len(played.world.launched) == len(before.world.launched)
    assert played.world.tally.written == before.world.tally.written


# What each of these breaks, if days are told from one another, or one table from the next, by version numbers alone.
_AGAINST_VERSIONS: dict[str, list[Action]] = {
    "put back as from a backup, and past the version that was counted": [
        *BEGUN,
        ("append", DAYS[0]),
        ("append", DAYS[2]),
        ("run by hand", 0, 0),
        ("go", 0),
        ("put back", 2),
        ("append", DAYS[0]),
        ("append", DAYS[2]),
        ("append", DAYS[2]),
    ],
    "a compacted day beside a late one that is older than the log": [
        *BEGUN,
        ("append", DAYS[2]),
        ("overwrite", DAYS[1]),
        ("clean log",),
        ("append", DAYS[2]),
        ("run by hand", 2, 2),
        ("go", 0),
        ("compact", DAYS[2]),
        ("run by hand", 0, 2),
        ("go", 0),
    ],
    "a compacted day that is older than the log": [
        *BEGUN,
        ("append", DAYS[2]),
        ("append", DAYS[2]),
        ("clean log",),
        ("append", DAYS[2]),
        ("compact", DAYS[0]),
        ("run by hand", 0, 0),
        ("go", 0),
    ],
    "canceled before it reports, and an earlier table had come further": [
        *BEGUN,
        *[("overwrite", DAYS[0])] * 4,
        *BEGUN[1:],
        ("make anew",),
        ("append", *DAYS),
        ("tick", COMMITS),
        ("tick", AUTOMATION),
        ("cancel", 0, 5),
    ],
}


@pytest.mark.parametrize("schedule", _AGAINST_VERSIONS.values(), ids=_AGAINST_VERSIONS)
def test_what_a_day_consists_of_is_told_by_its_files(instance, schedule):
    played = play(INTEGRATOR, instance, schedule)
    assert not played.broken, played
