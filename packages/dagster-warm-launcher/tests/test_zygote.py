"""A zygote executes modules in forks of itself, says how they end, and ends them when its owner ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from conftest import wait_until
from dagster_warm_launcher.forks import Event, Exited, Forked, Ready, Zygote

TELLS = """
import json, os, socket, sys
report = socket.socket(fileno=int(os.environ["DAGSTER_WARM_LAUNCHER_REPORT"]))
told = [sys.argv, __name__, os.getcwd(), "heavy" in sys.modules, os.getppid()]
report.send(json.dumps(told).encode())
if sys.argv[1:] == ["waits"]:
    import time
    time.sleep(3600)
sys.exit(7)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tells.py").write_text(TELLS)
    (tmp_path / "heavy.py").write_text("")
    (tmp_path / "threads.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=[3600], daemon=True).start()\n"
    )
    return tmp_path


@pytest.fixture
def started(folder: Path) -> Iterator[Callable[..., Zygote]]:
    """A function that starts a zygote, which has imported some modules."""
    with ExitStack() as stack:
        output = stack.enter_context((folder / "output").open("ab"))

        def start(*modules: str) -> Zygote:
            zygote = Zygote(modules, os.environ, str(folder), output.fileno())
            stack.callback(zygote.close, 30)
            return zygote

        yield start


def pid_of(event: Event | None) -> int:
    assert isinstance(event, Forked)
    return event.pid


def test_a_fork_is_a_module_that_was_started_with_python_without_its_imports(
    started: Callable[..., Zygote], folder: Path
) -> None:
    zygote = started("heavy", "no_such_module")
    assert zygote.event() == Ready(threads=1)
    number, said = zygote.fork("teller", ["-m", "tells", "a", "b"])
    argv, name, directory, is_imported, parent = json.loads(said.recv(4096))
    assert argv == [str(folder / "tells.py"), "a", "b"]
    assert (name, directory, is_imported, parent) == ("__main__", str(folder), True, zygote.pid)
    forked = zygote.event()
    assert isinstance(forked, Forked)
    assert forked.number == number
    assert zygote.event() == Exited(number, 7)


def test_a_fork_has_a_title_and_dies_of_the_signal_that_it_is_sent(started: Callable[..., Zygote]) -> None:
    zygote = started()
    zygote.event()
    number, said = zygote.fork("the teller", ["-m", "tells", "waits"])
    said.recv(4096)
    assert " ".join(psutil.Process(pid_of(zygote.event())).cmdline()).strip() == "the teller"
    zygote.signal(number)
    assert zygote.event() == Exited(number, -signal.SIGTERM)


@pytest.mark.parametrize(("modules", "fresh"), [(["heavy"], True), (["heavy", "threads"], False)])
def test_what_is_to_be_fresh_or_cannot_be_forked_is_a_new_interpreter(
    started: Callable[..., Zygote], modules: list[str], fresh: bool
) -> None:
    zygote = started(*modules)
    zygote.event()
    _, said = zygote.fork("fresh", ["-m", "tells"], fresh)
    assert json.loads(said.recv(4096))[3] is False


def test_nothing_is_left_of_an_owner_that_is_killed(folder: Path) -> None:
    owner = (
        "import os, sys, time\n"
        "from dagster_warm_launcher.forks import Zygote\n"
        "zygote = Zygote([], os.environ, sys.argv[1], 2)\n"
        "zygote.event(); zygote.fork('a', ['-m', 'tells', 'waits'])[1].recv(4096)\n"
        "print(zygote.pid, zygote.event().pid, flush=True); time.sleep(3600)"
    )
    process = subprocess.Popen([sys.executable, "-c", owner, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout
    pids = list(map(int, process.stdout.readline().split()))
    assert all(map(psutil.pid_exists, pids))
    process.kill()
    process.wait()
    process.stdout.close()
    wait_until(lambda: not any(map(_runs, pids)), "their end")


def test_nothing_is_left_of_a_zygote_that_is_killed(started: Callable[..., Zygote]) -> None:
    zygote = started()
    zygote.event()
    zygote.fork("a", ["-m", "tells", "waits"])[1].recv(4096)
    pid = pid_of(zygote.event())
    os.kill(zygote.pid, signal.SIGKILL)
    assert zygote.event() is None
    wait_until(lambda: not _runs(pid), "its end")


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
