"""Dagster's command line, in a process that stops at one step of a run of the late-data integrator.

    killed_run.py STEP MARK asset materialize ...

There it makes the file MARK, and goes on when somebody removes it. In SYSTEM_CALLS the kernel kills it.
"""

import ctypes
import functools
import importlib
import resource
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dedp_assets.resources import spark

# In the order in which a run comes by.
STEPS = {
    "the state table says that the day is being processed": ("assets.publish_state", "after", 1),
    "the snapshot was taken": ("assets.count_devices", "before", 1),
    "Spark computes": ("pyspark", "within", 1),
    "the counts were computed": ("device_counts.DeviceCounts.replace", "before", 1),
    "the rows were written, under another name": ("rename", "within", 1),
    "the commit was written, under another name": ("linkat", "within", 1),
    "the commit has its name": ("unlink", "within", 1),
    "the commit is done": ("device_counts.DeviceCounts.replace", "after", 1),
    "the state table is about to be put right": ("assets.publish_state", "before", 2),
    "Dagster knows of the counts": ("assets.publish_state", "before", 3),
    "the state table is right again": ("assets.publish_state", "after", 3),
    "the JSON is about to be written": ("assets.write_text", "before", 1),
    "the JSON was written": ("assets.write_text", "after", 1),
}

# Their numbers on x86-64. delta-rs writes a file under another name, renames it, or, for a commit, links it to its name
# and removes the other one.
SYSTEM_CALLS = {"rename": 82, "unlink": 87, "linkat": 265}

_PACKAGE = "dedp_assets.late_data_integrator"


def stop_at(step: str, mark: Path) -> None:
    """Have this process stop when it comes to a step."""
    place, when, turn = STEPS[step]
    if place in SYSTEM_CALLS:
        _kill_at(SYSTEM_CALLS[place])
    elif place == "pyspark":
        _stop_in_spark(mark)
    else:
        module, *names = place.split(".")
        owner = functools.reduce(getattr, names[:-1], _import(module))
        setattr(owner, names[-1], _stopping(getattr(owner, names[-1]), when, turn, lambda: _wait(mark)))


def _wait(mark: Path) -> None:
    mark.touch()
    while mark.exists():
        time.sleep(0.02)


def _stopping(function: Callable[..., object], when: str, turn: int, stop: Callable[[], None]) -> Callable[..., object]:
    turns = 0

    @functools.wraps(function)
    def stopping(*arguments: object, **named: object) -> object:
        nonlocal turns
        turns += 1
        if turns == turn and when == "before":
            stop()
        result = function(*arguments, **named)
        if turns == turn and when == "after":
            stop()
        return result

    return stopping


def _stop_in_spark(mark: Path) -> None:
    """Stop in the middle of the first query. One of Spark's Python workers makes the mark."""
    from pyspark.sql.connect.dataframe import DataFrame

    group: Callable[..., object] = DataFrame.groupBy
    name, queries = str(mark), []

    def stopping(rows: DataFrame, *columns: str) -> object:
        def wait(batches):  # type: ignore[no-untyped-def]
            import os
            import time

            open(name, "w").close()
            while os.path.exists(name):
                time.sleep(0.02)
            yield from batches

        queries.append(rows)
        return group(rows.mapInArrow(wait, rows.schema) if len(queries) == 1 else rows, *columns)

    DataFrame.groupBy = stopping  # type: ignore[assignment,method-assign]


def _kill_at(system_call: int) -> None:
    """Have the kernel kill this process, with all its threads, at a system call during the next write to the counts."""
    device_counts = _import("device_counts")
    write = device_counts.write_deltalake

    def writing(*arguments: object, **named: object) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _forbid(system_call)
        write(*arguments, **named)

    device_counts.write_deltalake = writing


def _forbid(system_call: int) -> None:
    # Load the call's number; if it is the one, kill; else allow: see seccomp(2).
    program = [(0x20, 0, 0, 0), (0x15, 0, 1, system_call), (0x06, 0, 0, 0x80000000), (0x06, 0, 0, 0x7FFF0000)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filter_ = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, seccomp, set_filter, all_threads = 38, 317, 1, 1
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.syscall(seccomp, set_filter, all_threads, filter_):
        raise OSError(ctypes.get_errno(), "no filter for system calls can be set")


def _import(module: str) -> Any:
    return importlib.import_module(f"{_PACKAGE}.{module}")


def main() -> None:
    step, mark = sys.argv[1:3]
    if step:
        stop_at(step, Path(mark))
    # No server that has gone comes back here. So nobody waits for it.
    spark._ATTEMPTS = 1
    sys.argv[1:3] = []
    importlib.import_module("dagster._cli").main()
