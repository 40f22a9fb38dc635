"""Nothing late is lost and nothing is counted twice, whatever happens in whichever order.

    MODEL_INTERLEAVINGS=10000 python -m pytest -n 2 tests/model

plays that many schedules (some hundred without it). One that breaks something is made as small as it gets, and shown
with what happened in it.
"""

import os
from collections.abc import Iterator, Sequence

import dagster as dg
import pytest

from tests.model.deployment import AUTOMATION, COMMITS, RECONCILIATION, System, fast_instance
from tests.model.interleavings import BEGUN, CALM, DAYS, RARE, ROUGH, TOLD, Action, Kinds, play, search

_INTERLEAVINGS = int(os.environ.get("MODEL_INTERLEAVINGS", "40"))
_AT_ONCE = 20

INTEGRATOR = System()
CONDITION_ALONE = System(reconciled=False)


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with fast_instance() as instance:
        yield instance


def _survives(system: System, instance: dg.DagsterInstance, kinds: Kinds, rare: Sequence[Kinds], first: int) -> None:
    broken = search(system, instance, kinds, range(first, first + _AT_ONCE), rare=rare)
    if broken:
        pytest.fail(str(broken), pytrace=False)


@pytest.mark.parametrize("first", range(0, _INTERLEAVINGS * 4 // 5, _AT_ONCE))
def test_whatever_happens_every_closed_day_equals_a_recount_of_its_input(
    instance: dg.DagsterInstance, first: int
) -> None:
    _survives(INTEGRATOR, instance, ROUGH, RARE, first)


@pytest.mark.parametrize("first", range(0, _INTERLEAVINGS // 5, _AT_ONCE))
def test_while_nothing_fails_the_condition_alone_forgets_nothing(instance: dg.DagsterInstance, first: int) -> None:
    _survives(CONDITION_ALONE, instance, CALM, TOLD, first)


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
    # With it goes what it knew of the days that the table before had.
    "the commit sensor's cursor is lost while another table is put in place": [
        *BEGUN,
        ("make anew",),
        ("lose cursor", COMMITS),
    ],
}


@pytest.mark.parametrize("schedule", _FORGOTTEN.values(), ids=_FORGOTTEN)
def test_what_the_condition_alone_forgets_the_reconciliation_brings_back(
    instance: dg.DagsterInstance, schedule: list[Action]
) -> None:
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
def test_the_condition_follows_what_was_changed_before_its_first_tick(
    instance: dg.DagsterInstance, schedule: list[Action]
) -> None:
    played = play(CONDITION_ALONE, instance, schedule)
    assert not played.broken, played


def test_compaction_starts_no_run_and_writes_no_counts(instance: dg.DagsterInstance) -> None:
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
def test_what_a_day_consists_of_is_told_by_its_files(instance: dg.DagsterInstance, schedule: list[Action]) -> None:
    played = play(INTEGRATOR, instance, schedule)
    assert not played.broken, played


_HOUR: Action = ("let an hour pass",)
_COUNTED: list[Action] = [("append", *DAYS), ("append", *DAYS), _HOUR, _HOUR]

_RARE: dict[str, list[Action]] = {
    "rows deleted by a vector, which is written out": [
        *_COUNTED,
        ("delete by vector", DAYS[0]),
        _HOUR,
        ("purge", DAYS[0]),
    ],
    "the same, and the day is compacted instead": [*_COUNTED, ("delete by vector", DAYS[0]), ("compact", DAYS[0])],
    "a second vector in place of the first": [
        *_COUNTED,
        ("delete by vector", DAYS[0]),
        ("purge", DAYS[0]),
        _HOUR,
        ("delete by vector", DAYS[0]),
        ("delete by vector", DAYS[0]),
        _HOUR,
        ("purge", DAYS[0]),
    ],
    "a vector that is undone": [*_COUNTED, ("delete by vector", DAYS[0]), _HOUR, ("restore", DAYS[0], 1)],
    "overwritten by another table, and restored": [
        *_COUNTED,
        ("create over",),
        ("append", *DAYS),
        _HOUR,
        _HOUR,
        ("restore table", 2),
    ],
    "overwritten by an empty table, and restored": [*_COUNTED, ("create over",), _HOUR, _HOUR, ("restore table", 1)],
    "restored, and overwritten again": [
        *_COUNTED,
        ("create over",),
        ("append", *DAYS),
        _HOUR,
        _HOUR,
        ("restore table", 2),
        _HOUR,
        _HOUR,
        ("restore table", 1),
    ],
    "restored before the other table was counted": [
        *_COUNTED,
        ("create over",),
        ("append", *DAYS),
        ("tick", COMMITS),
        ("restore table", 2),
    ],
    "made anew, and a backup of the first put back": [
        *_COUNTED,
        ("make anew",),
        ("append", *DAYS),
        _HOUR,
        _HOUR,
        ("put back earlier",),
    ],
    "there and back, and there": [
        *_COUNTED,
        ("make anew",),
        ("append", *DAYS),
        _HOUR,
        _HOUR,
        ("put back earlier",),
        _HOUR,
        _HOUR,
        ("put back earlier",),
    ],
    "a file is written anew in its place": [*_COUNTED, ("write again", DAYS[0], "in place")],
    "the same, and the commit removes it before": [*_COUNTED, ("write again", DAYS[0], "swapped")],
    "a path that was removed is used for other rows": [
        *_COUNTED,
        ("delete", DAYS[0]),
        _HOUR,
        _HOUR,
        ("write again", DAYS[0], "removed"),
    ],
    "the path of a day that was overwritten, while nobody looked": [
        *_COUNTED,
        ("delete", DAYS[0]),
        ("write again", DAYS[0], "removed"),
    ],
    "a file is added once more, as it was": [*_COUNTED, ("write again", DAYS[0], "unchanged")],
    "a compaction that adds a file once more": [*_COUNTED, ("compact and add again", DAYS[0])],
    "columns with other names for a while": [
        *_COUNTED,
        ("rename columns",),
        ("append", *DAYS),
        _HOUR,
        _HOUR,
        ("rename columns",),
    ],
    "the first commit of days is lost": [("append", DAYS[0]), _HOUR, ("append", *DAYS[1:]), ("append", DAYS[0])]
    + [("hint",), ("lose commit", 1)],
    "the commit is lost that wrote another table over the first": [
        ("append", DAYS[2]),
        _HOUR,
        ("create over",),
        ("append", *DAYS[:2]),
        ("lose commit", 1),
    ],
    "a commit is lost behind which others follow": [
        *_COUNTED,
        ("overwrite", DAYS[0]),
        ("overwrite", DAYS[1]),
        ("append", DAYS[2]),
        ("hint", 4),
        ("lose commit", 1),
    ],
    "a hint that is ahead of the table": [*_COUNTED, ("hint", -3), _HOUR, ("overwrite", DAYS[0])],
    "PostgreSQL goes before a run can tell what it wrote": [
        ("append", *DAYS),
        ("tick", COMMITS),
        ("tick", AUTOMATION),
        ("go", 0, 5),
        ("outage begins",),
        ("go", 0),
        ("overwrite", DAYS[0]),
        ("jump", 72),
    ],
    "every cursor is lost": [
        *_COUNTED,
        ("overwrite", DAYS[0]),
        ("tick", COMMITS),
        ("lose cursor", COMMITS),
        ("lose cursor", AUTOMATION),
        ("lose cursor", RECONCILIATION),
    ],
    "the clock is set back again and again": [
        *_COUNTED,
        ("overwrite", DAYS[0]),
        ("tick", RECONCILIATION),
        ("jump", -1),
        ("tick", RECONCILIATION),
        ("jump", -1),
    ],
}


@pytest.mark.parametrize("schedule", _RARE.values(), ids=_RARE)
def test_what_hardly_ever_happens_loses_nothing(instance: dg.DagsterInstance, schedule: list[Action]) -> None:
    played = play(INTEGRATOR, instance, schedule)
    assert not played.broken, played
