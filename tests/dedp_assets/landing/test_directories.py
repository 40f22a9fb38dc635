"""What is found in many directories, and what a broken one costs the others."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dedp_assets.landing.directories import NOTHING, UNCHANGED, Directory, Scan, Scanner, digest_of, scan_directory
from dedp_assets.landing.versions import FileVersion


@pytest.fixture
def upload(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file into the directory of a client, which is made."""

    def write(client: str, name: str, text: str = "id,name,value\n1,a,b\n") -> Path:
        (tmp_path / client).mkdir(exist_ok=True)
        path = tmp_path / client / name
        path.write_text(text)
        return path

    return write


def test_files_of_several_patterns_are_found_with_their_version(upload: Callable[..., Path], tmp_path: Path) -> None:
    upload("north", "a.csv"), upload("north", "b.json"), upload("north", "readme.txt")
    directory = Directory("north", tmp_path / "north", ("*.csv", "*.json"))
    scan = scan_directory(directory)
    assert scan.files == {name: FileVersion.of((tmp_path / "north" / name).stat()) for name in ("a.csv", "b.json")}
    assert [directory.pattern_of(name) for name in ("a.csv", "b.json", "readme.txt")] == ["*.csv", "*.json", None]


@pytest.mark.parametrize("name", [".a.csv", "a.csv.part", "a.csv~", "a.csv.tmp"])
def test_a_draft_is_not_a_file_yet(upload: Callable[..., Path], tmp_path: Path, name: str) -> None:
    upload("north", name)
    directory = Directory("north", tmp_path / "north", ("*",))
    assert scan_directory(directory) == Scan()
    assert directory.pattern_of(name) is None


def test_what_is_wrong_with_one_file_hides_no_other(upload: Callable[..., Path], tmp_path: Path) -> None:
    upload("north", "good.csv")
    secret = tmp_path / "secret.csv"
    secret.write_text("not theirs")
    folder = tmp_path / "north"
    (folder / "folder.csv").mkdir()
    (folder / "nothing.csv").symlink_to(tmp_path / "gone")
    (folder / "outside.csv").symlink_to(secret)
    (folder / "inside.csv").symlink_to(folder / "good.csv")
    os.mkfifo(folder / "pipe.csv")
    os.mkfifo(folder / "two\nlines.csv")
    with open(os.fsencode(folder) + b"/caf\xe9.csv", "w") as stream:
        stream.write("a name in Latin-1")
    scan = scan_directory(Directory("north", folder))
    assert set(scan.files) == {"good.csv", "inside.csv"}
    assert sorted(scan.problems) == [
        "caf\\xe9.csv has a name that is not UTF-8; rename it",
        "folder.csv is a folder",
        "nothing.csv is a link to nothing",
        f"outside.csv is a link that leads out of {folder}; put the file itself there",
        "pipe.csv is not a regular file",
        "two\\nlines.csv is not a regular file",
    ]


def test_a_directory_that_cannot_be_scanned_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert scan_directory(Directory("north", tmp_path / "gone")).failure == f"{tmp_path}/gone does not exist"
    assert (
        scan_directory(Directory("north", tmp_path / "file")).failure
        == f"{tmp_path}/file can't be read: Not a directory"
    )


def test_markers_are_found_beside_the_files_that_they_are_for(upload: Callable[..., Path], tmp_path: Path) -> None:
    upload("north", "a.csv"), upload("north", "a.csv.done"), upload("north", "_SUCCESS")
    for_each = scan_directory(Directory("north", tmp_path / "north", completeness="marker", marker="{file}.done"))
    for_all = scan_directory(Directory("north", tmp_path / "north", completeness="marker"))
    assert (set(for_each.markers), set(for_all.markers)) == ({"a.csv.done"}, {"_SUCCESS"})
    assert set(for_each.files) == set(for_all.files) == {"a.csv"}


def test_a_marker_that_is_a_link_to_nothing_hides_no_file(upload: Callable[..., Path], tmp_path: Path) -> None:
    upload("north", "a.csv")
    (tmp_path / "north" / "_SUCCESS").symlink_to(tmp_path / "gone")
    scan = scan_directory(Directory("north", tmp_path / "north", completeness="marker"))
    assert (set(scan.files), scan.markers, scan.failure) == ({"a.csv"}, {}, "")


def test_thirty_directories_that_hang_cost_the_others_nothing(tmp_path: Path) -> None:
    """A mount whose server is gone can't be made here, so the scan of a directory waits for an event instead."""
    comes_back = threading.Event()

    def scan(directory: Directory) -> Scan:
        if directory.client.startswith("hung"):
            comes_back.wait(300)
        return Scan(problems=("scanned",))

    directories = [
        Directory(f"{'hung' if number % 2 else 'fine'}{number:03}", tmp_path / str(number)) for number in range(60)
    ]
    # On a busy machine, the others take a while to answer, too.
    scanner = Scanner(scan, patience_seconds=0.4)
    found = scanner.scan_all(directories)
    assert {client for client, scan in found.items() if scan.failure} == {
        directory.client for directory in directories if directory.client.startswith("hung")
    }
    assert len(found) == 60
    assert "has not answered for 0.4 s; is its mount alive?" in found["hung001"].failure

    threads = threading.active_count()
    again = scanner.scan_all(directories)
    assert again == found
    assert threading.active_count() == threads, "no more threads hang than directories"

    comes_back.set()
    deadline = time.monotonic() + 300
    while any(scan.failure for scan in scanner.scan_all(directories).values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(scan.failure for scan in scanner.scan_all(directories).values())


def test_what_is_not_reached_in_time_is_missing_and_not_empty(tmp_path: Path) -> None:
    directories = [Directory(str(number), tmp_path) for number in range(1000)]

    def slow(directory: Directory) -> Scan:
        time.sleep(0.01)
        return Scan()

    found = Scanner(slow).scan_all(directories, budget_seconds=0.3)
    assert 0 < len(found) < 1000


def test_of_a_directory_that_is_unchanged_nothing_is_kept(upload: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    upload("north", "a.csv"), upload("south", "a.csv")
    directories = [Directory(client, tmp_path / client) for client in ("north", "south", "empty")]
    found = Scanner().scan_all(directories, is_unchanged=lambda directory, scan: directory.client != "north")
    assert set(found["north"].files) == {"a.csv"}
    assert found["south"] is UNCHANGED
    assert found["empty"] is NOTHING


def test_a_digest_tells_every_change_of_a_listing() -> None:
    files = {"a.csv": FileVersion(1, 2, 3, 4), "b.csv": FileVersion(5, 6, 7, 8)}
    digest = digest_of(files)
    assert digest_of(dict(reversed(files.items()))) == digest
    assert digest_of({**files, "c.csv": FileVersion(1, 1, 1, 1)}, without=["c.csv"]) == digest
    others = [{**files, "a.csv": files["a.csv"]._replace(**{field: 9})} for field in FileVersion._fields] + [
        {"a.csv": files["a.csv"]},
        {"a.csv": files["b.csv"], "b.csv": files["a.csv"]},
        {},
    ]
    assert digest not in [digest_of(other) for other in others]
