"""Files arrive whole, grow, change and go, at the simulated time."""

import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest
from dagster_scenario import Scenario
from dagster_scenario.world.files import Folder


@pytest.fixture
def folder(scenario: Scenario, tmp_path: Path) -> Folder:
    return scenario.folder(tmp_path / "in")


def told(scenario: Scenario) -> list[str]:
    return [event.text for event in scenario.timeline.events if event.kind == "world"]


def changed(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)


def test_a_file_is_whole_and_has_its_time_as_soon_as_it_is_there(
    scenario: Scenario, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[list[str]] = []
    renamed: list[tuple[str, bytes, datetime]] = []
    write, rename = Path.write_bytes, Path.rename

    def seen_writing(path: Path, content: bytes) -> int:
        done = write(path, content)
        names.append([p.name for p in path.parent.iterdir() if not p.name.startswith(".")])
        return done

    def seen_renaming(path: Path, target: Path) -> Path:
        renamed.append((target.name, path.read_bytes(), changed(path)))
        return rename(path, target)

    monkeypatch.setattr(Path, "write_bytes", seen_writing)
    monkeypatch.setattr(Path, "rename", seen_renaming)
    path = folder.drop("2024/a.csv", "one\ntwo\n")
    assert names == [[]]
    assert renamed == [("a.csv", b"one\ntwo\n", scenario.now)]
    assert path == folder.path / "2024" / "a.csv"
    assert [p.name for p in path.parent.iterdir()] == ["a.csv"]


def test_a_reader_of_the_old_version_is_not_disturbed_by_a_new_one(folder: Folder) -> None:
    path = folder.drop("a.csv", "old")
    with path.open() as reader:
        folder.rewrite("a.csv", "newer")
        assert reader.read() == "old"
    assert path.read_text() == "newer"


def test_every_change_has_the_simulated_time(scenario: Scenario, folder: Folder) -> None:
    path = folder.drop("a.csv", "one")
    assert changed(path) == datetime(2024, 1, 1, tzinfo=timezone.utc)
    changes: list[tuple[int, Callable[[], object]]] = [
        (2, lambda: folder.grow("a.csv", "two")),
        (3, lambda: folder.rewrite("a.csv", "three")),
    ]
    for day, change in changes:
        scenario.clock.move(datetime(2024, 1, day, 12, tzinfo=timezone.utc))
        change()
        assert changed(path) == datetime(2024, 1, day, 12, tzinfo=timezone.utc)


def test_a_file_grows_from_nothing_at_its_end(folder: Folder) -> None:
    path = folder.grow("sub/a.csv", "one,")
    inode = path.stat().st_ino
    folder.grow("sub/a.csv", b"two")
    assert path.read_text() == "one,two"
    assert path.stat().st_ino == inode


def test_a_file_or_a_folder_goes_away(folder: Folder) -> None:
    one, other = folder.drop("2024/a.csv"), folder.drop("2024/b.csv")
    folder.delete("2024/a.csv")
    assert (one.exists(), other.exists()) == (False, True)
    folder.delete("2024")
    assert list(folder.path.iterdir()) == []


def test_a_file_that_is_there_does_not_arrive_again(scenario: Scenario, folder: Folder) -> None:
    path = folder.drop("a.csv", "first")
    with pytest.raises(
        FileExistsError, match=r"a\.csv is there already; rewrite\(\.\.\.\) replaces it, grow\(\.\.\.\)"
    ):
        folder.drop("a.csv", "second")
    assert path.read_text() == "first"
    assert len(told(scenario)) == 1


def test_a_missing_file_is_neither_rewritten_nor_deleted_and_those_that_are_there_are_named(
    scenario: Scenario, folder: Folder
) -> None:
    for change in (lambda: folder.rewrite("a.csv", "new"), lambda: folder.delete("a.csv")):
        with pytest.raises(FileNotFoundError, match=r"a\.csv is not there; there are no files"):
            change()
    folder.drop("2024/b.csv")
    with pytest.raises(FileNotFoundError, match=r"a\.csv is not there; there are 2024/b\.csv"):
        folder.rewrite("a.csv", "new")
    assert not (folder.path / "a.csv").exists()
    assert told(scenario) == ["2024/b.csv arrives (0 bytes)"]


def test_the_timeline_has_names_and_sizes_and_not_where_the_folder_is(scenario: Scenario, folder: Folder) -> None:
    folder.drop("2024/a.csv", "naïve")
    folder.grow("2024/a.csv", b"x" * 9_993)
    folder.grow("2024/a.csv", b"x" * 90_001)
    folder.rewrite("2024/a.csv", "")
    folder.delete("2024/a.csv")
    assert told(scenario) == [
        "2024/a.csv arrives (6 bytes)",
        "2024/a.csv grows to 9999 bytes",
        "2024/a.csv grows to 100 kB",
        "2024/a.csv is rewritten (0 bytes)",
        "2024/a.csv is deleted",
    ]


def test_a_folder_of_the_scenarios_own_goes_with_it() -> None:
    with Scenario() as scenario:
        path = scenario.folder().drop("a.csv")
        assert Path(os.environ["DAGSTER_HOME"]) in path.parents
        assert path.exists()
    assert not path.exists()
