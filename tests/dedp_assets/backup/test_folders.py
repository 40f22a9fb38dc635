"""Copying folders into a backup while others write to them."""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from dedp_assets.backup import archive, folders
from dedp_assets.backup.archive import Draft
from dedp_assets.backup.folders import copy_landed, copy_own, size_of
from dedp_assets.landing.copies import CopyRecord, lock_of, replacing
from dedp_assets.landing.versions import FileVersion
from dedp_assets.whole_files import write_whole

SETTLE_SECONDS = 0.3


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def copied(draft: Draft, part: str) -> dict[str, bytes]:
    folder = draft.folder / part
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(path: Path, content: str = "content") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def test_files_are_copied_and_locks_drafts_links_and_pipes_are_not(root: Path, draft: Draft, tmp_path: Path) -> None:
    write(tmp_path / "secret")
    write(root / "a" / "file")
    write(root / "a" / ".lock")
    write(root / "a" / ".source.json.part")
    (root / "a" / "link").symlink_to(tmp_path / "secret")
    (root / "linked folder").symlink_to(tmp_path)
    os.mkfifo(root / "a" / "pipe")
    copy_own(root, "internal", draft)
    copy_landed(root, "landing", draft, 0)
    assert copied(draft, "internal") == copied(draft, "landing") == {"a/file": b"content"}
    assert size_of(root) == len("content")


def test_a_copy_and_its_record_are_copied_together_while_they_are_replaced(root: Path, draft: Draft) -> None:
    """Without the lock, one of them could be of the old content and the other of the new."""
    copy = root / "devices" / "20240101" / "dataset.csv"
    contents = {name: CopyRecord(name, FileVersion(1, 2, 3, 4), name * 64) for name in "ab"}

    def replace(name: str) -> None:
        with lock_of(copy.parent), replacing(copy, contents[name]):
            write_whole(copy, name.encode())
            time.sleep(0.002)

    replace("a")
    stop = threading.Event()

    def keep_replacing() -> None:
        while not stop.is_set():
            replace("b")
            replace("a")

    writer = threading.Thread(target=keep_replacing)
    writer.start()
    try:
        for number in range(40):
            copy_own(root, f"copy{number}", draft)
    finally:
        stop.set()
        writer.join()
    for number in range(40):
        found = copied(draft, f"copy{number}")
        content = found["devices/20240101/dataset.csv"].decode()
        assert f'"sha256": "{content * 64}"'.encode() in found["devices/20240101/source.json"]
        assert b"before" not in found["devices/20240101/source.json"]


class Clock:
    """Time passes only while somebody sleeps, and then something happens."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self.now, self.happens = time.time() + 100, happens

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.happens()


def change_at(path: Path, clock: Clock, content: str) -> None:
    """Write a file at the time of the clock. Nobody can set the time of change; it is earlier."""
    path.write_text(content)
    os.utime(path, (clock.now, clock.now))


def test_a_landed_file_that_is_being_written_is_waited_for(
    root: Path, draft: Draft, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = iter(["half", "half and", "half and half"])

    def write_on() -> None:
        for content in contents:
            change_at(root / "growing", clock, content)
            return

    clock = Clock(write_on)
    monkeypatch.setattr("dedp_assets.backup.folders.time", clock)
    write(root / "whole")
    write_on()
    copy_landed(root, "landing", draft, SETTLE_SECONDS)
    assert copied(draft, "landing") == {"whole": b"content", "growing": b"half and half"}
    assert draft.left_out == []


def rewrite(path: Path) -> None:
    path.write_text("a new version")


def replace(path: Path) -> None:
    path.with_name("draft").write_text("a new version")
    path.with_name("draft").rename(path)


@pytest.mark.parametrize(
    ("happens", "in_the_backup"),
    [(rewrite, {"file": b"a new version"}), (replace, {"file": b"a new version"}), (Path.unlink, {})],
)
def test_a_landed_file_that_changes_while_it_is_copied_is_in_the_backup_as_a_whole_or_not_at_all(
    root: Path,
    draft: Draft,
    monkeypatch: pytest.MonkeyPatch,
    happens: Callable[[Path], None],
    in_the_backup: dict[str, bytes],
) -> None:
    chunks, calls = archive.chunks_of, count()

    def while_it_is_read(path: Path) -> Iterator[bytes]:
        yield from chunks(path)
        if next(calls) == 0:
            happens(path)

    write(root / "file")
    monkeypatch.setattr(folders, "chunks_of", while_it_is_read)
    copy_landed(root, "landing", draft, 0)
    assert copied(draft, "landing") == in_the_backup
    assert draft.files == len(in_the_backup)
    assert draft.left_out == []


def test_a_landed_file_that_does_not_come_to_rest_is_left_out_and_named(
    root: Path, draft: Draft, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(lambda: change_at(root / "growing", clock, "half"))
    monkeypatch.setattr("dedp_assets.backup.folders.time", clock)
    write(root / "whole")
    change_at(root / "growing", clock, "half")
    copy_landed(root, "landing", draft, SETTLE_SECONDS, patience_seconds=2)
    assert copied(draft, "landing") == {"whole": b"content"}
    assert draft.left_out == [f"{root}/growing: it is still being written; deliver it again after a restore"]
    assert draft.files == 1


def test_a_file_that_is_deleted_while_the_sizes_are_added_up_counts_nothing(root: Path) -> None:
    write(root / "a")
    write(root / "b")

    def delete_it(path: Path) -> bool:
        if path.name == "b":
            path.unlink()
        return False

    assert size_of(root, delete_it) == len("content")


def test_empty_folders_into_which_others_deliver_are_copied(root: Path, draft: Draft) -> None:
    (root / "clients" / "acme").mkdir(parents=True)
    copy_landed(root, "landing", draft, 0)
    assert (draft.folder / "landing" / "clients" / "acme").is_dir()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user can use, and that this test uses as one without privileges."""
    with tempfile.TemporaryDirectory(prefix="dedp-tests-") as folder:
        Path(folder).chmod(0o755)
        for name in ("root", "draft"):
            Path(folder, name).mkdir(mode=0o777)
            Path(folder, name).chmod(0o777)
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(before)
            for path in Path(folder).rglob("*"):
                path.chmod(0o700)


def test_what_nobody_lets_us_read_is_named_if_it_landed_and_an_error_if_it_is_ours(shared: Path) -> None:
    root = shared / "root"
    for name in ("fine/file", "closed folder/file", "open/closed file"):
        write(root / name)
    (root / "closed folder").chmod(0)
    (root / "open" / "closed file").chmod(0)
    with open(shared / "draft" / "files.jsonl", "xb") as listed:
        draft = Draft(shared / "draft", listed)
        copy_landed(root, "landing", draft, 0)
        assert copied(draft, "landing") == {"fine/file": b"content"}
        assert sorted(draft.left_out) == [
            f"{root}/closed folder: Permission denied",
            f"{root}/open/closed file: Permission denied",
        ]
        for closed in ("closed folder", "open"):
            with pytest.raises(PermissionError, match=closed):
                copy_own(root / closed, closed, draft)
