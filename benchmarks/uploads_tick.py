"""A tick of the uploads' sensor over many directories against a bare `os.scandir` loop over the same tree.

Each tick finds one new file in each of a few directories, and requests runs for those of the tick before. These count
as loaded before the next tick. The sensor's whole evaluation is timed: settings, scan, the ledger in PostgreSQL, the
decision, the cursor. With few directories a tick is compared with one of a sensor that does nothing.
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg2
from measuring import compare, seconds

from dedp_assets.client_uploads import contract, ledger
from dedp_assets.client_uploads.arrival import Arrival
from dedp_assets.client_uploads.ledger import Outcome
from dedp_assets.client_uploads.workflow import WORKFLOW
from dedp_assets.landing.versions import FileVersion
from dedp_assets.notifications.resource import NotifierResource
from dedp_assets.resources import embedded_postgres
from dedp_assets.resources.postgres import PostgresResource
from sensors.pipelines.client_uploads import uploads_arrived

MOST_RATIO = 2
FEW, MOST_OWN_SECONDS = 100, 0.020
TEXT = "id,name,value\n1,a,b\n"


@dg.sensor(name="does_nothing", target=WORKFLOW, required_resource_keys={"postgres", "notifier"})
def does_nothing(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """What Dagster itself takes for a tick with these resources."""
    return dg.SkipReason(str(context.resources.postgres is not None))


class Tree:
    """Directories of clients, each with some files that were loaded long ago, and a sensor that watches them."""

    def __init__(self, folder: Path, directories: int, dsn: str, instance: dg.DagsterInstance, known: int = 0) -> None:
        self.paths = [folder / "landing" / "clients" / f"client{number:05}" for number in range(directories)]
        for path in self.paths:
            path.mkdir(parents=True)
        self.folder, self.instance, self.cursor, self.files = folder, instance, "", 0
        self.resources = {"postgres": PostgresResource(dsn=dsn), "notifier": NotifierResource()}
        self.database = psycopg2.connect(dsn)
        ledger.ensure_tables(self.database)
        for number in range(known):
            for path in self.paths:
                (path / f"old{number}.csv").write_text(TEXT)
            self._load(_arrival(path, f"old{number}.csv") for path in self.paths)

    def upload(self, count: int) -> None:
        """One new file in each of so many directories."""
        for _ in range(count):
            self.files += 1
            path = self.paths[self.files * 7919 % len(self.paths)]
            (path / f"{self.files}.csv").write_text(TEXT)

    def tick(self) -> Any:
        """Evaluate the sensor."""
        os.environ["DEDP_HOME"] = str(self.folder)
        return self._evaluated(uploads_arrived)

    def load(self, requests: Any) -> None:
        """Have the files of runs loaded, as far as the ledger knows."""
        self._load(
            Arrival(**file) for run in requests or () for file in run.run_config["ops"]["uploads"]["config"]["files"]
        )

    def idle(self) -> None:
        """Evaluate a sensor that does nothing."""
        does_nothing.evaluate_tick(dg.build_sensor_context(self.instance, resources=self.resources))

    def scan(self) -> None:
        """What no sensor can do without."""
        for path in self.paths:
            with os.scandir(path) as entries:
                for _ in entries:
                    pass

    def _evaluated(self, sensor: dg.SensorDefinition) -> Any:
        context = dg.build_sensor_context(self.instance, self.cursor, resources=self.resources)
        result = sensor.evaluate_tick(context)
        self.cursor = str(result.cursor)
        return result

    def _load(self, arrivals: Iterator[Arrival]) -> None:
        with self.database, self.database.cursor() as cursor:
            for arrival in arrivals:
                ledger.record(cursor, arrival, Outcome("loaded", "0" * 64), origin="file", run_id="benchmark")


def _arrival(folder: Path, name: str) -> Arrival:
    version = FileVersion.of((folder / name).stat())
    return Arrival(
        client=folder.name,
        directory=str(folder),
        file=name,
        pattern="*.csv",
        version=version.to_text(),
        size_bytes=version.size,
        modified_at="2024-01-31T08:00:00+00:00",
        first_seen_at="2024-01-31T08:00:00+00:00",
        waited_seconds=0.0,
        sha256="",
    )


@contextlib.contextmanager
def watched(directories: int, known: int) -> Iterator[Tree]:
    """A tree after the first ticks over it."""
    with (
        tempfile.TemporaryDirectory(prefix="dedp-bench-") as folder,
        embedded_postgres.server_lease(Path(folder) / "postgres") as dsn,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        instance.add_dynamic_partitions(
            str(contract.CLIENTS.name), [f"client{number:05}" for number in range(directories)]
        )
        tree = Tree(Path(folder) / "home", directories, dsn, instance, known)
        tree.tick()
        yield tree
        tree.database.close()


def over_many(directories: int, new: int, known: int, rounds: int) -> bool:
    """Whether a tick over many directories takes at most so many times as long as to list them."""
    with watched(directories, known) as tree:

        def tick(_: int) -> float:
            tree.upload(new)
            results: list[Any] = []
            taken = seconds(lambda: results.append(tree.tick()))
            tree.load(results[0].run_requests)
            return taken

        name = f"a tick over {directories:,} directories" + (f" of {known:,} old files each" if known else "")
        return compare(
            (name, "os.scandir over them"),
            (tick, lambda _: seconds(tree.scan)),
            rounds=rounds,
            at_most=MOST_RATIO,
        )


def over_few(new: int, known: int, rounds: int) -> bool:
    """Whether a tick over few directories takes at most so much longer than one of a sensor that does nothing."""
    ours, idle, processor = [], [], []
    with watched(FEW, known) as tree:
        for _ in range(rounds):
            tree.upload(min(new, FEW))
            results: list[Any] = []
            before = time.process_time()
            ours.append(seconds(lambda: results.append(tree.tick())))  # noqa: B023  it is called at once
            processor.append(time.process_time() - before)
            tree.load(results[0].run_requests)
            idle.append(seconds(tree.idle))
    own = statistics.median(ours) - statistics.median(idle)
    holds = own <= MOST_OWN_SECONDS
    milliseconds = [statistics.median(each) * 1000 for each in (ours, processor, idle)]
    print(
        "a tick over {} directories: median {:.1f} ms, of these {:.1f} ms of the processor; of a sensor that does "
        "nothing {:.1f} ms".format(FEW, *milliseconds)
    )
    print(
        f"our own work: {own * 1000:.1f} ms, at most {MOST_OWN_SECONDS * 1000:.0f} ms claimed: "
        f"{'holds' if holds else 'FAILS'}"
    )
    return holds


def main() -> bool:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--directories", type=int, default=10_000)
    arguments.add_argument("--new", type=int, default=10, help="in how many directories each tick finds a new file")
    arguments.add_argument("--known", type=int, default=0, help="how many files that were loaded lie in each directory")
    arguments.add_argument("--rounds", type=int, default=30)
    options = arguments.parse_args()
    many = over_many(options.directories, options.new, options.known, options.rounds)
    return over_few(options.new, options.known, options.rounds) and many


if __name__ == "__main__":
    # Dagster logs what every tick finds to stderr.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        held = main()
    sys.exit(0 if held else 1)
