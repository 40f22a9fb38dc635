"""Measures seconds of CPU and of wall time. CPU, which a busy machine changes less, is held against a bound."""

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import dagster as dg
from dagster_scenario import Scenario

ON = dg.DefaultSensorStatus.RUNNING


class Taken(NamedTuple):
    """What something took, in seconds."""

    # Of this process.
    cpu: float
    wall: float


def taken(work: Callable[[], object]) -> Taken:
    """What one call takes."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return Taken(time.process_time() - cpu, time.perf_counter() - wall)


def holds(name: str, rounds: Iterable[Taken], at_most: float) -> bool:
    """Print the medians and the bound. True if the median of the CPU is within the bound of so many seconds."""
    all_ = list(rounds)
    cpu, wall = [each.cpu for each in all_], [each.wall for each in all_]
    median = statistics.median(cpu)
    says = "holds" if median <= at_most else "FAILS"
    print(f"{name}: median of CPU {median:.3f} s (min {min(cpu):.3f}, max {max(cpu):.3f}, n={len(cpu)})")
    print(f"  median of wall time {statistics.median(wall):.3f} s (min {min(wall):.3f}, max {max(wall):.3f})")
    print(f"  bound: {at_most:g} s of CPU, of which it takes {median / at_most:.0%}: {says}")
    return median <= at_most


def idle_ticks(definitions: dg.Definitions, rounds: int) -> list[Taken]:
    """What idle ticks of a scenario take, after two to warm up."""
    ticks = []
    with Scenario() as scenario:
        scenario.load(definitions)
        for _ in range(rounds + 2):
            scenario.clock.move(scenario.clock.instant + timedelta(seconds=30))
            ticks.append(taken(scenario.tick))
    return ticks[2:]


def sensors(number: int, target: dg.AssetsDefinition) -> list[dg.SensorDefinition]:
    """Sensors that are on and never request anything."""

    def named(name: str) -> dg.SensorDefinition:
        @dg.sensor(name=name, target=target, default_status=ON)
        def idle() -> None: ...

        return idle

    return [named(f"sensor_{number}") for number in range(number)]


def run(benchmark: Callable[[], bool]) -> None:
    """Run it and exit, with status 1 if the limit does not hold. Dagster's logs on stderr go nowhere."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        held = benchmark()
    sys.exit(0 if held else 1)
