"""A file that was renamed into place is complete at once, and no other is. Real files, and what the kernel tells."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dedp_assets import inotify
from dedp_assets.inotify import Event
from dedp_assets.landing import kernel, renames
from dedp_assets.landing.renames import Renames, note_events
from dedp_assets.landing.versions import FileVersion

NAME = "dataset.csv"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of renames; elsewhere files settle")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "landing").mkdir()
    return tmp_path / "landing"


@pytest.fixture
def seen(folder: Path) -> Iterator["Seen"]:
    seen = Seen(folder)
    yield seen
    seen.renames.follow([])


class Seen:
    """What ticks say of the file NAME in a folder that is followed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.renames = folder, Renames()
        self.renames.follow([str(folder)])

    def is_complete(self) -> bool:
        found = {entry.name: FileVersion.of(entry.stat()) for entry in os.scandir(self.folder)}
        self.renames.follow([str(self.folder)])
        return NAME in self.renames.complete(str(self.folder), found)


def rename_into(folder: Path, text: str = "all of it") -> None:
    (folder / "draft.part").write_text(text)
    (folder / "draft.part").rename(folder / NAME)


def test_a_file_that_is_renamed_into_place_is_complete_at_once_and_stays_so(seen: Seen) -> None:
    rename_into(seen.folder)
    assert seen.is_complete()
    assert seen.is_complete()
    (seen.folder / NAME).chmod(0o600)
    assert seen.is_complete()


def test_a_later_version_that_is_renamed_over_the_first_is_complete_too(seen: Seen, tmp_path: Path) -> None:
    rename_into(seen.folder)
    assert seen.is_complete()
    (tmp_path / "elsewhere").write_text("another")
    (tmp_path / "elsewhere").rename(seen.folder / NAME)
    assert seen.is_complete()


def write_in_place(folder: Path) -> None:
    (folder / NAME).write_text("a part of it")


def copy_with_the_old_times(folder: Path) -> None:
    # As `cp -p`, `mv` from another file system, `tar` and `unzip` do.
    (folder.parent / "source").write_text("x")
    os.utime(folder.parent / "source", (0, 0))
    shutil.copy2(folder.parent / "source", folder / NAME)


def link_into_place(folder: Path) -> None:
    (folder / "draft.part").write_text("a part of it")
    os.link(folder / "draft.part", folder / NAME)
    (folder / "draft.part").unlink()


def rename_and_write_on(folder: Path) -> None:
    rename_into(folder)
    with open(folder / NAME, "a") as file:
        file.write("more")


def rename_and_write_anew(folder: Path) -> None:
    rename_into(folder)
    (folder / NAME).write_text("a part of another")


def rename_and_truncate(folder: Path) -> None:
    rename_into(folder)
    os.truncate(folder / NAME, 3)


def rename_and_put_another_in_its_place(folder: Path) -> None:
    rename_into(folder)
    (folder / NAME).unlink()
    (folder / NAME).write_text("a part of another")


def rename_with_a_second_name(folder: Path) -> None:
    (folder / "draft.part").write_text("a part of it")
    os.link(folder / "draft.part", folder.parent / "second name")
    (folder / "draft.part").rename(folder / NAME)


def rename_a_link(folder: Path) -> None:
    (folder.parent / "somewhere").write_text("a part of it")
    (folder / "link.part").symlink_to(folder.parent / "somewhere")
    (folder / "link.part").rename(folder / NAME)


def rename_an_empty_file(folder: Path) -> None:
    rename_into(folder, "")


@pytest.mark.parametrize(
    "arrive",
    [
        write_in_place,
        copy_with_the_old_times,
        link_into_place,
        rename_and_write_on,
        rename_and_write_anew,
        rename_and_truncate,
        rename_and_put_another_in_its_place,
        rename_with_a_second_name,
        rename_a_link,
        rename_an_empty_file,
    ],
)
def test_any_other_file_has_to_settle(seen: Seen, arrive: Callable[[Path], None]) -> None:
    arrive(seen.folder)
    assert not seen.is_complete()


def test_a_file_that_is_renamed_while_it_is_written_has_to_settle(seen: Seen) -> None:
    with open(seen.folder / "draft.part", "w") as file:
        file.write("a part of it")
        file.flush()
        (seen.folder / "draft.part").rename(seen.folder / NAME)
        assert not seen.is_complete()
        file.write(", and the rest")
    assert not seen.is_complete()


def test_a_file_that_a_program_has_mapped_to_write_to_it_has_to_settle(seen: Seen) -> None:
    program = (
        "import mmap, sys; file = open(sys.argv[1], 'r+'); mapped = mmap.mmap(file.fileno(), 0); file.close()\n"
        "print(flush=True); input()"
    )
    (seen.folder / "draft.part").write_text("a part of it")
    with subprocess.Popen(
        [sys.executable, "-c", program, seen.folder / "draft.part"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout
        writer.stdout.readline()
        (seen.folder / "draft.part").rename(seen.folder / NAME)
        assert not seen.is_complete()
        writer.communicate("\n")


def test_what_was_renamed_before_the_folder_was_followed_has_to_settle(folder: Path) -> None:
    rename_into(folder)
    assert not Seen(folder).is_complete()


def test_what_was_renamed_in_another_folder_of_the_same_path_does_not_count(seen: Seen) -> None:
    rename_into(seen.folder)
    seen.folder.rename(seen.folder.with_name("moved away"))
    seen.folder.mkdir()
    (seen.folder / NAME).write_text("a part of it")
    assert not seen.is_complete()
    rename_into(seen.folder)
    assert seen.is_complete()


def test_a_folder_above_that_is_exchanged_does_not_mislead(tmp_path: Path) -> None:
    folder = tmp_path / "mounted" / "landing"
    folder.mkdir(parents=True)
    seen = Seen(folder)
    rename_into(folder)
    (tmp_path / "mounted").rename(tmp_path / "before")
    folder.mkdir(parents=True)
    write_in_place(folder)
    assert not seen.is_complete()


def test_a_write_while_the_tick_looks_is_seen(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_at_rest(self: kernel.Kernel, folder: str, name: str, version: FileVersion) -> bool:
        found = looked(self, folder, name, version)
        rename_and_write_anew(seen.folder)
        return found

    rename_into(seen.folder)
    looked = kernel.Kernel.is_at_rest
    monkeypatch.setattr(kernel.Kernel, "is_at_rest", is_at_rest)
    assert not seen.is_complete()


def test_if_the_kernels_queue_overflows_files_settle(seen: Seen) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    rename_into(seen.folder)
    (seen.folder / "here").touch()
    for number in range(most // 2):
        os.rename(seen.folder / ("there" if number % 2 else "here"), seen.folder / ("here" if number % 2 else "there"))
    assert not seen.is_complete()
    rename_into(seen.folder)
    assert seen.is_complete()


@pytest.mark.parametrize(("owner", "is_told"), [(0, False), (65534, True)])
def test_the_kernel_tells_only_the_owner_whether_somebody_writes(folder: Path, owner: int, is_told: bool) -> None:
    if os.getuid() != 0:
        pytest.skip("needs a second user")
    rename_into(folder)
    folder.chmod(0o755)
    os.chown(folder / NAME, owner, owner)
    child = os.fork()
    if child == 0:
        os.chdir(folder)  # the folders above are closed to others
        os.setuid(65534)
        os._exit(kernel.Kernel().is_at_rest(".", NAME, FileVersion.of(os.stat(NAME))))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == is_told


def test_a_fork_knows_nothing_and_takes_nothing_from_its_parent(seen: Seen) -> None:
    rename_into(seen.folder)
    child = os.fork()
    if child == 0:
        os._exit(seen.is_complete())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert seen.is_complete()


def test_a_file_system_that_other_machines_write_to_is_not_followed(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "_file_system_of", lambda folder: "nfs4")
    assert kernel.Kernel().follow(str(seen.folder)) is None
    assert not Seen(seen.folder).is_complete()


def test_a_folder_that_is_gone_or_no_folder_is_not_followed(folder: Path) -> None:
    write_in_place(folder)
    assert kernel.Kernel().follow(str(folder / "nowhere")) is None
    assert kernel.Kernel().follow(str(folder / NAME)) is None


def test_events_that_come_twice_or_for_folders_unknown_change_nothing() -> None:
    moved, written = Event(1, inotify.MOVED_TO, b"a"), Event(1, inotify.MODIFIED, b"a")
    for events, expected in (
        ([moved, moved], {b"a"}),
        ([moved, written, written], set()),
        ([written, moved], {b"a"}),
        ([moved, Event(2, inotify.MODIFIED, b"a")], {b"a"}),
        ([moved, Event(-1, inotify.EVENTS_LOST, b"")], set()),
        ([moved, Event(1, inotify.MOVED_FROM, b"a")], set()),
    ):
        renamed: dict[int, set[bytes]] = {1: set()}
        assert note_events(events, renamed) == set()
        assert renamed == {1: expected}
    assert note_events([Event(1, inotify.DIRECTORY_MOVED, b"")], {1: set()}) == {1}
    assert renames.Renames().complete("/nowhere", {}) == set()
