"""The command `dedp`: what it says, how it ends, and that it leaves nothing running."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from click.testing import CliRunner

from dedp_assets import local_stack
from dedp_assets.cli import Commands, dedp
from dedp_assets.demo.timeline import DemoFailed
from dedp_assets.errors import DedpError, SettingError
from dedp_assets.generator import ConfigError, OutputError
from dedp_assets.local_stack import lock
from dedp_assets.resources.embedded_postgres import PostgresNotStarted
from dedp_assets.resources.embedded_spark import SparkNotStarted
from dedp_assets.resources.object_store import DamagedFile, StorageProblem
from dedp_assets.resources.spark import SparkUnreachable
from tests.dedp_command import DEDP, run_dedp

LeftRunning: TypeAlias = Callable[[Path], list[str]]
Done: TypeAlias = subprocess.CompletedProcess[str]


@pytest.fixture
def new_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that does not exist yet. If root runs the tests, the embedded server has another user, who can open it."""
    with tempfile.TemporaryDirectory(prefix="dedp-tests-") as folder:
        Path(folder).chmod(0o755)
        home = Path(folder) / "home"
        monkeypatch.setenv("DEDP_HOME", str(home))
        yield home


NAMED_ERRORS = [
    *(ConfigError, DamagedFile, DemoFailed, OutputError, PostgresNotStarted, SettingError, SparkNotStarted),
    *(SparkUnreachable, local_stack.StackError, StorageProblem),
]


def commands_that_raise(error: BaseException) -> Commands:
    """Make a group of the same class as `dedp`. Its command `measure` raises the error."""
    group = Commands("dedp")

    @group.command()
    def measure() -> None:
        raise error

    return group


@pytest.mark.parametrize("error", NAMED_ERRORS)
def test_an_error_that_we_can_name_is_its_text_and_exit_code_1(error: type[DedpError]) -> None:
    done = CliRunner().invoke(commands_that_raise(error("the gauge is broken; mend it")), ["measure"])
    assert (done.exit_code, done.stderr, done.stdout) == (1, "Error: the gauge is broken; mend it\n", "")


def test_an_error_that_we_cannot_name_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        CliRunner().invoke(commands_that_raise(ZeroDivisionError()), ["measure"], catch_exceptions=False)


def test_wrong_usage_ends_with_exit_code_2() -> None:
    assert CliRunner().invoke(dedp, ["no-such-command"]).exit_code == 2
    assert CliRunner().invoke(dedp, ["load-delta", "2024-01-01", "--rows", "0"]).exit_code == 2


def test_psql_opens_the_database_of_a_new_home_and_leaves_nothing_running(
    new_home: Path, left_running: LeftRunning
) -> None:
    command = [DEDP, "psql", "-XAtc", "SELECT current_database(), 6 * 7"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "dedp|42\n"), done.stderr
    assert left_running(new_home) == []


def test_psql_opens_the_database_that_the_settings_name_and_passes_on_its_exit_code(
    dsn: str, monkeypatch: pytest.MonkeyPatch, own_home: Path
) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    assert run_dedp("psql", "-XAtc", "SELECT count(*) FROM dedp.devices_raw").stdout == "0\n"
    wrong = run_dedp("psql", "-XAtc", "SELECT nonsense")
    assert wrong.returncode == 1
    assert 'column "nonsense" does not exist' in wrong.stderr
    assert not (own_home / "postgres").exists()


def test_exec_gives_a_command_the_instance_and_the_database_and_passes_on_its_exit_code(
    dsn: str, monkeypatch: pytest.MonkeyPatch, own_home: Path
) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    program = (
        "import os, sys, dagster as dg\n"
        "with dg.DagsterInstance.get() as instance: print(instance.get_runs_count(), instance.root_directory)\n"
        "sys.exit(7)"
    )
    done = run_dedp("exec", "python", "-c", program)
    assert (done.returncode, done.stdout) == (7, f"0 {own_home}/dagster\n"), done.stderr


def test_down_says_when_there_is_nothing_to_stop(own_home: Path) -> None:
    result = CliRunner().invoke(dedp, ["down"])
    assert (result.exit_code, result.output) == (0, f"Nothing is running for {own_home}.\n")


def test_a_port_that_is_taken_is_an_error_of_one_line_before_anything_starts(
    own_home: Path, left_running: LeftRunning
) -> None:
    with socket.create_server((local_stack.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        done = run_dedp("up", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: port {port} on 127.0.0.1 can't be used (Address already in use). "
        f"Stop the process that uses it, or choose another port: make up PORT={port + 1}\n"
    )
    assert left_running(own_home) == []
    assert not (own_home / "postgres").exists()


def test_a_port_that_does_not_exist_is_an_error_of_the_option() -> None:
    result = CliRunner().invoke(dedp, ["up", "--port", "99999"])
    assert (result.exit_code, "99999 is not in the range" in result.output) == (2, True)


@pytest.mark.parametrize("command", [["serve-users"], ["metrics", "--serve"]])
def test_a_server_whose_port_is_taken_says_so(command: list[str]) -> None:
    with socket.create_server((local_stack.HOST, 0)) as taken:
        result = CliRunner().invoke(dedp, [*command, "--port", str(taken.getsockname()[1])])
    assert (result.exit_code, result.output) == (
        1,
        "Error: Address already in use. Stop the process that uses the port, or choose another one: --port\n",
    )


def test_up_names_settings_that_are_wrong_or_misspelt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDP_START", "yesterday")
    monkeypatch.setenv("DEDP_SETLE_SECONDS", "3")
    with socket.create_server((local_stack.HOST, 0)) as taken:
        result = CliRunner().invoke(dedp, ["up", "--port", str(taken.getsockname()[1])])
    assert result.output.splitlines()[1:3] == [
        "Warning: DEDP_START is 'yesterday'; expected a date such as 2024-01-31; correct DEDP_START",
        "Warning: DEDP_SETLE_SECONDS is not a setting; did you mean DEDP_SETTLE_SECONDS?",
    ]


def test_a_server_that_cannot_be_reached_is_an_error_that_keeps_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", "postgresql://somebody:secret@127.0.0.1:1/somewhere")
    done = run_dedp("up", "--port", str(local_stack.free_port()))
    assert done.returncode == 1
    assert done.stderr.startswith("Error: PostgreSQL can't be reached")
    assert '"127.0.0.1", port 1 failed' in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stdout + done.stderr


WRONG_ADDRESSES = {
    "nonsense": "DEDP_POSTGRES_DSN is not an address of a PostgreSQL server",
    "postgresql://somebody:secret word@[::1/somewhere": "DEDP_POSTGRES_DSN is not an address of a PostgreSQL server",
    "postgresql://somebody:secret@127.0.0.1:1/somewhere": "PostgreSQL can't be reached",
    "postgresql://somebody:secret@127.0.0.1:port/somewhere": "DEDP_POSTGRES_DSN is not an address of a PostgreSQL",
}


def assert_is_a_line(done: Done, *words: str) -> None:
    """Check that the command failed, and printed one line that has these words and no password."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize("command", [["exec", "true"], ["up", "--port", "0"]], ids=["exec", "up"])
@pytest.mark.parametrize(("address", "words"), WRONG_ADDRESSES.items())
def test_a_database_that_is_not_there_is_an_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch,
    left_running: LeftRunning,
    own_home: Path,
    command: list[str],
    address: str,
    words: str,
) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", address)
    # This saves the start of a Spark server.
    monkeypatch.setenv("DEDP_SPARK_REMOTE", "sc://localhost:1")
    assert_is_a_line(run_dedp(*command), "Error: ", words)
    assert left_running(own_home) == []


def test_psql_does_not_take_what_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", "postgresql://somebody:secret word@[::1/somewhere")
    assert_is_a_line(run_dedp("psql"), "DEDP_POSTGRES_DSN is not an address of a PostgreSQL server")


def test_a_program_that_does_not_exist_is_wrong_usage(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    done = run_dedp("exec", "no-such-program")
    assert done.returncode == 2
    assert done.stderr.endswith("Error: no-such-program is not a program; give `dedp exec` a program and its options\n")


@pytest.mark.parametrize("command", ["psql", "exec true", "up", "late", "down", "demo", "load-delta 2024-01-02"])
def test_a_home_that_is_no_folder_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("DEDP_HOME", str(file))
    done = run_dedp(*command.split())
    if command == "down":
        assert (done.returncode, done.stdout) == (0, f"Nothing is running for {file}.\n")
    else:
        assert_is_a_line(done, str(file))


@pytest.mark.parametrize("name", ["spark", "logs", "landing", "up.pid", "dagster"])
def test_a_home_with_something_else_in_the_place_of_a_part_is_an_error_of_one_line(
    own_home: Path, dsn: str, monkeypatch: pytest.MonkeyPatch, name: str, left_running: LeftRunning
) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    if name == "up.pid":
        (own_home / name).mkdir()
    else:
        (own_home / name).write_bytes(b"\xff\xferubbish")
        if name != "spark":
            monkeypatch.setenv("DEDP_SPARK_REMOTE", "sc://localhost:1")
    assert_is_a_line(run_dedp("up", "--port", str(local_stack.free_port())), str(own_home / name))
    assert left_running(own_home) == []


def test_a_database_folder_that_is_damaged_is_an_error_of_one_line_with_what_to_do(new_home: Path) -> None:
    (new_home / "postgres" / "data").mkdir(parents=True)
    (new_home / "postgres" / "data" / "PG_VERSION").write_text("rubbish")
    assert_is_a_line(run_dedp("psql"), f"server of {new_home}/postgres/data did not start", "put a backup back")


@contextmanager
def up_pid_that_says(home: Path, text: str, **popen: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that holds the lock of `dedp up`, with this text in its record."""
    program = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'a'); "
        "fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); time.sleep(600)"
    )
    record = home / "up.pid"
    record.touch()
    with subprocess.Popen([sys.executable, "-c", program, str(record)], stdout=subprocess.PIPE, **popen) as holder:
        assert holder.stdout
        holder.stdout.readline()
        record.write_text(text.format(pid=holder.pid))
        try:
            yield holder
        finally:
            holder.kill()


def test_down_waits_until_a_system_that_starts_has_said_which_process_it_is(own_home: Path) -> None:
    with up_pid_that_says(own_home, "") as starting:
        said = subprocess.Popen([DEDP, "down"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(1)
        (own_home / "up.pid").write_text(str(starting.pid))
        assert said.communicate() == ("Stopped.\n", "")
        assert starting.wait() == -signal.SIGTERM


@pytest.mark.parametrize("text", ["", "rubbish", str(2**22 + 1), str(10**30), "own"])
def test_down_ends_no_process_that_is_not_the_system(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """The record is empty or damaged, or it names a process that has ended, or the id belongs to another process."""
    monkeypatch.setattr(lock, "_RECORD_SECONDS", 0.3)
    with up_pid_that_says(own_home, str(os.getpid()) if text == "own" else text):
        result = CliRunner().invoke(dedp, ["down"])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: a process has locked {own_home}/up.pid")


def test_a_system_that_ends_while_it_is_asked_to_is_stopped(own_home: Path) -> None:
    with up_pid_that_says(own_home, "{pid}") as ending:
        pid = local_stack.running_pid()
        assert pid == ending.pid
        ending.kill()
        ending.wait()
        local_stack.stop_running(pid)
    assert local_stack.running_pid() is None


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_the_start_leaves_nothing_running(new_home: Path, left_running: LeftRunning) -> None:
    starting = subprocess.Popen(
        [DEDP, "up", "--port", str(local_stack.free_port())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # Wait until it starts the code locations.
    while not any("grpc" in process for process in left_running(new_home)):
        assert starting.poll() is None, starting.communicate()
        time.sleep(0.2)
    starting.send_signal(signal.SIGINT)
    _, complaints = starting.communicate()
    assert (starting.returncode, complaints.strip()) == (130, "Stopped.")
    assert left_running(new_home) == []
