"""`dedp up` beside `dagster dev`, with the same code locations: until it is ready, memory and CPU at idle.

    .venv/bin/python benchmarks/start.py [rounds] [seconds at idle]

In each round both start, each on a home and a database of its own, one after the other. Ready: the web server answers,
and has loaded every code location. Memory is proportional (PSS), of all processes without PostgreSQL's and Spark's. The
CPU time until ready depends less on what else runs on the machine than the seconds do.
"""

import base64
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from dedp_assets import local_stack
from dedp_assets.local_stack.readiness import wait_until_ready

SETTLE_SECONDS = 15
# Of `dedp up`. `dagster dev` asks for nobody.
LOCAL_USER = f"Basic {base64.b64encode(b'dedp:dedp').decode()}"


class Figures(NamedTuple):
    """One start: seconds and CPU seconds until ready, processes, MiB of PSS, per cent of a core at idle."""

    ready: float
    ready_cpu: float
    processes: int
    memory: float
    idle_cpu: float


def family(of: int) -> list[psutil.Process]:
    root = psutil.Process(of)
    return [root, *root.children(recursive=True)]


def cpu_seconds(of: int) -> float:
    """CPU time of a process and all below it, those included that have ended."""
    total = 0.0
    for process in family(of):
        with suppress(psutil.Error):
            if process.name() not in ("java", "postgres"):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
    return total


def memory(of: int) -> tuple[int, float]:
    found = []
    for process in family(of):
        with suppress(psutil.Error):
            if process.name() not in ("java", "postgres"):
                found.append(process.memory_full_info().pss / 2**20)
    return len(found), sum(found)


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=local_stack.WORKSPACE.resolve().parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        left = family(process.pid)
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(90)
        for each in left:
            with suppress(psutil.Error):
                each.kill()
        process.wait()


def measure(start: Callable[[Path, int], list[str]], idle_seconds: float) -> Figures:
    # A server under root runs as another user, who has to get in.
    with tempfile.TemporaryDirectory(prefix="dedp-bench-") as folder:
        Path(folder).chmod(0o755)
        home = Path(folder) / "home"
        os.environ.update(DEDP_HOME=str(home), DEDP_SPARK_REMOTE="sc://localhost:1")
        port = local_stack.free_port()
        # The database runs for both before they start.
        with local_stack.environment() as shared:
            local_stack.create_instance_schema(shared)
            log = Path(folder) / "log"
            log.touch()
            began = time.monotonic()
            with running(start(home, port), shared) as process:
                wait_until_ready(f"http://127.0.0.1:{port}", LOCAL_USER, log, dict)
                ready, ready_cpu = time.monotonic() - began, cpu_seconds(process.pid)
                time.sleep(SETTLE_SECONDS)
                before = cpu_seconds(process.pid)
                time.sleep(idle_seconds)
                idle = 100 * (cpu_seconds(process.pid) - before) / idle_seconds
                return Figures(ready, ready_cpu, *memory(process.pid), idle)


def dedp_up(_home: Path, port: int) -> list[str]:
    return [str(Path(sys.executable).with_name("dedp")), "up", "--port", str(port)]


def dagster_dev(_home: Path, port: int) -> list[str]:
    options = ["-w", str(local_stack.WORKSPACE), "-h", "127.0.0.1", "-p", str(port)]
    return [sys.executable, "-m", "dagster", "dev", *options]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    idle_seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 60
    found: dict[str, list[Figures]] = {"dagster dev": [], "dedp up": []}
    for _ in range(rounds):
        found["dagster dev"].append(measure(dagster_dev, idle_seconds))
        found["dedp up"].append(measure(dedp_up, idle_seconds))
    middle = {name: Figures(*map(statistics.median, zip(*each, strict=True))) for name, each in found.items()}
    stock, ours = middle["dagster dev"], middle["dedp up"]
    print(f"{'median of ' + str(rounds):<28}{'dagster dev':>12}{'dedp up':>10}{'ratio':>8}")
    rows = {
        "ready, s": "ready",
        "CPU until ready, s": "ready_cpu",
        "processes": "processes",
        "memory (PSS), MiB": "memory",
        "CPU at idle, % of a core": "idle_cpu",
    }
    for row, name in rows.items():
        a, b = getattr(stock, name), getattr(ours, name)
        print(f"{row:<28}{a:>12.1f}{b:>10.1f}{b / a:>8.2f}")


if __name__ == "__main__":
    main()
