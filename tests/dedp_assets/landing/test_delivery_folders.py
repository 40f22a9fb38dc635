"""What lies in the folders of suppliers: found at once where something changed, and whatever else lies there."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dedp_assets.landing import delivery_folders
from dedp_assets.landing.deliveries import Key, state_of
from dedp_assets.landing.delivery_folders import DeliveryFolders, Folders

SUPPLIERS = ("north", "south")


def listing(folders: DeliveryFolders, root: Path) -> Folders:
    return folders.list(root, SUPPLIERS, "2024-01-01", "2024-03-01")


def test_the_days_of_each_supplier_are_listed_and_all_else_is_useless_with_a_reason(tmp_path: Path) -> None:
    for name in ("north/2024-02-01", "north/2024-01-31", "north/2023-12-31", "north/2024-03-02", "north/new", "west/x"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "north" / "readme.txt").touch()
    (tmp_path / "north" / ".snapshot").mkdir()
    found = listing(DeliveryFolders(), tmp_path)
    assert found.days == {"north": ["2024-01-31", "2024-02-01"]}
    named = sorted(text.removeprefix(f"{tmp_path}/").split(":")[0] for text in found.useless)
    assert named == ["north/2023-12-31", "north/2024-03-02", "north/new", "north/readme.txt", "west"]
    assert found.problems == []


def test_a_folder_is_listed_again_when_it_changes_also_within_the_same_instant(tmp_path: Path) -> None:
    folders = DeliveryFolders()
    (tmp_path / "north" / "2024-01-01").mkdir(parents=True)
    assert listing(folders, tmp_path).changed == {"north"}
    instant = (tmp_path / "north").stat()
    (tmp_path / "north" / "2024-01-02").mkdir()
    os.utime(tmp_path / "north", ns=(instant.st_atime_ns, instant.st_mtime_ns))
    second = listing(folders, tmp_path)
    assert (second.days["north"], second.changed) == (["2024-01-01", "2024-01-02"], {"north"})
    assert listing(folders, tmp_path).changed == set()
    (tmp_path / "north" / "2024-01-03").mkdir()
    assert listing(folders, tmp_path).changed == {"north"}


def _rename_into(folder: Path) -> None:
    (folder / ".data-1.part").write_text("another")
    (folder / ".data-1.part").replace(folder / "data-1.csv")


def _add_a_file(folder: Path) -> None:
    (folder / "data-2.csv").write_text("more")


def _overwrite_and_mark_again(folder: Path) -> None:
    (folder / "data-1.csv").write_text("another")
    (folder / "_SUCCESS").touch()


@pytest.mark.parametrize("rewrite", [_rename_into, _add_a_file, _overwrite_and_mark_again])
def test_a_rewrite_in_a_folder_of_any_day_is_seen_at_the_next_glance_and_once(
    tmp_path: Path, rewrite: Callable[[Path], None]
) -> None:
    days = [f"2024-01-{number:02}" for number in range(1, 31)]
    for day in days:
        (tmp_path / "north" / day).mkdir(parents=True)
        (tmp_path / "north" / day / "data-1.csv").write_text("one")
        (tmp_path / "north" / day / "_SUCCESS").touch()
    folders = DeliveryFolders()

    def glance() -> Sequence[Key]:
        return folders.glance(tmp_path, {"north": days}, 10)

    for _ in range(4):
        assert glance() == []
    time.sleep(0.01)  # the clock of a file system may be as coarse
    rewrite(tmp_path / "north" / "2024-01-25")
    assert [glance() for _ in range(5)] == [[], [("north", "2024-01-25")], [], [], []]


def test_links_that_lead_elsewhere_are_not_followed_and_broken_ones_cost_nothing(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    (elsewhere / "2024-01-01").mkdir(parents=True)
    (elsewhere / "2024-01-01" / "data-1.csv").write_text("secret")
    day = root / "north" / "2024-01-02"
    day.mkdir(parents=True)
    (root / "south").symlink_to(elsewhere)
    (root / "north" / "2024-01-01").symlink_to(elsewhere / "2024-01-01")
    (root / "north" / "2024-01-03").symlink_to(tmp_path / "nothing")
    (day / "data-1.csv").symlink_to(elsewhere / "2024-01-01" / "data-1.csv")
    (day / "data-2.csv").symlink_to(tmp_path / "nothing")
    (day / "data-3.csv").mkdir()
    os.mkfifo(day / "data-4.csv")
    (day / "data-5.csv").write_text("ours")
    (day / "_SUCCESS").touch()
    folders = DeliveryFolders()
    assert listing(folders, root).days == {"north": ["2024-01-02"]}
    scan = folders.scan(root, [("north", "2024-01-02")])["north", "2024-01-02"]
    assert list(scan.files) == ["data-5.csv"]
    assert len(scan.problems) == 4
    assert state_of(scan) == "complete"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_rights_is_a_problem_of_its_supplier_alone(tmp_path: Path) -> None:
    for supplier in SUPPLIERS:
        (tmp_path / supplier / "2024-01-01").mkdir(parents=True)
    (tmp_path / "north").chmod(0)
    found = listing(DeliveryFolders(), tmp_path)
    (tmp_path / "north").chmod(0o755)
    assert list(found.days) == ["south"]
    assert "can't be read" in found.problems[0]


def test_a_folder_that_does_not_answer_is_left_behind_and_the_others_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for supplier in SUPPLIERS:
        (tmp_path / supplier / "2024-01-01").mkdir(parents=True)
    answers = threading.Event()
    really = delivery_folders._folders_in

    def hanging(path: Path) -> tuple[list[str], list[str]]:
        if path.name == "north":
            answers.wait()
        return really(path)

    monkeypatch.setattr(delivery_folders, "_folders_in", hanging)
    folders = DeliveryFolders(patience_seconds=0.1)
    try:
        found = listing(folders, tmp_path)
        assert list(found.days) == ["south"]
        assert "north has not answered" in found.problems[0]
        assert "north has not answered" in listing(folders, tmp_path).problems[0]
    finally:
        answers.set()


def test_a_supplier_who_has_never_delivered_and_a_root_that_is_not_there_are_no_problem(tmp_path: Path) -> None:
    assert listing(DeliveryFolders(), tmp_path / "none") == Folders({}, set(), [], [])
    (tmp_path / "north").mkdir()
    assert listing(DeliveryFolders(), tmp_path).days == {"north": []}


def test_a_supplier_whose_folder_goes_and_comes_back_is_listed_as_changed(tmp_path: Path) -> None:
    folders = DeliveryFolders()
    (tmp_path / "north" / "2024-01-01").mkdir(parents=True)
    for _ in range(3):
        listing(folders, tmp_path)
    (tmp_path / "north").rename(tmp_path / ".away")
    assert listing(folders, tmp_path).days == {}
    (tmp_path / ".away").rename(tmp_path / "north")
    assert listing(folders, tmp_path).days == {"north": ["2024-01-01"]}
