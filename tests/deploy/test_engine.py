"""The engine that stands for Docker: what it starts is contained, starts again, and ends with us."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from dedp_assets import settings
from tests.deploy.compose import DOCKER
from tests.deploy.engine import ControlGroup, Engine, why_not
from tests.deploy.images import Image
from tests.waiting import wait_until

IMAGE = Image(user="12345", environment={"PATH": "/usr/bin:/bin"}, folder="/")
PROJECT: dict[str, Any] = {
    "networks": {"inside": None, "other": None},
    "services": {
        "first": {
            "command": ["sleep", "3600"],
            "networks": {"inside": None},
            "read_only": True,
            "restart": "unless-stopped",
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "tmpfs": ["/tmp:size=1m"],
        },
        "once": {"command": ["false"], "networks": {"other": None}, "restart": "on-failure:2"},
        "after": {
            "command": ["sleep", "3600"],
            "networks": {"other": None},
            "depends_on": {"once": {"condition": "service_completed_successfully"}},
        },
        # Its health check ends with what is in a file.
        "watched": {
            "command": ["sleep", "3600"],
            "networks": {"inside": None},
            "restart": "unless-stopped",
            "tmpfs": ["/tmp:size=1m"],
            "volumes": [
                {
                    "type": "bind",
                    "source": str(DOCKER / "watchdog.sh"),
                    "target": "/opt/watchdog.sh",
                    "read_only": True,
                }
            ],
            "healthcheck": {"test": ["CMD", "sh", "/opt/watchdog.sh", "sh", "-c", "exit $(cat /tmp/code)"]},
        },
        # A line without an end, of which `tail` keeps all.
        "greedy": {
            "command": ["sh", "-c", "head -c 64m /dev/zero | tail -n 1 | wc -c"],
            "networks": {"other": None},
            "deploy": {"resources": {"limits": {"memory": "33554432", "pids": 10, "cpus": 0.5}}},
        },
    },
}

# Starts containers, says which process one of them is, and waits.
OWNER = """
import sys, time
from pathlib import Path
from tests.deploy.test_engine import IMAGE, PROJECT, Engine, commands_of
engine = Engine(PROJECT, dict.fromkeys(PROJECT["services"], IMAGE), Path(sys.argv[1]), 1)
engine.make()
engine.up()
while not (commands := commands_of(engine, "first")):
    time.sleep(0.05)
print(commands[0].pid, flush=True)
time.sleep(3600)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    if reason := why_not():
        pytest.skip(reason)
    # Not below pytest's own temporary folder: the users of the containers may not enter that.
    with tempfile.TemporaryDirectory(prefix="dedp-engine-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def commands_of(engine: Engine, name: str) -> list[psutil.Process]:
    """The processes that are the service itself, and no longer those that make its container."""
    found = []
    for process in engine.containers[name].processes():
        with suppress(psutil.NoSuchProcess):
            if process.name() == "sleep":
                found.append(process)
    return found


def test_a_container_is_contained_starts_again_as_its_policy_says_and_waits_for_what_it_depends_on(
    folder: Path,
) -> None:
    engine = Engine(PROJECT, dict.fromkeys(PROJECT["services"], IMAGE), folder, 1)
    try:
        engine.make()
        engine.up()
        wait_until(lambda: commands_of(engine, "first"))
        contained = engine.run_in(
            "first", ["sh", "-c", "id -u; touch /intruder || echo refused; echo > /tmp/file; ls /tmp"]
        )
        assert contained.stdout.split() == ["12345", "refused", "file"]
        assert not engine.reaches("first", engine.address("after"), 1)

        def restarts(name: str, starts: int) -> bool:
            engine.up()
            return engine.containers[name].starts == starts

        engine.kill("first")
        wait_until(lambda: restarts("first", 2))
        wait_until(lambda: restarts("once", 3) and engine.containers["once"].exit_code == 1)
        assert engine.containers["after"].starts == 0
    finally:
        engine.close()


@pytest.fixture
def engine(folder: Path) -> Iterator[Engine]:
    made = Engine(PROJECT, dict.fromkeys(PROJECT["services"], IMAGE), folder, 1)
    try:
        made.make()
        yield made
    finally:
        made.close()


def test_the_watchdog_ends_what_has_given_no_sign_of_life_for_long_and_nothing_else(engine: Engine) -> None:
    def check(code: int, silent_for: str = "") -> bool:
        """Run the health check. Returns whether the service runs on."""
        if silent_for:
            engine.run_in("watched", ["touch", f"--date={silent_for} ago", "/tmp/silent"])
        engine.run_in("watched", ["sh", "-c", f"echo {code} >/tmp/code"])
        assert engine.is_healthy("watched") == (code == 0)
        # Process 1 takes a moment to end. It is only given this moment where it is to end.
        return engine.containers["watched"].main_process is not None

    engine.up("watched")
    wait_until(lambda: commands_of(engine, "watched"))
    assert check(2)  # the first time
    assert check(2, "4 minutes")
    assert check(1, "10 minutes")  # it says that it does not work, so it lives
    assert check(2)
    assert check(137, "10 minutes")  # the check was killed, and says nothing
    assert check(2)
    assert check(0, "10 minutes")
    assert check(2)
    engine.hang("watched")
    engine.run_in("watched", ["touch", "--date=10 minutes ago", "/tmp/silent"])
    assert not engine.is_healthy("watched")

    def is_up_again() -> bool:
        engine.up("watched")
        return engine.has_started_again("watched", 1) and bool(commands_of(engine, "watched"))

    wait_until(is_up_again)
    assert check(2)  # it begins anew


def test_a_container_gets_no_more_than_its_limits(engine: Engine) -> None:
    if engine.groups["greedy"].folders.keys() != {"memory", "pids", "cpus"}:
        pytest.skip("this machine has no control groups that can be set")
    engine.up("greedy")
    process = engine.containers["greedy"].process
    assert process is not None
    process.wait()
    # The kernel may end process 1 as well, which is charged what its child has not given back yet.
    assert engine.groups["greedy"].killed >= 1


def test_no_container_outlives_the_process_that_has_started_it_even_if_that_is_killed(folder: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)], cwd=settings.REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    contained = int(owner.stdout.readline())
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    wait_until(lambda: not psutil.pid_exists(contained))
    ControlGroup.remove_those_of_the_dead()
