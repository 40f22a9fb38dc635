"""The server from the wheel runs while a process uses it, and no longer."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg2
import pytest

from dedp_assets.resources import embedded_postgres
from tests.waiting import wait_until

_USE = """
import sys
from pathlib import Path
from dedp_assets.resources.embedded_postgres import server_lease
with server_lease(Path(sys.argv[1])) as url:
    print(url, flush=True)
    sys.stdin.read()
"""

_ATTACH = """
import sys
from pathlib import Path
from dedp_assets.resources.embedded_postgres import attach
from tests.waiting import wait_until
for _ in range(2):
    print(attach(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


class User:
    """Another process that uses the server of a folder."""

    def __init__(self, folder: Path, script: str = _USE) -> None:
        command = [sys.executable, "-c", script, str(folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def url(self) -> str:
        """Return the URL of the server, after waiting until the process has it."""
        assert self.process.stdout
        url = self.process.stdout.readline().strip()
        assert url, "it ended before it had a server"
        return url

    def leave(self) -> None:
        """End the process in an orderly way."""
        assert self.process.stdin
        self.process.stdin.close()
        assert self.process.wait(300) == 0

    def kill(self) -> None:
        """Kill the process, without any clean-up."""
        self.process.kill()
        assert self.process.wait() == -signal.SIGKILL


@contextmanager
def users(folder: Path, count: int = 1, script: str = _USE) -> Iterator[list[User]]:
    """Start processes that use the server of `folder`. At the end, those that still run leave."""
    started = [User(folder, script) for _ in range(count)]
    try:
        yield started
    finally:
        for user in started:
            with user.process:
                if user.process.poll() is None:
                    user.leave()


def answer(url: str, statement: str) -> object:
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            row = cursor.fetchone() if cursor.description else None
            return row and row[0]
    finally:
        connection.close()


def runs(folder: Path, url: str) -> bool:
    try:
        return answer(url, "SELECT true") is True
    except psycopg2.OperationalError:
        assert not (folder / "data" / "postmaster.pid").exists()
        return False


def kill_server(folder: Path) -> None:
    """Kill the main process of the server, and wait until it is no longer in the table of processes."""
    postmaster = int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])
    os.kill(postmaster, signal.SIGKILL)
    deadline = time.monotonic() + 300
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(postmaster, 0)
            time.sleep(0.01)  # only a pause: the condition above decides
        raise AssertionError(f"process {postmaster} is still there")


@pytest.fixture
def new_folder() -> Iterator[Path]:
    # Not below pytest's own folder: if root runs the tests, the server has another user, who cannot open that folder.
    with tempfile.TemporaryDirectory(prefix="dedp-tests-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that already has its data, because creating the data takes long."""
    with tempfile.TemporaryDirectory(prefix="dedp-tests-") as folder:
        with embedded_postgres.server_lease(Path(folder)):
            pass
        yield Path(folder)


def test_processes_share_a_server_and_the_last_one_stops_it(folder: Path) -> None:
    with users(folder, 2) as (first, second):
        url = first.url()
        assert second.url() == url
        first.leave()
        assert runs(folder, url)
        second.leave()
        assert not runs(folder, url)


def test_of_processes_that_leave_at_once_one_stops_the_server(folder: Path) -> None:
    with users(folder, 4) as crowd:
        url = {user.url() for user in crowd}.pop()
        assert runs(folder, url)
        for user in crowd:
            assert user.process.stdin
            user.process.stdin.close()
        assert [user.process.wait(300) for user in crowd] == [0, 0, 0, 0]
    assert not runs(folder, url)


def test_a_killed_user_leaves_a_server_that_the_next_one_uses_and_stops(folder: Path) -> None:
    with users(folder) as (killed,):
        url = killed.url()
        killed.kill()
        assert runs(folder, url)
    with users(folder) as (next_one,):
        assert next_one.url() == url
        next_one.leave()
        assert not runs(folder, url)


def test_a_killed_user_does_not_count_for_the_others(folder: Path) -> None:
    with users(folder, 2) as (killed, other):
        url = killed.url()
        other.url()
        killed.kill()
        assert runs(folder, url)
        other.leave()
        assert not runs(folder, url)


def test_a_killed_server_is_started_again_by_the_next_user_with_its_data(folder: Path) -> None:
    with users(folder) as (user,):
        url = user.url()
        answer(url, "CREATE TABLE kept AS SELECT 42 AS value")
        kill_server(folder)
        with users(folder) as (next_one,):
            assert answer(next_one.url(), "SELECT value FROM kept") == 42


def test_the_last_one_stops_a_server_that_another_has_started_again(folder: Path) -> None:
    with users(folder) as (user,):
        url = user.url()
        kill_server(folder)
        with users(folder) as (next_one,):
            assert next_one.url() == url
        assert runs(folder, url)
        user.leave()
    stopped = not runs(folder, url)
    with embedded_postgres.server_lease(folder):
        pass  # this stops the server in any case
    assert stopped


def test_attaching_lasts_until_the_process_ends(folder: Path) -> None:
    with users(folder, script=_ATTACH) as (user,):
        url = user.url()
        assert user.url() == url
        assert runs(folder, url)
        user.leave()
        assert not runs(folder, url)


def test_a_server_listens_on_no_network_address_and_has_the_projects_settings(folder: Path) -> None:
    with embedded_postgres.server_lease(folder) as url:
        assert answer(url, "SHOW listen_addresses") == ""
        assert answer(url, "SELECT inet_server_addr()") is None
        assert answer(url, "SHOW max_locks_per_transaction") == "1024"
        assert answer(url, "SHOW timezone") == "UTC"
        assert answer(url, "SHOW server_encoding") == "UTF8"
        assert answer(url, "SELECT current_database()") == embedded_postgres.DATABASE


def test_settings_are_added_once(folder: Path) -> None:
    for _ in range(2):
        with embedded_postgres.server_lease(folder):
            pass
    assert (folder / "data" / "postgresql.conf").read_text().count("# Added by dedp") == 1


def test_processes_that_start_at_once_in_a_new_folder_get_one_server(new_folder: Path) -> None:
    with users(new_folder, 3) as crowd:
        urls = {user.url() for user in crowd}
        assert len(urls) == 1
        assert runs(new_folder, *urls)
    assert not runs(new_folder, *urls)


def test_a_data_folder_may_have_a_path_longer_than_a_sockets_can_be(new_folder: Path) -> None:
    deep = new_folder.joinpath(*["a-rather-long-name-of-a-folder"] * 6)
    with users(deep) as (user,):
        url = user.url()
        assert runs(deep, url)
        assert answer(url, "SHOW data_directory") == str(deep / "data")
    assert not runs(deep, url)


def test_two_folders_have_two_servers(folder: Path, new_folder: Path) -> None:
    with embedded_postgres.server_lease(folder) as one, embedded_postgres.server_lease(new_folder) as other:
        assert one != other
        assert answer(one, "SHOW data_directory") != answer(other, "SHOW data_directory")


def test_the_runtime_folder_of_the_environment_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert "PostgreSQL" in subprocess.check_output([embedded_postgres.binary("psql"), "--version"], text=True)
    assert "XDG_RUNTIME_DIR" not in os.environ


def test_a_server_that_takes_longer_than_its_library_waits_is_waited_for(
    new_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = embedded_postgres._library()
    execute = library.pgexec

    def impatient(program: str, arguments: tuple[str, ...], **options: object) -> object:
        if "start" not in arguments:
            return execute(program, arguments, **options)
        # As if the time were up: the server is under way, and nobody has seen it ready.
        execute(program, tuple("-W" if each == "-w" else each for each in arguments), **options)
        wait_until((new_folder / "data" / "postmaster.pid").exists)
        raise subprocess.TimeoutExpired(program, 10)

    monkeypatch.setattr(library, "pgexec", impatient)
    with embedded_postgres.server_lease(new_folder) as url:
        assert runs(new_folder, url)
    assert not (new_folder / "data" / "postmaster.pid").exists()
