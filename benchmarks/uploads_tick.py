"""A tick of the uploads' sensor over many directories against a bare `os.scandir` loop over the same tree.

Each tick finds one new file in each of a few directories, and requests a run for those of the tick before. The sensor's
whole evaluation is timed: settings, scan, the ledger in PostgreSQL, the decision, the cursor.
"""

import argparse
import contextlib
import os
import resource
import statistics
import sys
import tempfile
from pathlib import Path

import dagster as dg
from measuring import compare, seconds

from dedp_assets.client_uploads import contract
from dedp_assets.notifications.resource import NotifierResource
from dedp_assets.resources import embedded_postgres
from dedp_assets.resources.postgres import PostgresResource
from sensors.pipelines.client_uploads import uploads_arrived


class Tree:
    """Directories of clients, in each of which nothing lies, and a sensor that watches them."""

    def __init__(self, folder: Path, directories: int, dsn: str, instance: dg.DagsterInstance) -> None:
        self.paths = [folder / "landing" / "clients" / f"client{number:05}" for number in range(directories)]
        for path in self.paths:
            path.mkdir(parents=True)
        self.folder, self.instance, self.cursor, self.files = folder, instance, "", 0
        self.resources = {"postgres": PostgresResource(dsn=dsn), "notifier": NotifierResource()}

    def upload(self, count: int) -> None:
        """One new file in each of so many directories."""
        for _ in range(count):
            self.files += 1
            path = self.paths[self.files * 7919 % len(self.paths)]
            (path / f"{self.files}.csv").write_text("id,name,value\n1,a,b\n")

    def tick(self) -> int:
        """Evaluate the sensor; returns how many runs it requests."""
        os.environ["DEDP_HOME"] = str(self.folder)
        context = dg.build_sensor_context(self.instance, self.cursor, resources=self.resources)
        result = uploads_arrived.evaluate_tick(context)
        self.cursor = str(result.cursor)
        return len(result.run_requests or ())

    def scan(self) -> None:
        """What no sensor can do without."""
        for path in self.paths:
            with os.scandir(path) as entries:
                for _ in entries:
                    pass


def main() -> bool:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--directories", type=int, default=10_000)
    arguments.add_argument("--new", type=int, default=10)
    arguments.add_argument("--rounds", type=int, default=30)
    options = arguments.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="dedp-bench-") as folder,
        embedded_postgres.server_lease(Path(folder) / "postgres") as dsn,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        instance.add_dynamic_partitions(
            str(contract.CLIENTS.name), [f"client{number:05}" for number in range(options.directories)]
        )
        tree = Tree(Path(folder) / "home", options.directories, dsn, instance)
        tree.tick()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        taken: list[float] = []

        def tick(_: int) -> float:
            tree.upload(options.new)
            taken.append(seconds(lambda: tree.tick()))
            return taken[-1]

        held = compare(
            (f"a tick over {options.directories:,} directories", "os.scandir over them"),
            (tick, lambda _: seconds(tree.scan)),
            rounds=options.rounds,
            at_most=2,
        )
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{statistics.median(taken) * 1000:.0f} ms a tick; the process grew by {grown:.0f} MiB during the ticks")
    return held


if __name__ == "__main__":
    # Dagster logs what every tick finds to stderr.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        held = main()
    sys.exit(0 if held else 1)
