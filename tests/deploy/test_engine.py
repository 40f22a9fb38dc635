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
from tests.deploy.engine import Engine, why_not
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
    },
}

# Starts containers, says which process one of them is, and waits.
OWNER = """
import sys, time
from pathlib import Path
from tests.deploy.test_engine import IMAGE, PROJECT, Engine, commands_of_first
engine = Engine(PROJECT, dict.fromkeys(PROJECT["services"], IMAGE), Path(sys.argv[1]), 1)
engine.make()
engine.up()
while not (commands := commands_of_first(engine)):
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


def commands_of_first(engine: Engine) -> list[psutil.Process]:
    """The processes that are the service itself, and no longer those that make its container."""
    found = []
    for process in engine.containers["first"].processes():
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
        wait_until(lambda: commands_of_first(engine))
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


def test_no_container_outlives_the_process_that_has_started_it_even_if_that_is_killed(folder: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)], cwd=settings.REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    contained = int(owner.stdout.readline())
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    wait_until(lambda: not psutil.pid_exists(contained))
