"""A table that takes the place of another is followed, and what the other one had is not forgotten."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dedp_assets.delta.commits import Commit
from dedp_assets.delta.log import DeltaLog
from dedp_assets.delta.problems import TableProblem
from sensors.delta_commits import observing
from sensors.delta_commits.observing import observe_table
from tests.sensors.delta_commits.made_commits import plan_for, reported
from tests.sensors.delta_commits.world import FIRST, FOURTH, SECOND, THIRD, CommitTicks, Devices, add_of, versions


@pytest.mark.parametrize("further", [0, 2, 5], ids=["a shorter log", "a log of the same length", "a longer log"])
def test_a_table_made_anew_is_followed_from_its_beginning(further: int, devices: Devices, ticks: CommitTicks) -> None:
    devices.append(FIRST)
    devices.append(SECOND)
    devices.append(FIRST)
    assert ticks.reported() == {FIRST: 2, SECOND: 1}
    devices.remove()
    devices.append(THIRD)
    for _ in range(further):
        devices.append(SECOND)
    result = ticks()
    expected = {FIRST: further, SECOND: further, THIRD: 0}
    assert versions(result) == expected
    assert result.message.startswith(
        f"{devices.uri} is another table than the one that was followed to version 2: it was made anew"
    )
    assert ticks.left.table_id == str(devices.delta.metadata().id)
    assert ticks.left.fingerprints == devices.snapshot.fingerprints()
    assert ticks.reported() == {}
    devices.append(FOURTH)
    assert ticks.reported() == {FOURTH: further + 1}


def test_a_table_made_anew_whose_log_was_cleaned_up_is_taken_in_as_it_is(devices: Devices, ticks: CommitTicks) -> None:
    devices.append(FIRST, SECOND)
    ticks()
    devices.remove()
    devices.append(SECOND)
    devices.append(THIRD)
    devices.clean_up()
    assert ticks.reported() == {FIRST: 1, SECOND: 1, THIRD: 1}


def test_a_long_table_made_anew_loses_nothing_of_the_old_one(
    devices: Devices, ticks: CommitTicks, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices.append(FIRST, SECOND)
    ticks()
    monkeypatch.setattr(observing, "MAX_COMMITS", 2)
    devices.remove()
    for day in (THIRD, THIRD, SECOND):
        devices.append(day)
    assert ticks.reported() == {FIRST: 1, SECOND: 1, THIRD: 1}
    devices.remove()
    devices.append(THIRD)
    assert ticks.reported() == {THIRD: 0}


def test_a_table_replaced_within_its_log_is_the_same_table_with_another_identity(
    devices: Devices, ticks: CommitTicks
) -> None:
    devices.append(FIRST)
    ticks()
    (add,), (metadata,) = devices.actions(0, "add"), devices.actions(0, "metaData")
    removal = {
        "path": add["path"],
        "dataChange": True,
        "deletionTimestamp": 1,
        "partitionValues": add["partitionValues"],
    }
    devices.write_commit(1, {"metaData": metadata | {"id": "another"}}, {"remove": removal}, {"add": add_of(SECOND)})
    assert ticks.reported() == {FIRST: 1, SECOND: 1}
    assert ticks.left.table_id == "another"
    devices.write_commit(2, {"add": add_of(THIRD)})
    assert ticks.reported() == {THIRD: 2}


def test_a_table_put_back_from_a_backup_reports_what_differs(
    devices: Devices, ticks: CommitTicks, tmp_path: Path
) -> None:
    devices.append(FIRST, SECOND)
    backup = shutil.copytree(devices.uri, tmp_path / "backup")
    devices.append(SECOND)
    devices.append(THIRD)
    assert ticks.reported() == {FIRST: 0, SECOND: 1, THIRD: 2}
    devices.remove()
    shutil.copytree(backup, devices.uri)
    shorter = ticks()
    assert versions(shorter) == {SECOND: 0, THIRD: 0}
    assert "its log is not the one that was followed to version 2" in shorter.message
    assert ticks.reported() == {}

    devices.append(FOURTH)
    assert ticks.reported() == {FOURTH: 1}
    devices.remove()
    shutil.copytree(backup, devices.uri)
    devices.append(FIRST)
    devices.append(SECOND)
    assert ticks.reported() == {FIRST: 2, SECOND: 2, FOURTH: 2}


class Meddled(DeltaLog):
    """A log with which somebody meddles once, right after its commits were read."""

    def __init__(self, uri: str, meddle: Callable[[], None]) -> None:
        super().__init__(uri)
        self.meddle = meddle

    def commits(self, after: int, limit: int | None = None) -> Iterator[Commit]:
        yield from super().commits(after, limit)
        meddle, self.meddle = self.meddle, lambda: None
        meddle()


def test_a_table_made_anew_while_its_log_is_read_does_not_get_mixed_up_with_the_old_one(
    devices: Devices, ticks: CommitTicks
) -> None:
    devices.append(FIRST)
    ticks()
    devices.append(SECOND)

    def meddle() -> None:
        devices.remove()
        for _ in range(3):
            devices.append(THIRD)

    found = observe_table(Meddled(devices.uri, meddle), ticks.left)
    plan = plan_for(found, ticks.left)
    assert found.is_recreated
    assert reported(plan) == {FIRST: 2, THIRD: 2}
    with pytest.raises(TableProblem, match="was made anew while its log was read; the next tick reads it again"):
        observe_table(Meddled(devices.uri, meddle), None)
