"""A copy is one complete version of the source or nothing, whatever happens to the source or to the copier."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from dedp_assets.landing import copying
from dedp_assets.landing.copies import StorageFailed, read_record
from dedp_assets.landing.copying import CopiedFile, NotCopied, SeenSince, StillBeingWritten, copy_when_settled
from dedp_assets.landing.versions import FileVersion

# Enough rows for more than one read of the copier.
ROWS = 70_000


def version_text(number: int, rows: int = ROWS) -> str:
    """The text of a file that says which version it is and whether it is complete. All versions have the same size."""
    row = f"version {number:06};\n"
    return f"header {number:06};\n" + row * rows + f"{rows:06} rows;\n"


def version_of(path: Path) -> int:
    """The version that a file holds. Asserts that it is that version, complete and nothing else."""
    text = path.read_text()
    number = int(text[len("header ") :].split(";", 1)[0])
    rows = text.count("\n") - 2
    assert text == version_text(number, rows)
    return number


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def copy(source: Path, destination: Path, *, settle_seconds: float = 0.0, patience: float = 30.0) -> CopiedFile:
    return copy_when_settled(source, destination, settle_seconds=settle_seconds, patience=patience)


@contextmanager
def meanwhile(step: Callable[[int], None]) -> Iterator[None]:
    """Call `step` with 1, 2, 3 ... in another thread until the block ends."""
    over = threading.Event()

    def repeat() -> None:
        number = 0
        while not over.is_set():
            number += 1
            step(number)

    with ThreadPoolExecutor(1) as pool:
        repeated = pool.submit(repeat)
        try:
            yield
        finally:
            over.set()
        repeated.result()


@contextmanager
def at_call_of(name: str, action: Callable[[], object]) -> Iterator[None]:
    """Call `action` once, right after this thread's next call of the built-in function `name`."""

    def watch(_frame: FrameType, event: str, function: Any) -> None:
        if event == "c_return" and function.__name__ == name:
            sys.setprofile(None)
            action()

    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)


WhileItWaits = Callable[[Callable[[], object]], None]


@pytest.fixture
def while_it_waits(monkeypatch: pytest.MonkeyPatch) -> WhileItWaits:
    """Has somebody act each time that the copier waits: so it never looks twice without that, however busy we are."""

    def act(action: Callable[[], object]) -> None:
        def sleep(seconds: float) -> None:
            action()
            time.sleep(seconds)

        monkeypatch.setattr(copying, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))

    return act


def replace_with(path: Path, text: str) -> None:
    draft = path.with_name(path.name + ".draft")
    draft.write_text(text)
    draft.replace(path)


def test_the_report_tells_source_size_lines_and_digest_of_what_was_copied(tmp_path: Path) -> None:
    source, destination = tmp_path / "landed.csv", tmp_path / "kept" / "dataset.csv"
    source.write_text(version_text(1))
    copied = copy(source, destination)
    content = destination.read_bytes()
    assert content == source.read_bytes()
    assert copied.source == source
    assert copied.size_bytes == len(content)
    assert copied.line_count == ROWS + 2
    assert copied.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"a", 1),
        (b"a\n", 1),
        (b"a\nb", 2),
        (b"a\r\nb\r\n", 2),
        (b"\n\n", 2),
        (b"x" * (1 << 20), 1),
        (b"x" * ((1 << 20) - 1) + b"\n", 1),
        (b"x" * (1 << 20) + b"\ny", 2),
        (b"\xff\x00\n", 1),
    ],
    ids=[
        "no end",
        "one line",
        "last line without end",
        "carriage returns",
        "blank lines",
        "a whole chunk",
        "a chunk that ends a line",
        "a line end that begins a chunk",
        "not text",
    ],
)
def test_lines_are_counted_with_or_without_an_end_of_the_last_one(tmp_path: Path, content: bytes, lines: int) -> None:
    source = tmp_path / "landed.csv"
    source.write_bytes(content)
    copied = copy(source, tmp_path / "dataset.csv")
    assert (tmp_path / "dataset.csv").read_bytes() == content
    assert (copied.size_bytes, copied.line_count) == (len(content), lines)


# Copies, but stops for good at one step of the way, and says so.
STOPS_AT_A_STEP = """
import sys, time
from pathlib import Path
from dedp_assets.landing.copying import copy_when_settled

source, destination, wanted_event, wanted_name, wanted_turn = sys.argv[1:]
turns = 0

def watch(frame, event, function):
    global turns
    ours = frame.f_code.co_filename.endswith(("copying.py", "copies.py", "whole_files.py"))
    if ours and event == wanted_event and function.__name__ == wanted_name:
        turns += 1
        if turns == int(wanted_turn):
            sys.stdout.write("there\\n")
            sys.stdout.flush()
            time.sleep(600)

sys.setprofile(watch)
copy_when_settled(Path(source), Path(destination), settle_seconds=0.0)
"""

# An event of the profiler, a built-in function, and its how manieth call.
Step = tuple[str, str, int]

STEPS: dict[str, Step] = {
    "with the lock taken": ("c_return", "flock", 1),
    "with an empty draft": ("c_call", "write", 1),
    "with a part written": ("c_return", "write", 1),
    "with all written, not yet on the disk": ("c_call", "fsync", 1),
    "just before it is recorded what will be copied": ("c_call", "replace", 1),
    "just before the draft takes the name": ("c_call", "replace", 2),
    "just after the draft took the name": ("c_return", "replace", 2),
    "just before the copy's source is recorded": ("c_call", "replace", 3),
    "just after the copy's source was recorded": ("c_return", "replace", 3),
}


@pytest.mark.parametrize("earlier_copy", [True, False], ids=["over an earlier copy", "for the first time"])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_copier_killed_at_any_step_leaves_no_half_file_and_the_next_one_ends_exact(
    tmp_path: Path, step: Step, earlier_copy: bool
) -> None:
    source, destination = tmp_path / "landed.csv", tmp_path / "kept" / "dataset.csv"
    if earlier_copy:
        source.write_text(version_text(1))
        copy(source, destination)
    source.write_text(version_text(2))

    killed = subprocess.Popen(
        [sys.executable, "-c", STOPS_AT_A_STEP, source, destination, *map(str, step)], stdout=subprocess.PIPE, text=True
    )
    with killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "there\n"
        killed.send_signal(signal.SIGKILL)

    took_the_name = (
        step[1:] in (("replace", 2), ("replace", 3)) and step != STEPS["just before the draft takes the name"]
    )
    recorded = read_record(destination)
    assert (recorded is not None) == destination.exists()
    assert recorded is None or recorded.sha256 == hashlib.sha256(destination.read_bytes()).hexdigest()
    if took_the_name:
        assert version_of(destination) == 2
    elif earlier_copy:
        assert version_of(destination) == 1
    else:
        assert not destination.exists()
    assert copy(source, destination).sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert version_of(destination) == 2
    assert names_in(destination.parent) == {"dataset.csv", ".lock", "source.json"}


def test_every_copy_of_a_source_replaced_in_a_tight_loop_is_one_complete_version(tmp_path: Path) -> None:
    source, destination = tmp_path / "landed.csv", tmp_path / "dataset.csv"
    source.write_text(version_text(0))
    seen: list[int] = []
    with meanwhile(lambda number: replace_with(source, version_text(number))):
        while len(seen) < 15 or seen[-1] == seen[0]:
            copied = copy(source, destination, settle_seconds=0.02)
            assert copied.sha256 == hashlib.sha256(destination.read_bytes()).hexdigest()
            seen.append(version_of(destination))
    assert seen == sorted(seen)


def test_every_copy_of_a_source_rewritten_in_place_with_rests_is_one_complete_version(tmp_path: Path) -> None:
    source, destination = tmp_path / "landed.csv", tmp_path / "dataset.csv"
    source.write_text(version_text(0))

    def rewrite(number: int) -> None:
        content = version_text(number).encode()
        with open(source, "r+b", buffering=0) as stream:
            for start in range(0, len(content), 100_000):
                stream.write(content[start : start + 100_000])
        time.sleep(0.7)

    seen: list[int] = []
    with meanwhile(rewrite):
        while not seen or seen[-1] < seen[0] + 3:
            copy(source, destination, settle_seconds=0.4)
            seen.append(version_of(destination))
    assert seen == sorted(seen)


def test_a_source_changed_in_place_under_the_copy_is_copied_again(tmp_path: Path) -> None:
    source, destination = tmp_path / "landed.csv", tmp_path / "dataset.csv"
    source.write_text(version_text(1))
    os.utime(source, (0, 0))
    with at_call_of("write", lambda: source.write_text(version_text(2))):
        copied = copy(source, destination)
    assert version_of(destination) == 2
    assert copied.sha256 == hashlib.sha256(destination.read_bytes()).hexdigest()


def test_a_source_replaced_under_the_copy_is_another_version_that_waits_for_its_turn(tmp_path: Path) -> None:
    source, destination = tmp_path / "landed.csv", tmp_path / "dataset.csv"
    source.write_text(version_text(1))
    with at_call_of("write", lambda: replace_with(source, version_text(2))):
        copy(source, destination)
    assert version_of(destination) == 1
    copy(source, destination)
    assert version_of(destination) == 2


def test_a_source_that_is_deleted_under_the_copy_is_copied_whole(tmp_path: Path) -> None:
    source, destination = tmp_path / "landed.csv", tmp_path / "dataset.csv"
    source.write_text(version_text(1))
    with at_call_of("write", source.unlink):
        copy(source, destination)
    assert version_of(destination) == 1


def test_a_file_that_never_comes_to_rest_is_not_taken_and_the_earlier_copy_stays(
    tmp_path: Path, while_it_waits: WhileItWaits
) -> None:
    source, destination = tmp_path / "landed.csv", tmp_path / "kept" / "dataset.csv"
    source.write_text(version_text(1))
    copy(source, destination)

    def grow() -> None:
        with open(source, "a") as stream:
            stream.write("one more line\n")

    while_it_waits(grow)
    with pytest.raises(StillBeingWritten, match="still being written") as raised:
        copy(source, destination, settle_seconds=0.5, patience=1.0)
    assert str(source) in str(raised.value)
    assert version_of(destination) == 1
    assert names_in(destination.parent) == {"dataset.csv", ".lock", "source.json"}


def test_a_file_that_changes_during_every_copy_is_given_up_too(tmp_path: Path) -> None:
    source, destination = tmp_path / "landed.csv", tmp_path / "kept" / "dataset.csv"
    source.write_text(version_text(1))

    def touch_at_each_write(_frame: FrameType, event: str, function: Any) -> None:
        if event == "c_return" and function.__name__ == "write":
            os.utime(source)

    sys.setprofile(touch_at_each_write)
    try:
        with pytest.raises(StillBeingWritten, match="changed during every copy"):
            copy(source, destination, settle_seconds=0.0, patience=0.5)
    finally:
        sys.setprofile(None)
    assert not destination.exists()


def test_a_writer_that_keeps_an_old_time_of_change_while_it_writes_is_waited_for(
    tmp_path: Path, while_it_waits: WhileItWaits
) -> None:
    source, destination = tmp_path / "landed.csv", tmp_path / "dataset.csv"
    text = version_text(3, rows=100)
    parts = [text[start : start + 200] for start in range(0, len(text), 200)]
    source.write_text(parts.pop(0))

    def write() -> None:
        if parts:
            with open(source, "a") as stream:
                stream.write(parts.pop(0))
            os.utime(source, (0, 0))

    while_it_waits(write)
    copy(source, destination, settle_seconds=0.1)
    assert destination.read_text() == text


def test_many_files_settle_at_the_same_time(tmp_path: Path) -> None:
    sources = [tmp_path / f"{number}.csv" for number in range(10)]
    seen = SeenSince()
    for source in sources:
        source.write_text("content")
        seen.unchanged_since(source)
    # When the last one has settled, so have all others.
    for source, patience in zip(reversed(sources), [30.0, *[0.0] * 9], strict=True):
        destination = tmp_path / source.stem / "dataset.csv"
        copy_when_settled(source, destination, settle_seconds=0.5, patience=patience, seen=seen)


def test_what_was_seen_to_be_complete_before_is_not_waited_for_unless_it_has_changed_since(tmp_path: Path) -> None:
    source = tmp_path / "landed.csv"
    source.write_text("content")
    complete = SeenSince({source: FileVersion.of(source.stat())})
    copy_when_settled(source, tmp_path / "one" / "dataset.csv", settle_seconds=60, patience=0, seen=complete)
    source.write_text("content of another version")
    with pytest.raises(StillBeingWritten):
        copy_when_settled(source, tmp_path / "two" / "dataset.csv", settle_seconds=60, patience=0, seen=complete)


def test_a_growing_file_is_taken_whole_once_it_has_come_to_rest(tmp_path: Path, while_it_waits: WhileItWaits) -> None:
    source, destination = tmp_path / "landed.csv", tmp_path / "dataset.csv"
    parts = [version_text(7)[start : start + 300_000] for start in range(0, len(version_text(7)), 300_000)]
    source.write_text(parts.pop(0))

    def write() -> None:
        if parts:
            with open(source, "a") as stream:
                stream.write(parts.pop(0))

    while_it_waits(write)
    copy(source, destination, settle_seconds=0.3)
    assert version_of(destination) == 7


def test_a_change_time_in_the_future_does_not_hold_a_file_back_for_ever(tmp_path: Path) -> None:
    source, destination = tmp_path / "landed.csv", tmp_path / "dataset.csv"
    source.write_text(version_text(1))
    tomorrow = time.time() + 86_400
    os.utime(source, (tomorrow, tomorrow))
    copy(source, destination, settle_seconds=0.3, patience=10)
    assert version_of(destination) == 1


def make_empty(path: Path) -> None:
    path.touch()


def make_nothing(_path: Path) -> None:
    pass


def make_folder(path: Path) -> None:
    path.mkdir()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))


def make_file_where_a_folder_should_be(path: Path) -> None:
    path.parent.rmdir()
    path.parent.touch()


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (make_empty, "is empty"),
        (make_nothing, "found nothing"),
        (make_folder, "found a folder"),
        (make_fifo, "special file"),
        (make_loop, "found nothing|Too many levels"),
        (make_dangling_link, "found nothing"),
        (make_file_where_a_folder_should_be, "found nothing|Not a directory"),
    ],
)
def test_what_is_no_file_with_content_is_refused_by_name_and_the_earlier_copy_stays(
    tmp_path: Path, make: Callable[[Path], None], found: str
) -> None:
    source, destination = tmp_path / "landing" / "dataset.csv", tmp_path / "kept" / "dataset.csv"
    source.parent.mkdir()
    destination.parent.mkdir()
    destination.write_text(version_text(1))
    make(source)
    with pytest.raises(NotCopied, match=found) as raised:
        copy(source, destination)
    assert not isinstance(raised.value, StillBeingWritten)
    assert str(source) in str(raised.value)
    assert version_of(destination) == 1
    assert names_in(destination.parent) <= {"dataset.csv", ".lock", "source.json"}


def test_a_name_that_the_system_refuses_is_reported_as_such(tmp_path: Path) -> None:
    source = tmp_path / ("n" * 300)
    with pytest.raises(NotCopied, match="can't be read: File name too long") as raised:
        copy(source, tmp_path / "dataset.csv")
    assert str(source) in str(raised.value)


def test_a_copy_that_the_disk_does_not_take_names_both_files_and_the_earlier_copy_stays(tmp_path: Path) -> None:
    source, destination = tmp_path / "landed.csv", tmp_path / "kept" / "dataset.csv"
    source.write_text(version_text(1))
    copy(source, destination)
    source.write_text(version_text(2))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StorageFailed) as raised:
            copy(source, destination)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.may_pass
    assert str(raised.value) == (
        f"failed to copy {source} to {destination}: File too large; check the disk, and the rights on files and folders"
    )
    assert version_of(destination) == 1
    assert names_in(destination.parent) == {"dataset.csv", ".lock", "source.json"}


def test_a_folder_that_cannot_be_made_is_named_with_the_reason(tmp_path: Path) -> None:
    source = tmp_path / "landed.csv"
    source.write_text(version_text(1))
    (tmp_path / "kept").write_text("a file where the folder should be")
    with pytest.raises(
        StorageFailed, match=r"failed to lock .*/kept/day: Not a directory: .*/kept/day; check the disk"
    ):
        copy(source, tmp_path / "kept" / "day" / "dataset.csv")


COPIES = """
import sys
from pathlib import Path
from dedp_assets.landing.copying import copy_when_settled

print(copy_when_settled(Path(sys.argv[1]), Path(sys.argv[2]), settle_seconds=0.01).sha256)
"""


def test_eight_copies_of_one_day_at_once_end_with_one_complete_file(tmp_path: Path) -> None:
    source, destination = tmp_path / "landed.csv", tmp_path / "kept" / "dataset.csv"
    source.write_text(version_text(0))
    digests = {hashlib.sha256(version_text(0).encode()).hexdigest()}

    def replace_source(number: int) -> None:
        digests.add(hashlib.sha256(version_text(number).encode()).hexdigest())
        replace_with(source, version_text(number))
        time.sleep(0.01)

    with meanwhile(replace_source):
        copiers = [
            subprocess.Popen([sys.executable, "-c", COPIES, source, destination], stdout=subprocess.PIPE, text=True)
            for _ in range(8)
        ]
        while any(copier.poll() is None for copier in copiers):
            if destination.exists():
                version_of(destination)
            time.sleep(0.005)
        reports = [copier.communicate()[0].strip() for copier in copiers]

    assert [copier.returncode for copier in copiers] == [0] * 8
    assert set(reports) <= digests
    assert hashlib.sha256(destination.read_bytes()).hexdigest() in reports
    version_of(destination)
    assert names_in(destination.parent) == {"dataset.csv", ".lock", "source.json"}


def test_a_copy_waits_for_another_of_the_same_day_and_not_for_other_days(tmp_path: Path) -> None:
    source = tmp_path / "landed.csv"
    source.write_text(version_text(1))
    stopped = subprocess.Popen(
        [sys.executable, "-c", STOPS_AT_A_STEP, source, tmp_path / "one" / "dataset.csv", "c_call", "replace", "1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    with stopped, ThreadPoolExecutor(1) as pool:
        assert stopped.stdout is not None
        assert stopped.stdout.readline() == "there\n"
        same_day = pool.submit(copy, source, tmp_path / "one" / "dataset.csv")
        copy(source, tmp_path / "other" / "dataset.csv")
        assert version_of(tmp_path / "other" / "dataset.csv") == 1
        assert not (tmp_path / "one" / "dataset.csv").exists()
        stopped.kill()
        same_day.result()
    assert version_of(tmp_path / "one" / "dataset.csv") == 1


def test_the_paths_may_be_given_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("landed.csv").write_text(version_text(1))
    copy(Path("landed.csv"), Path("kept/dataset.csv"))
    assert version_of(tmp_path / "kept" / "dataset.csv") == 1
