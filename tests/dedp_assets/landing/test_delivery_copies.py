"""Our copies of deliveries: the old version or the new one, and never a mixture."""

import os
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from dedp_assets.landing import delivery_copies
from dedp_assets.landing.copying import CopiedFile, StillBeingWritten, copy_stream
from dedp_assets.landing.deliveries import directory_of, look_of, version_of
from dedp_assets.landing.delivery_copies import (
    Copy,
    NotDelivered,
    Seen,
    content_file,
    copy_delivery,
    read_copy,
    record_file,
)
from dedp_assets.landing.directories import scan_directory
from dedp_assets.landing.versions import sha256_of

CLOSES = datetime(2024, 1, 6, 2, tzinfo=timezone.utc)
READY = CLOSES - timedelta(hours=3)


class Shelf:
    """A landed delivery and our copy of it."""

    def __init__(self, root: Path) -> None:
        self.landed, self.copy_folder = root / "landing" / "north" / "2024-01-05", root / "copy"
        self.directory = directory_of(root / "landing", ("north", "2024-01-05"))
        self.landed.mkdir(parents=True)

    def put(self, **files: str) -> None:
        for name, text in files.items():
            (self.landed / f"data-{name}.csv").write_text(text)

    def mark(self) -> None:
        (self.landed / "_SUCCESS").touch()

    def copy(self, ready_at: datetime = READY, look: str = "", settle: float = 0.0, patience: float = 60.0) -> Copy:
        return copy_delivery(
            self.directory,
            self.copy_folder,
            Seen(look, ready_at),
            window_closes=CLOSES,
            settle_seconds=settle,
            patience_seconds=patience,
        )

    def contents(self) -> dict[str, str]:
        copy = read_copy(self.copy_folder)
        assert copy is not None
        return {file.name: content_file(self.copy_folder, file.sha256).read_text() for file in copy.files}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_a_delivery_is_copied_whole_with_its_version_and_its_sources(shelf: Shelf) -> None:
    shelf.put(a="one", b="two", c="")
    shelf.mark()
    copy = shelf.copy()
    assert shelf.contents() == {"data-a.csv": "one", "data-b.csv": "two", "data-c.csv": ""}
    sha256s = {path.name: sha256_of(path) or "" for path in shelf.landed.glob("data-*")}
    assert copy.version == version_of(sha256s)
    assert copy.sources == scan_directory(shelf.directory).files
    assert (copy.ready_at, copy.is_late, copy.folder) == (READY, False, str(shelf.landed))
    assert read_copy(shelf.copy_folder) == copy


def test_another_version_takes_the_place_of_the_old_one_and_leaves_nothing_of_it(shelf: Shelf) -> None:
    shelf.put(a="one", b="two")
    shelf.mark()
    first = shelf.copy()
    shelf.put(a="other")
    (shelf.landed / "data-b.csv").unlink()
    second = shelf.copy(CLOSES + timedelta(days=1))
    assert second.version != first.version
    assert shelf.contents() == {"data-a.csv": "other"}
    assert len(list(shelf.copy_folder.glob("*.csv"))) == 1
    assert (second.ready_at, second.is_late) == (CLOSES + timedelta(days=1), False), "its first version was in time"


def test_the_same_content_again_keeps_its_version_and_its_time(shelf: Shelf) -> None:
    shelf.put(a="one")
    shelf.mark()
    first = shelf.copy(CLOSES + timedelta(hours=1))
    shelf.put(a="one")
    second = shelf.copy(CLOSES + timedelta(days=9))
    assert (second.version, second.ready_at, second.is_late) == (first.version, first.ready_at, True)
    assert second.sources == scan_directory(shelf.directory).files


@pytest.mark.parametrize(
    ("files", "has_marker", "lacks"),
    [
        ({}, False, "does not exist|lacks the marker _SUCCESS"),
        ({"a": "one"}, False, "it lacks the marker _SUCCESS"),
        ({}, True, "it lacks a data file that is not empty"),
        ({"a": ""}, True, "it lacks a data file that is not empty"),
    ],
)
def test_a_delivery_that_is_not_ready_is_refused_and_the_copy_stays(
    shelf: Shelf, files: dict[str, str], has_marker: bool, lacks: str
) -> None:
    shelf.put(**files)
    if has_marker:
        shelf.mark()
    with pytest.raises(NotDelivered, match=lacks):
        shelf.copy()
    assert read_copy(shelf.copy_folder) is None


def test_a_file_after_the_marker_has_to_rest_unless_it_was_seen_to_rest(shelf: Shelf) -> None:
    shelf.mark()
    shelf.put(a="one")
    # Files and marker may have been written within one instant of the file system's clock.
    os.utime(shelf.landed / "data-a.csv")
    while (shelf.landed / "data-a.csv").stat().st_ctime_ns <= (shelf.landed / "_SUCCESS").stat().st_ctime_ns:
        os.utime(shelf.landed / "data-a.csv")
    with pytest.raises(StillBeingWritten, match="write _SUCCESS when all files are complete"):
        shelf.copy(settle=60, patience=0.1)
    shelf.copy(settle=60, patience=0.1, look=look_of(scan_directory(shelf.directory).files))
    assert shelf.contents() == {"data-a.csv": "one"}


def test_a_file_that_changes_or_comes_while_it_is_copied_is_not_taken_half(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.put(a="one", b="two")
    shelf.mark()
    changes = iter([{"a": "later"}, {"c": "new"}])

    def disturbed(*arguments: Any) -> CopiedFile:
        copied = copy_stream(*arguments)
        shelf.put(**next(changes, {}))
        return copied

    monkeypatch.setattr(delivery_copies, "copy_stream", disturbed)
    shelf.copy()
    assert shelf.contents() == {"data-a.csv": "later", "data-b.csv": "two", "data-c.csv": "new"}


def test_a_copy_that_dies_before_its_record_leaves_the_old_version_and_the_next_one_cleans_up(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.put(a="one")
    shelf.mark()
    shelf.copy()
    shelf.put(a="other", b="two")

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(delivery_copies, "write_whole", dies)
        with pytest.raises(KeyboardInterrupt):
            shelf.copy()
    assert shelf.contents() == {"data-a.csv": "one"}
    shelf.copy()
    assert shelf.contents() == {"data-a.csv": "other", "data-b.csv": "two"}
    assert len(list(shelf.copy_folder.glob("*.csv"))) == 2


def test_readers_see_whole_versions_while_they_are_replaced(shelf: Shelf) -> None:
    """A reader that finds a content gone begins again: then the record is another."""
    shelf.put(a="0", b="0")
    shelf.mark()
    shelf.copy()
    done, seen = threading.Event(), set()

    def read() -> None:
        while not done.is_set():
            try:
                seen.add(tuple(shelf.contents().values()))
            except FileNotFoundError:
                continue

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 40):
        shelf.put(a=str(number), b=str(number))
        shelf.copy()
    done.set()
    reader.join()
    assert seen
    assert all(a == b for a, b in seen)


def test_a_content_that_somebody_deleted_is_copied_again(shelf: Shelf) -> None:
    shelf.put(a="one")
    shelf.mark()
    shelf.copy()
    for path in shelf.copy_folder.glob("*.csv"):
        path.unlink()
    shelf.copy()
    assert shelf.contents() == {"data-a.csv": "one"}


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"version": 1}', '{"files": [["a"]]}'])
def test_a_damaged_record_is_none_and_the_next_copy_makes_it_anew(shelf: Shelf, damage: str) -> None:
    shelf.put(a="one")
    shelf.mark()
    shelf.copy()
    record_file(shelf.copy_folder).write_text(damage)
    assert read_copy(shelf.copy_folder) is None
    shelf.copy()
    assert shelf.contents() == {"data-a.csv": "one"}
