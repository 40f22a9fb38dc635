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
        processes: how many they are.
    """

    mebibytes: float
    cpu_percent: float
    processes: int


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
        Footprint(sum(map(_mebibytes, each)), 100 * (_cpu_seconds(each) - used) / took, len(each))
        for each, used in zip(found, before, strict=True)
    ]


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
