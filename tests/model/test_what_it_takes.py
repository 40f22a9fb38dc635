"""What each part of the integrator is for: without it, the same search finds a small schedule that loses data."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster import AutomationCondition as Condition

from dedp_assets.delta.commits import Snapshot
from dedp_assets.late_data_integrator.device_counts import InputVersion
from dedp_assets.late_data_integrator.processing import input_version
from sensors.automation import PartitionClosed
from tests.model.deployment import System, fast_instance
from tests.model.interleavings import CALM, OVERWRITTEN_TABLES, PATHS, ROUGH, TABLES_MADE_ANEW, Kinds, search
from tests.model.tables import Counts, Log

# What a reader can follow.
_SMALL = 15

# Far more schedules than a search needs. Some losses are rare, so each search begins at a seed that is known to work.
_AT_MOST = 500


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with fast_instance() as instance:
        yield instance


class RecordedAtTheEnd(Counts):
    """As in the original: the counts record the version that the table has when the run ends."""

    def replace(self, counts: pa.Table, table_id: str, reflects: Mapping[str, InputVersion]) -> None:
        now = Log(self._table.devices).snapshot()
        super().replace(counts, table_id, {day: input_version(now, day) for day in reflects})


class CommittedBehindOthers(Counts):
    """As delta-rs does by default: if it sees no conflict, it commits after a faster writer."""

    def _is_overtaken(self) -> bool:
        return False


class OpenedBehindTheInput(Counts):
    """In the other order: a run reads its input first, and opens the counts after that."""

    _is_behind = False

    def recorded(self, table_id: str, day: str) -> InputVersion | None:
        if not self._is_behind:
            super().__init__(self._table, self._pause)
            self._is_behind = True
        return super().recorded(table_id, day)


class TrustedForEver(Counts):
    """What is recorded for a table stays valid, even if another table was counted since."""

    def _still_holds(self, days: Collection[str]) -> dict[tuple[str, str], InputVersion]:
        return dict(self._table.recorded)


class WithoutStamps(Log):
    """A file that is rewritten in place looks unchanged."""

    def snapshot(self, version: int | None = None) -> Snapshot:
        found = super().snapshot(version)
        logged = {
            day: {file: prints._replace(stamp=0) for file, prints in files.items()}
            for day, files in found.logged.items()
        }
        return replace(found, logged=logged)


def _condition(condition: dg.AutomationCondition[Any]) -> System:
    return System(condition=condition & PartitionClosed(), reconciled=False)


_IN_ANY_WINDOW = Condition.eager().without(Condition.in_latest_time_window())
_SINCE_REQUESTED = (
    (Condition.newly_missing() | Condition.any_deps_updated()).since(Condition.newly_requested())
    & ~Condition.any_deps_missing()
    & ~Condition.in_progress()
)

# These losses also need rare events, which are named.
_IN_RARE_CASES: dict[str, tuple[System, Sequence[Kinds], int]] = {
    "files not told from themselves": (System(log=WithoutStamps), [PATHS], 26),
    "overwritten by another table, which nobody noted": (System(counts=TrustedForEver), [OVERWRITTEN_TABLES], 104),
    "made anew and put back, which nobody noted": (System(counts=TrustedForEver), [TABLES_MADE_ANEW], 66),
}


@pytest.mark.parametrize(("system", "rare", "seed"), _IN_RARE_CASES.values(), ids=_IN_RARE_CASES)
@pytest.mark.slow
def test_without_it_something_is_lost_in_rare_cases(
    instance: dg.DagsterInstance, system: System, rare: Sequence[Kinds], seed: int
) -> None:
    found = search(system, instance, ROUGH, range(seed, seed + _AT_MOST), {"late data lost"}, rare, _SMALL)
    assert found, f"survives {_AT_MOST} schedules"
    assert len(found.schedule) <= _SMALL, found
    print(found)


_BROKEN: dict[str, tuple[System, Kinds, set[str], int]] = {
    "the version recorded at the end": (System(counts=RecordedAtTheEnd), CALM, {"late data lost"}, 8),
    "committed behind others": (System(counts=CommittedBehindOthers), CALM, {"went back"}, 7),
    "the counts opened behind the input": (System(counts=OpenedBehindTheInput), CALM, {"went back"}, 497),
    "eager": (_condition(Condition.eager()), CALM, {"never processed"}, 0),
    "eager in any window": (_condition(_IN_ANY_WINDOW), CALM, {"late data lost"}, 8),
    "since requested": (_condition(_SINCE_REQUESTED), CALM, {"late data lost"}, 4),
    "no reconciliation": (System(reconciled=False), ROUGH, {"late data lost", "never processed"}, 76),
}


# The search finds these at once. The others are searched for in `make test-slow`.
_QUICK = {"eager", "since requested"}


@pytest.mark.parametrize(
    ("system", "kinds", "wanted", "seed"),
    [pytest.param(*case, id=name, marks=() if name in _QUICK else pytest.mark.slow) for name, case in _BROKEN.items()],
)
def test_without_it_something_is_lost(
    instance: dg.DagsterInstance, system: System, kinds: Kinds, wanted: set[str], seed: int
) -> None:
    found = search(system, instance, kinds, range(seed, seed + _AT_MOST), wanted, small=_SMALL)
    assert found, f"survives {_AT_MOST} schedules"
    assert len(found.schedule) <= _SMALL, found
    print(found)
