"""The same story twice is the same story, to the letter."""

import os
import subprocess
import sys
from pathlib import Path

from dagster_scenario import Scenario

PROJECT = Path(__file__).parent.parent


def busy_morning(home: Path) -> str:
    """A bit of everything in all code locations; returns its timeline."""
    home.mkdir()
    os.environ["ORCHARD_HOME"] = str(home)
    with Scenario(settings=PROJECT / "dagster.yaml", start="2024-03-27 05:59:30", timezone="Europe/Berlin") as scenario:
        scenario.load(PROJECT / "workspace.yaml")
        yard = scenario.folder(home / "yard")
        scenario.turn_on("complaints")
        scenario.tick()
        scenario.fail("quotes", times=1, partition="2024-03-26")
        scenario.fail("landed_costs", partition="pear")
        for name in ("1-miller.note", "2-smith.note", "1.complaint", "B-AB-123.truck", "1.weight"):
            yard.drop(name)
        scenario.tick_twice("complaints", "delivery_notes")
        scenario.materialize("tariffs")
        scenario.backfill("quotes", partitions=["2024-03-25"])
        scenario.advance(minutes=1, seconds=30)
        return str(scenario.timeline)


def test_the_same_morning_in_processes_that_hash_differently(tmp_path: Path) -> None:
    seeds = ("1", "2")
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path / seed)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in seeds
    ]
    first, second = (process.communicate(timeout=120)[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert first == second
    # It was indeed a busy one.
    for word in ("by retry", "by hand", "by backfill", "by automation", "by schedule", "by sensor", "pear"):
        assert word in first


def test_the_same_day_of_the_buyers_twice_in_one_process(tmp_path: Path, home: Path) -> None:
    def day(name: str) -> str:
        with Scenario(start="2024-03-27 05:00", timezone="Europe/Berlin", folder=tmp_path / name) as scenario:
            scenario.load("orchard.buying")
            scenario.at("07:00")
            return str(scenario.timeline)

    assert day("first") == day("second")


if __name__ == "__main__":
    print(busy_morning(Path(sys.argv[1])))
