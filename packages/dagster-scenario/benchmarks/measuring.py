"""Measures seconds of CPU, which a busy machine changes less than wall time, and holds them against a limit."""

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path

import dagster as dg
from dagster_scenario import Scenario

ON = dg.DefaultSensorStatus.RUNNING


def cpu_seconds(work: Callable[[], object]) -> float:
    """How much CPU one call takes in this process, in seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


def holds(name: str, taken: Iterable[float], at_most: float) -> bool:
    """Print the median and its ratio to the limit, both in seconds. True if the median is within the limit."""
    values = list(taken)
    median = statistics.median(values)
    says = "holds" if median <= at_most else "FAILS"
    print(f"{name}: median {median:.3f} s (min {min(values):.3f}, max {max(values):.3f}, n={len(values)})")
    print(f"  ratio to the limit of {at_most:g} s: {median / at_most:.2f}, at most 1 claimed: {says}")
    return median <= at_most


def idle_ticks(definitions: dg.Definitions, rounds: int) -> list[float]:
    """Seconds of CPU that idle ticks of a scenario take, after two to warm up."""
    taken = []
    with Scenario() as scenario:
        scenario.load(definitions)
        for _ in range(rounds + 2):
            scenario.clock.move(scenario.clock.instant + timedelta(seconds=30))
            taken.append(cpu_seconds(scenario.tick))
    return taken[2:]


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
