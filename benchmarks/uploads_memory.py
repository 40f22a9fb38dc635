"""Memory of the code server of the client uploads with 10,000 watched directories, against none.

A real code server, as `dedp up` starts it, evaluates ticks. Its private memory (USS) is read after ticks without any
directory, and again after ticks over many, with new files in some of them.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import dagster as dg
import psutil
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin
from dagster._core.remote_representation.code_location import CodeLocation
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from dedp_assets.resources import embedded_postgres

MOST_GROWTH_MB = 50
TICKS = 20


class CodeServer:
    """A code server, and the ticks that it has evaluated."""

    def __init__(self, location: CodeLocation, instance: dg.DagsterInstance) -> None:
        self._location, self._instance, self._cursor = location, instance, ""
        (self._process,) = [
            process for process in psutil.Process().children(recursive=True) if "grpc" in process.cmdline()
        ]

    def tick(self) -> None:
        """Have the sensor evaluated, as the daemon does."""
        (repository,) = self._location.get_repositories().values()
        result = self._location.get_sensor_execution_data(
            self._instance, repository.handle, "uploads_arrived", None, None, self._cursor, None, None
        )
        self._cursor = result.cursor or ""

    def memory_mb(self) -> float:
        """Its private memory, in MB."""
        return float(self._process.memory_full_info().uss) / 1e6


def growth(server: CodeServer, clients: Path, directories: int) -> tuple[float, float]:
    """The memory of the server, in MB: after ticks without a directory, and after ticks over many."""
    for _ in range(TICKS):
        server.tick()
    before = server.memory_mb()
    folders = [clients / f"client{number:05}" for number in range(directories)]
    for folder in folders:
        folder.mkdir(parents=True)
    for number in range(TICKS):
        for folder in folders[number * 10 : number * 10 + 10]:
            (folder / "orders.csv").write_text("id,name,value\n1,a,b\n")
        server.tick()
    return before, server.memory_mb()


def main() -> bool:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--directories", type=int, default=10_000)
    directories = arguments.parse_args().directories
    origin = ManagedGrpcPythonEnvCodeLocationOrigin(
        LoadableTargetOrigin(executable_path=sys.executable, module_name="jobs.client_uploads"), "jobs.client_uploads"
    )
    with (
        tempfile.TemporaryDirectory(prefix="dedp-bench-") as folder,
        embedded_postgres.server_lease(Path(folder) / "postgres") as dsn,
    ):
        home = Path(folder) / "home"
        os.environ |= {"DEDP_HOME": str(home), "DEDP_POSTGRES_DSN": dsn}
        (Path(folder) / "dagster").mkdir()
        with (
            dg.DagsterInstance.local_temp(f"{folder}/dagster") as instance,
            origin.create_single_location(instance) as location,
        ):
            before, after = growth(CodeServer(location, instance), home / "landing" / "clients", directories)
    holds = after - before <= MOST_GROWTH_MB
    print(
        f"the code server has {before:.0f} MB with no directory, {after:.0f} MB with {directories:,}: "
        f"{after - before:.0f} MB more, at most {MOST_GROWTH_MB} MB claimed: {'holds' if holds else 'FAILS'}"
    )
    return holds


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
