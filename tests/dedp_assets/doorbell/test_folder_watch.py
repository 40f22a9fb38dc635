"""Changes in directories ring the bell, on the real notifications of this machine's kernel."""

import errno
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from dedp_assets.doorbell.bell import Bell
from dedp_assets.doorbell.folder_watch import FolderListener
from dedp_assets.doorbell.folders import Place, Polled, Watch, file_system_of, places, tells_changes, watches_of
from dedp_assets.doorbell.sources import Source
from dedp_assets.doorbell.woken_by import Listener
from dedp_assets.errors import SettingError
from dedp_assets.inotify import Inotify
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere sensors are polled")

# What the functions below return, in the place of a module of a sensor.
WATCHED: list[Watch | Polled] = []
OTHERS: list[Watch | Polled] = []


def watched() -> list[Watch | Polled]:
    return WATCHED


def others() -> list[Watch | Polled]:
    return OTHERS


def broken() -> list[Watch]:
    raise RuntimeError("no such disk")


class Heard(Bell):
    """Notes who was rung for, and when to look again."""

    def __init__(self) -> None:
        super().__init__()
        self.rung: dict[str, float] = {}
        self.later: set[str] = set()
        self.set_listeners(
            {
                "landed": Listener("landed", "here", 1, folders=f"{__name__}:watched"),
                "others": Listener("others", "here", 1, folders=f"{__name__}:others"),
            }
        )

    def ring(self, sensors: Iterable[str], settle: float = 0.0) -> None:
        self.rung |= dict.fromkeys(sensors, settle)

    def look_later(self, sensors: Iterable[str], seconds: float) -> None:
        self.later |= set(sensors)


class Listening:
    """A listener to directories, and what it has heard."""

    def __init__(self, net_seconds: float = 3600, mounts: Callable[[], list[tuple[str, str]]] = list) -> None:
        self.bell, self.stopped = Heard(), threading.Event()
        self.listener = FolderListener(self.bell, self.stopped, net_seconds, mounts)
        self.source = Source("directories", self.listener.listen, self.stopped)

    def start(self) -> None:
        self.source.start()
        wait_until(lambda: self.source.hears)
        self.clear()

    def clear(self) -> None:
        """Forget what was heard, once all has been read that was told until now."""
        # The first of two rounds that begin from now on reads it; when the second one begins, the first one is over.
        for _ in range(2):
            now = time.monotonic()
            self.listener.wake()
            wait_until(lambda now=now: self.listener._seen_alive > now)  # type: ignore[misc]
        self.bell.rung.clear()
        self.bell.later.clear()

    def stop(self) -> None:
        self.stopped.set()
        self.listener.wake()
        self.source.join(300)

    def hears(self, act: Callable[[], object], sensor: str = "landed") -> bool:
        self.clear()
        act()
        wait_until(lambda: sensor in self.bell.rung)
        return True


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a;b\n")


def renamed(path: Path) -> None:
    draft = path.parent.parent / "draft"
    draft.write_text("a;b\n")
    draft.rename(path)


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    folder = tmp_path / "landing"
    folder.mkdir()
    WATCHED[:] = [Watch(folder, depth=1, settle_seconds=2.0)]
    OTHERS[:] = []
    return folder


@pytest.fixture
def listening(landing: Path) -> Iterator[Listening]:
    made = Listening()
    made.start()
    yield made
    made.stop()


def test_a_file_that_is_renamed_into_place_rings(landing: Path, listening: Listening) -> None:
    assert listening.hears(lambda: renamed(landing / "dataset.csv"))


def test_a_file_that_is_written_in_place_rings_and_asks_for_another_look_once_it_has_settled(
    landing: Path, listening: Listening
) -> None:
    assert listening.hears(lambda: write(landing / "dataset.csv"))
    wait_until(lambda: listening.bell.rung["landed"] == 2.0)


def test_while_a_file_is_being_written_its_sensor_is_looked_at_later_and_not_rung_for(
    landing: Path, listening: Listening
) -> None:
    with open(landing / "dataset.csv", "wb", buffering=0) as file:
        listening.clear()
        file.write(b"half")
        wait_until(lambda: "landed" in listening.bell.later)
        assert not listening.bell.rung


def test_a_draft_does_not_ring_and_its_rename_does(landing: Path, tmp_path: Path) -> None:
    (tmp_path / "beside").mkdir()
    WATCHED[:], OTHERS[:] = [Watch(landing, draft_endings=(".tmp",))], [Watch(tmp_path / "beside")]
    listening = Listening()
    listening.start()
    write(landing / "dataset.csv.tmp")
    write(landing / ".dataset.csv")
    # The kernel tells in order: what the drafts would ring for has been told before this.
    (tmp_path / "beside" / "mark").touch()
    wait_until(lambda: "others" in listening.bell.rung)
    assert "landed" not in listening.bell.rung.keys() | listening.bell.later
    assert listening.hears(lambda: (landing / "dataset.csv.tmp").rename(landing / "dataset.csv"))
    listening.stop()


def test_a_directory_that_appears_later_is_watched_with_what_is_in_it(landing: Path, listening: Listening) -> None:
    assert listening.hears(lambda: write(landing / "2024-01-05" / "dataset.csv"))
    assert listening.hears(lambda: renamed(landing / "2024-01-05" / "dataset.csv"))


def test_deeper_than_said_nothing_rings(landing: Path, listening: Listening) -> None:
    assert listening.hears(lambda: (landing / "2024-01-05" / "deep").mkdir(parents=True))
    listening.clear()
    (landing / "2024-01-05" / "deep" / "file").touch()
    renamed(landing / "mark")
    wait_until(lambda: bool(listening.bell.rung))
    deep = listening.listener._interests.values()
    assert not any(path.endswith("deep") for interests in deep for path in interests.values())


def test_a_directory_that_does_not_exist_yet_is_waited_for_level_by_level(tmp_path: Path) -> None:
    WATCHED[:] = [Watch(tmp_path / "a" / "b" / "_delta_log")]
    OTHERS[:] = []
    listening = Listening()
    listening.start()
    assert listening.hears(lambda: (tmp_path / "a").mkdir())
    assert listening.hears(lambda: (tmp_path / "a" / "b" / "_delta_log").mkdir(parents=True))
    assert listening.hears(lambda: renamed(tmp_path / "a" / "b" / "_delta_log" / "00000000000000000000.json"))
    listening.stop()


def test_each_commit_to_a_delta_table_rings_also_the_one_that_creates_it(tmp_path: Path) -> None:
    table = tmp_path / "lake" / "devices"
    WATCHED[:], OTHERS[:] = [Watch(table / "_delta_log")], []
    listening = Listening()
    listening.start()
    rows = pa.table({"event_time": ["2024-01-05"]})
    assert listening.hears(lambda: write_deltalake(table, rows, mode="append"))
    wait_until(lambda: not listening.listener.is_deaf("landed"))
    assert listening.hears(lambda: write_deltalake(table, rows, mode="append"))
    listening.stop()


def test_a_directory_that_is_deleted_and_made_again_is_watched_again(landing: Path, listening: Listening) -> None:
    write(landing / "2024-01-05" / "dataset.csv")
    assert listening.hears(lambda: shutil.rmtree(landing))
    assert listening.hears(lambda: write(landing / "2024-01-05" / "dataset.csv"))
    assert listening.hears(lambda: renamed(landing / "2024-01-05" / "dataset.csv"))


def test_a_directory_that_is_moved_away_rings_no_more_and_its_successor_does(
    landing: Path, listening: Listening, tmp_path: Path
) -> None:
    assert listening.hears(lambda: landing.rename(tmp_path / "old"))
    assert listening.hears(lambda: landing.mkdir())
    assert listening.hears(lambda: renamed(landing / "dataset.csv"))
    paths = [path for interests in listening.listener._interests.values() for path in interests.values()]
    assert paths == [str(landing)]


def test_a_file_that_names_the_directories_has_them_named_again(
    landing: Path, listening: Listening, tmp_path: Path
) -> None:
    new = tmp_path / "another"
    new.mkdir()
    OTHERS[:] = [Watch(tmp_path, name="uploads.yaml")]
    listening.listener.wake()
    wait_until(lambda: "others" in listening.bell.rung)

    def name_another() -> None:
        OTHERS.append(Watch(new))
        (tmp_path / "uploads.yaml").write_text("...")

    assert listening.hears(name_another, "others")
    assert listening.hears(lambda: renamed(new / "file.csv"), "others")


def test_where_the_queue_of_the_kernel_overflows_every_directory_is_looked_at(
    landing: Path, listening: Listening
) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dedp_assets.doorbell.folder_watch._GATHER_SECONDS", 3600)
        # It waits until it is told to stop, so it reads nothing meanwhile.
        listening.stopped.wait = lambda _=None: overflown.wait() and False  # type: ignore[assignment,method-assign]
        overflown = threading.Event()
        a, b = landing / "a", landing / "b"
        a.touch()
        for _ in range(most // 2 + 100):
            a.rename(b)
            b.rename(a)
        late = landing / "2024-01-05"
        late.mkdir()
        listening.bell.rung.clear()
        overflown.set()
        wait_until(lambda: "landed" in listening.bell.rung)
        wait_until(lambda: any(str(late) in each.values() for each in listening.listener._interests.values()))


@pytest.mark.slow
def test_a_thousand_files_in_as_many_directories_ring_and_new_directories_are_watched(tmp_path: Path) -> None:
    WATCHED[:], OTHERS[:] = [Watch(tmp_path / "clients", depth=1)], []
    listening = Listening()
    listening.start()
    for number in range(1000):
        write(tmp_path / "clients" / f"client{number}" / "file.csv")
    wait_until(lambda: len(listening.listener._interests) == 1001)
    assert listening.hears(lambda: renamed(tmp_path / "clients" / "client999" / "file.csv"))
    listening.stop()


def test_at_the_kernels_limit_of_watches_the_sensor_is_polled_and_says_so(
    landing: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for day in ("2024-01-05", "2024-01-06", "2024-01-07"):
        (landing / day).mkdir()
    add, numbers = Inotify.add, set[str]()

    def limited(self: Inotify, directory: str, kinds: int) -> int:
        if len(numbers) == 2 and directory not in numbers:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        numbers.add(directory)
        return add(self, directory, kinds)

    monkeypatch.setattr(Inotify, "add", limited)
    listening = Listening()
    listening.start()
    assert listening.listener.is_deaf("landed")
    assert not listening.listener.is_deaf("others")
    assert "fs.inotify.max_user_watches" in caplog.text
    assert listening.hears(lambda: renamed(landing / "dataset.csv"))
    listening.stop()


def test_what_lies_on_a_network_is_polled_and_said(landing: Path, caplog: pytest.LogCaptureFixture) -> None:
    listening = Listening(mounts=lambda: [("/", "ext4"), (str(landing.parent), "nfs4")])
    listening.start()
    assert listening.listener.is_deaf("landed")
    assert "is on a file system of a network (nfs4). This sensor is polled every 5 s" in caplog.text
    listening.stop()


def test_an_object_store_is_polled_and_the_directories_beside_it_ring(landing: Path) -> None:
    WATCHED.append(Polled("s3://bucket/uploads is in an object store"))
    listening = Listening()
    listening.start()
    assert listening.listener.is_deaf("landed")
    assert listening.hears(lambda: renamed(landing / "dataset.csv"))
    listening.stop()


def test_a_sensor_whose_function_fails_is_polled_and_the_others_ring(
    landing: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listening = Listening()
    listeners = dict(listening.bell.listeners)
    listeners["others"] = Listener("others", "here", 1, folders=f"{__name__}:broken")
    listening.bell.set_listeners(listeners)
    listening.start()
    assert listening.listener.is_deaf("others")
    assert f"others: {__name__}:broken failed and named no directories: RuntimeError: no such disk" in caplog.text
    assert listening.hears(lambda: renamed(landing / "dataset.csv"))
    listening.stop()


def test_a_listener_that_hangs_counts_as_deaf(landing: Path) -> None:
    listening = Listening(net_seconds=5)
    listening.start()
    assert not listening.listener.is_deaf("landed")
    listening.listener._seen_alive -= 60
    assert listening.listener.is_deaf("landed")
    listening.stop()


def test_a_name_that_is_no_function_is_an_error_that_says_what_was_expected() -> None:
    with pytest.raises(SettingError, match="no_such_module:x should name a function that returns the directories"):
        watches_of("no_such_module:x")


def test_of_a_directory_that_is_missing_the_nearest_one_above_it_is_watched(tmp_path: Path) -> None:
    assert list(places(Watch(tmp_path / "a" / "b", depth=3))) == [Place(str(tmp_path), -1)]
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    assert list(places(Watch(tmp_path / "a" / "b", depth=1))) == [
        Place(str(tmp_path / "a" / "b"), 1),
        Place(str(tmp_path / "a" / "b" / "c"), 0),
    ]


def test_the_file_system_of_a_path_is_that_of_the_nearest_mount_above_it() -> None:
    mounts = [("/", "ext4"), ("/data", "nfs4"), ("/data/local", "xfs"), ("/data", "ext4")]
    assert file_system_of("/data/local/file", mounts) == "xfs"
    assert file_system_of("/data/other", mounts) == "ext4"  # the later mount hides the earlier one
    assert file_system_of("/database", mounts) == "ext4"
    assert tells_changes("ext4")
    assert not tells_changes("nfs4")
