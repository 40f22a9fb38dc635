"""An idle tick of a scenario with the sequencer's locations, compared with the same daemons on default storage."""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import dagster as dg
from dagster_scenario import Scenario
from dagster_scenario.daemons import Chance, Daemons
from dagster_scenario.locations import Locations
from measuring import compare, seconds

LOCATIONS = ["jobs.devices_loader", "jobs.devices_aggregator"]
MOST_MILLISECONDS = 80


def main() -> bool:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=60)
    rounds = arguments.parse_args().rounds
    taken: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"DEDP_HOME": folder, "DEDP_START": "2024-01-01"}
        with Scenario(start="2024-01-31 08:00") as scenario, dg.DagsterInstance.local_temp(folder) as instance:
            scenario.load(*LOCATIONS)
            plain = on_default_storage(instance)

            def later(step: Callable[[], object]) -> float:
                scenario.clock.move(scenario.clock.instant + timedelta(seconds=30))
                return seconds(step)

            def tick(_: int) -> float:
                taken.append(later(scenario.tick))
                return taken[-1]

            names = ("a scenario's idle tick", "on default storage")
            faster = compare(names, (tick, lambda _: later(plain)), rounds=rounds, at_most=0.5)
    median = statistics.median(taken) * 1000
    print(f"{median:.0f} ms an idle tick, at most {MOST_MILLISECONDS} claimed: {'holds' if median <= 80 else 'FAILS'}")
    return faster and median <= MOST_MILLISECONDS


def on_default_storage(instance: dg.DagsterInstance) -> Callable[[], object]:
    """A pass of the same daemons over the same locations, on an instance as Dagster makes it."""
    locations = Locations()
    locations.add(LOCATIONS, {})
    locations.load(instance)
    return Daemons(instance, locations.workspace, Chance()).step


if __name__ == "__main__":
    # Dagster logs every look of a sensor to stderr.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        held = main()
    sys.exit(0 if held else 1)
