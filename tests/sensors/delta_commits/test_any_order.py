"""No order of commits, cleanups and ticks loses a change."""

import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from dedp_assets import settings
from tests.sensors.delta_commits.world import FIRST, KINDS, SECOND, THIRD, CommitTicks, Devices

DAYS = [FIRST, SECOND, THIRD]

# The rows of each day, by name.
Rows = dict[str, set[str]]

SOME_DAYS = st.lists(st.sampled_from(DAYS), min_size=1, max_size=3)


examples = count()


class CommitsOverTime(RuleBasedStateMachine):
    """Somebody writes, deletes, restores, compacts, cleans up and creates the table again. In between there are ticks.

    After each step the machine knows the rows of each day. So it knows which days changed since the last tick.
    """

    @initialize(kind=st.sampled_from([*KINDS]))
    def begin(self, kind: str) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setenv("DEDP_DATA_URI", f"{settings.data_uri()}/{next(examples)}")
        self.devices, self.ticks = Devices(kind), CommitTicks(dg.DagsterInstance.ephemeral(), records_events=False)
        self.rows: Rows = {}
        self.begin_anew()

    def begin_anew(self) -> None:
        self.rows_before = self.rows
        self.changed: set[str] = set()
        # Days that may have other files now, but the same rows: by a commit that changed data, or by one that did not.
        self.restored: set[str] = set()
        self.compacted: set[str] = set()
        self.log_is_whole = True

    def is_there(self) -> bool:
        return Path(self.devices.uri).exists()

    def step(self, work: Callable[[], object]) -> None:
        before = self.rows
        work()
        self.rows = {}
        table = self.devices.delta.to_pyarrow_table(columns=["full_name", "event_time"])
        for name, day in zip(table["full_name"].to_pylist(), table["event_time"].to_pylist(), strict=True):
            self.rows.setdefault(str(day), set()).add(name)
        self.changed |= differing(before, self.rows)

    @rule(days=SOME_DAYS)
    def rows_are_appended(self, days: list[str]) -> None:
        self.step(lambda: self.devices.append(*days))

    @precondition(is_there)
    @rule(day=st.sampled_from(DAYS))
    def a_day_is_overwritten(self, day: str) -> None:
        self.step(lambda: self.devices.overwrite(day))

    @precondition(is_there)
    @rule(day=st.sampled_from(DAYS))
    def a_day_is_deleted(self, day: str) -> None:
        self.step(lambda: self.devices.delta.delete(f"event_time = '{day}'"))

    @precondition(is_there)
    @rule(name=st.integers(0, 12))
    def a_row_is_deleted(self, name: int) -> None:
        self.step(lambda: self.devices.delta.delete(f"full_name = '{name}'"))

    @precondition(is_there)
    @rule()
    def the_table_is_compacted(self) -> None:
        self.compacted |= set(self.rows)
        self.step(lambda: self.devices.delta.optimize.compact())

    @precondition(lambda self: self.is_there() and self.devices.commit_file(0).exists())
    @precondition(lambda self: self.devices.commit_file(1).exists())
    @rule(back=st.integers(1, 4))
    def an_older_version_is_restored(self, back: int) -> None:
        self.restored |= set(DAYS)
        self.step(lambda: self.devices.delta.restore(max(self.devices.delta.version() - back, 0)))

    @precondition(is_there)
    @rule()
    def old_commits_are_cleaned_up(self) -> None:
        self.devices.clean_up()
        self.log_is_whole = False

    @precondition(is_there)
    @rule(days=SOME_DAYS)
    def the_table_is_made_anew(self, days: list[str]) -> None:
        self.devices.remove()
        self.log_is_whole = False
        self.step(lambda: self.devices.append(*days))

    @rule()
    def a_tick_follows(self) -> None:
        touched = self.ticks.left.touched if self.ticks.cursor else set()
        seen = set(self.ticks.reported())
        if self.log_is_whole:
            assert self.changed <= seen <= self.changed | self.restored
        else:
            assert (
                differing(self.rows_before, self.rows)
                <= seen
                <= self.changed | self.restored | self.compacted | touched
            )
        if self.is_there():
            assert self.ticks.left.fingerprints == self.devices.snapshot.fingerprints()
            assert self.ticks.left.version == self.devices.delta.version()
        self.begin_anew()

    @rule()
    def an_idle_tick_follows(self) -> None:
        self.a_tick_follows()
        assert self.ticks.reported() == {}

    def teardown(self) -> None:
        self.an_idle_tick_follows()
        self.ticks.instance.dispose()
        shutil.rmtree(settings.data_uri(), ignore_errors=True)
        self.patch.undo()


def differing(rows: Rows, others: Rows) -> set[str]:
    return {day for day in {*rows, *others} if rows.get(day) != others.get(day)}


CommitsOverTime.TestCase.settings = hypothesis_settings(
    max_examples=int(os.environ.get("MODEL_INTERLEAVINGS", "15")),
    stateful_step_count=15,
    deadline=None,
    derandomize=True,
    database=None,
)


test_no_order_of_commits_cleanups_and_ticks_loses_a_change = CommitsOverTime.TestCase
