"""What lies in a landing folder is found; what cannot be taken is named, and hides nothing else."""

import json
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from dedp_assets.landing.dated import UNDATED, DatedFolder, Listing, scan_landing
from dedp_assets.landing.versions import FileVersion
from tests.landing import put_file

T = TypeVar("T")


def as_another_user(work: Callable[[], T]) -> T:
    """The result of `work`, done in a process of a user who is not root: root may read every file."""
    if os.geteuid() != 0:
        return work()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65_534)
            os.setuid(65_534)
            os.write(writing, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        text = answer.read()
    os.waitpid(child, 0)
    found: T = json.loads(text)
    return found


def test_a_scan_finds_the_undated_file_and_those_of_days(tmp_path: Path) -> None:
    undated = put_file(tmp_path / "dataset.csv")
    dated = put_file(tmp_path / "2024-01-03" / "dataset.csv", "longer content")
    (tmp_path / "2024-01-04").mkdir()
    (tmp_path / "2024-01-05").touch()
    (tmp_path / "2024-01-06").mkdir()
    (tmp_path / "2024-01-06" / ".dataset.csv.part").touch()
    (tmp_path / "2024-01-06" / "_STARTED").touch()
    (tmp_path / "2024-01-06" / "dataset.csv.part").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty folder").mkdir()
    listing = scan_landing(DatedFolder(tmp_path, "dataset.csv"))
    assert listing == Listing(
        {
            UNDATED: FileVersion(7, 0, undated.stat().st_ctime_ns, undated.stat().st_ino),
            "2024-01-03": FileVersion(14, 0, dated.stat().st_ctime_ns, dated.stat().st_ino),
        },
        [],
        folders=["2024-01-03", "2024-01-04", "2024-01-05", "2024-01-06"],
    )


@pytest.mark.parametrize(
    "name",
    ["2024-01-05/Dataset.csv", "2024-01-05/dataset.csv.gz", "2024-01-05/devices.csv", "DATASET.CSV", "dataset.csv.zip"],
)
def test_a_file_that_has_not_the_expected_name_is_named(tmp_path: Path, name: str) -> None:
    put_file(tmp_path / name)
    listing = scan_landing(DatedFolder(tmp_path, "dataset.csv"))
    assert listing.files == {}
    assert listing.problems == [f"{name} is ignored: expected the name dataset.csv, and plain CSV in it"]


def test_a_scan_of_a_folder_that_does_not_exist_says_so(tmp_path: Path) -> None:
    assert scan_landing(DatedFolder(tmp_path / "devices", "dataset.csv")).problems == [
        f"{tmp_path}/devices does not exist yet: nothing has arrived"
    ]


def test_a_scan_of_a_file_in_place_of_the_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "devices").touch()
    assert scan_landing(DatedFolder(tmp_path / "devices", "dataset.csv")) == Listing(
        {}, [f"{tmp_path}/devices can't be read: Not a directory"]
    )


@pytest.mark.parametrize(
    "name",
    ["20240103", "2024-1-3", "2024-13-01", "2024-02-30", "2024-W01-3", "2024-01-03 ", "latest", "2024-01-03T00:00:00"],
)
def test_a_folder_that_is_no_day_is_named_and_ignored(tmp_path: Path, name: str) -> None:
    put_file(tmp_path / name / "dataset.csv")
    assert scan_landing(DatedFolder(tmp_path, "dataset.csv")) == Listing(
        {}, [f"{name}/dataset.csv is ignored: {name!r} is not a day like 2024-01-31"]
    )


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    target = put_file(tmp_path / "elsewhere" / "dataset.csv")
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "dataset.csv").symlink_to(target)
    (tmp_path / "devices" / "2024-01-03").symlink_to(target.parent)
    assert list(scan_landing(DatedFolder(tmp_path / "devices", "dataset.csv")).files) == [UNDATED, "2024-01-03"]


def test_what_cannot_be_read_is_named_and_hides_nothing_else(tmp_path: Path) -> None:
    put_file(tmp_path / "dataset.csv")
    put_file(tmp_path / "2024-01-09" / "dataset.csv")
    (tmp_path / "2024-01-01").symlink_to("2024-01-01")
    for day in ("2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05"):
        (tmp_path / day).mkdir()
    (tmp_path / "2024-01-02" / "dataset.csv").symlink_to("dataset.csv")
    (tmp_path / "2024-01-03" / "dataset.csv").symlink_to("nothing")
    (tmp_path / "2024-01-04" / "dataset.csv").mkdir()
    os.mkfifo(tmp_path / "2024-01-05" / "dataset.csv")
    (tmp_path / "loop").symlink_to("loop")
    listing = scan_landing(DatedFolder(tmp_path, "dataset.csv"))
    assert list(listing.files) == [UNDATED, "2024-01-09"]
    assert listing.problems == [
        "2024-01-01/dataset.csv can't be read: Too many levels of symbolic links",
        "2024-01-02/dataset.csv can't be read: Too many levels of symbolic links",
        "2024-01-03/dataset.csv is a link to nothing",
        "2024-01-04/dataset.csv is not a file",
        "2024-01-05/dataset.csv is not a file",
    ]
    assert listing.unusable == {f"2024-01-0{number}" for number in range(1, 6)}


def test_files_and_folders_of_others_are_named_and_hide_nothing_else() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        put_file(folder / "2024-01-01" / "dataset.csv").chmod(0)
        put_file(folder / "2024-01-02" / "dataset.csv")
        put_file(folder / "2024-01-03" / "dataset.csv")
        put_file(folder / "private" / "dataset.csv")
        (folder / "2024-01-02").chmod(0)
        (folder / "private").chmod(0)

        def found() -> list[list[str]]:
            listing = scan_landing(DatedFolder(folder, "dataset.csv"))
            return [list(listing.files), listing.problems]

        try:
            assert as_another_user(found) == [
                ["2024-01-03"],
                [
                    "2024-01-01/dataset.csv can't be read: Permission denied",
                    "2024-01-02/dataset.csv can't be read: Permission denied",
                ],
            ]
        finally:
            (folder / "2024-01-02").chmod(0o755)
            (folder / "private").chmod(0o755)


def test_a_folder_of_others_is_a_problem_and_no_error() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        put_file(folder / "dataset.csv")
        folder.chmod(0)

        def found() -> list[list[str]]:
            listing = scan_landing(DatedFolder(folder, "dataset.csv"))
            return [list(listing.files), listing.problems]

        try:
            assert as_another_user(found) == [
                [],
                ["dataset.csv can't be read: Permission denied", f"{folder} can't be read: Permission denied"],
            ]
        finally:
            folder.chmod(0o755)


def test_a_scan_never_fails_while_files_come_and_go(tmp_path: Path) -> None:
    days = ["2024-01-01", "2024-01-02", "2024-01-03"]
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            for day in days:
                put_file(tmp_path / day / "dataset.csv")
            for day in days:
                (tmp_path / day / "dataset.csv").unlink()
                (tmp_path / day).rmdir()

    coming_and_going = threading.Thread(target=come_and_go)
    coming_and_going.start()
    try:
        listings = [scan_landing(DatedFolder(tmp_path, "dataset.csv")) for _ in range(500)]
    finally:
        over.set()
        coming_and_going.join()
    assert {len(listing.files) for listing in listings} <= set(range(len(days) + 1))
    assert scan_landing(DatedFolder(tmp_path, "dataset.csv")) == Listing()
