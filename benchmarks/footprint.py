"""What a system of several processes costs while it does nothing: memory and CPU."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil


class Footprint(NamedTuple):
    """What processes cost.

    Attributes:
        mebibytes: their proportional memory (PSS): a page that n processes share counts 1/n for each.
        cpu_percent: of one core.
        each: the memory of each process, in MiB, with what it is called; the largest first.
    """

    mebibytes: float
    cpu_percent: float
    each: list[tuple[float, str]]


def idle(groups: Sequence[Callable[[], Sequence[psutil.Process]]], seconds: float) -> list[Footprint]:
    """Measure groups of processes at the same time.

    Args:
        groups: each finds its processes; asked at the start and at the end.
        seconds: how long to measure.
    """
    before, began = [_cpu_seconds(group()) for group in groups], time.monotonic()
    time.sleep(seconds)
    found, took = [group() for group in groups], time.monotonic() - began
    return [
        _footprint(each, 100 * (_cpu_seconds(each) - used) / took) for each, used in zip(found, before, strict=True)
    ]


def _footprint(processes: Sequence[psutil.Process], cpu_percent: float) -> Footprint:
    each = sorted(((_mebibytes(process), _title(process)) for process in processes), reverse=True)
    return Footprint(sum(size for size, _ in each), cpu_percent, each)


def with_descendants(roots: Sequence[int], home: str = "") -> list[psutil.Process]:
    """Processes and all that descend from them, without Java virtual machines and PostgreSQL servers.

    Args:
        roots: the ids of the processes.
        home: also all processes with this DEDP_HOME, which may have lost their parents.
    """
    found = {each for pid in roots for each in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))}
    if home:
        found |= {each for each in psutil.process_iter() if _variable(each, "DEDP_HOME") == home}
    return [each for each in found if _name(each) not in ("java", "postgres")]


def _variable(process: psutil.Process, name: str) -> str:
    try:
        return str(process.environ().get(name, ""))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def of_server(data: Path) -> list[psutil.Process]:
    """The processes of the PostgreSQL server of a data folder."""
    postmaster = psutil.Process(int((data / "postmaster.pid").read_text().splitlines()[0]))
    return [postmaster, *postmaster.children(recursive=True)]


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def _title(process: psutil.Process) -> str:
    """The command line of a process without paths and options, such as `python dagster._daemon run`."""
    try:
        words = [word.rpartition("/")[2] for word in process.cmdline() if word and not word.startswith("-")]
    except psutil.NoSuchProcess:
        return ""
    return " ".join(" ".join(words).split())[:50]


def _cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """CPU time of processes that run, and of their children that have ended."""
    total = 0.0
    for process in processes:
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total


def _mebibytes(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().pss) / 2**20
    except psutil.NoSuchProcess:
        return 0.0
