"""The command `dedp`: what it says, how it ends, and that it leaves nothing running."""

import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from dedp_assets import local_stack
from dedp_assets.cli import dedp

DEDP = str(Path(sys.executable).with_name("dedp"))


@pytest.fixture
def new_home(monkeypatch):
    """A home that is not there yet, where the embedded server, which under root is another user's, can reach it."""
    with tempfile.TemporaryDirectory(prefix="dedp-tests-") as folder:
        Path(folder).chmod(0o755)
        home = Path(folder) / "home"
        monkeypatch.setenv("DEDP_HOME", str(home))
        yield home


def run(*arguments):
    return subprocess.run([DEDP, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True)


def test_psql_opens_the_database_of_a_new_home_and_leaves_nothing_running(new_home, left_running):
    done = run("psql", "-XAtc", "SELECT current_database(), 6 * 7")
    assert (done.returncode, done.stdout) == (0, "dedp|42\n"), done.stderr
    assert left_running(new_home) == []


def test_psql_opens_the_database_that_the_settings_name_and_passes_on_its_exit_code(dsn, monkeypatch, own_home):
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    assert run("psql", "-XAtc", "SELECT count(*) FROM dedp.devices_raw").stdout == "0\n"
    wrong = run("psql", "-XAtc", "SELECT nonsense")
    assert wrong.returncode == 1
    assert 'column "nonsense" does not exist' in wrong.stderr
    assert not (own_home / "postgres").exists()


def test_exec_gives_a_command_the_instance_and_the_database_and_passes_on_its_exit_code(dsn, monkeypatch, own_home):
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    program = (
        "import os, sys, dagster as dg\n"
        "with dg.DagsterInstance.get() as instance: print(instance.get_runs_count(), instance.root_directory)\n"
        "sys.exit(7)"
    )
    done = run("exec", "python", "-c", program)
    assert (done.returncode, done.stdout) == (7, f"0 {own_home}/dagster\n"), done.stderr


def test_down_says_when_there_is_nothing_to_stop(own_home):
    result = CliRunner().invoke(dedp, ["down"])
    assert (result.exit_code, result.output) == (0, f"Nothing is running for {own_home}.\n")


def test_a_port_that_is_taken_is_an_error_of_one_line_before_anything_starts(own_home, left_running):
    with socket.create_server((local_stack.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        done = run("up", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr == (
        f"dedp: port {port} on 127.0.0.1 can't be used (Address already in use). "
        f"Stop what uses it, or choose another: make up PORT={port + 1}\n"
    )
    assert left_running(own_home) == []
    assert not (own_home / "postgres").exists()


def test_a_server_that_cannot_be_reached_is_an_error_that_keeps_the_password(monkeypatch):
    monkeypatch.setenv("DEDP_POSTGRES_DSN", "postgresql://somebody:secret@127.0.0.1:1/somewhere")
    done = run("up", "--port", str(local_stack.free_port()))
    assert done.returncode == 1
    assert done.stderr.startswith("dedp: PostgreSQL can't be reached")
    assert '"127.0.0.1", port 1 failed' in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stdout + done.stderr


def test_ctrl_c_in_the_middle_of_the_start_leaves_nothing_running(new_home, left_running):
    starting = subprocess.Popen(
        [DEDP, "up", "--port", str(local_stack.free_port())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # It has got as far as starting the code locations.
    while not any("grpc" in process for process in left_running(new_home)):
        assert starting.poll() is None, starting.communicate()
        time.sleep(0.2)
    starting.send_signal(signal.SIGINT)
    _, complaints = starting.communicate()
    assert (starting.returncode, complaints.strip()) == (130, "Stopped.")
    assert left_running(new_home) == []
