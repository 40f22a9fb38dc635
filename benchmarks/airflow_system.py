"""Apache Airflow on this machine, to measure beside `dedp up`: its four processes, on a PostgreSQL server of its own.

It has its default settings, but for what `_settings` names with a reason.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg2
import psycopg2.extensions
import requests
import systems

from dedp_assets import local_stack
from dedp_assets.resources import embedded_postgres

VENV = systems.REPOSITORY / ".dedp" / "airflow" / "venv"
DAGS = Path(__file__).resolve().parent / "airflow" / "dags"
# Without the servers of log files, which listen on every network address. That spares Airflow two processes.
COMPONENTS = {
    "api-server": (),
    "scheduler": ("--skip-serve-logs",),
    "dag-processor": (),
    "triggerer": ("--skip-serve-logs",),
}
# So many tasks run at once. By default 32 worker processes would wait for tasks, which costs memory and, on a machine
# with few cores, gains nothing.
PARALLELISM = 8
_START_SECONDS = 300
_COMMAND_SECONDS = 300

# Since the processes were started: which of the three with heartbeats run, and how many DAGs were parsed.
_HEARTBEATS = "SELECT count(DISTINCT job_type) FROM job WHERE state = 'running' AND start_date > to_timestamp(%s)"
_PARSED = "SELECT count(*) FROM dag WHERE NOT is_stale AND last_parsed_time > to_timestamp(%s)"


@dataclass(frozen=True)
class Airflow:
    """Airflow that runs.

    Attributes:
        url: the address of its API.
        processes: its processes; others descend from them.
        metadata: a connection to its own database, outside of a transaction.
        devices: one to the database that the DAGs write to.
        started_after: how long it took until all components were up and the DAGs parsed, in s.
    """

    url: str
    processes: "list[subprocess.Popen[bytes]]"
    metadata: psycopg2.extensions.connection
    devices: psycopg2.extensions.connection
    started_after: float
    token: str

    def post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Ask the API."""
        with requests.Session() as session:
            session.trust_env = False  # no proxy for an address on this machine
            answer = session.post(
                f"{self.url}/api/v2{path}", json=body, headers={"Authorization": f"Bearer {self.token}"}, timeout=60
            )
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def trigger(self, dag: str, day: str | None = None, **values: str) -> None:
        """Start a run of a DAG, for a day if it has logical dates."""
        date = f"{day}T00:00:00Z" if day else None
        self.post(f"/dags/{dag}/dagRuns", {"logical_date": date, "conf": values})

    def count(self, query: str, *values: object) -> int:
        """The number that a query to Airflow's own database returns."""
        return count(self.metadata, query, *values)

    def text(self, query: str) -> str:
        """The text that a query to Airflow's own database returns."""
        with self.metadata.cursor() as cursor:
            cursor.execute(query)
            return str(cursor.fetchall()[0][0])

    def is_quiet(self) -> bool:
        """Whether no task is queued or under way. A deferred task is neither: it waits for its event."""
        return not self.count(
            "SELECT count(*) FROM task_instance WHERE state IN ('scheduled', 'queued', 'running', 'restarting')"
        )


class Lab:
    """A folder with Airflow's home, the files that land, and the PostgreSQL server.

    Args:
        folder: where all of it is.
        postgres_data: the data folder of the server.
        server: the address of the server.
    """

    def __init__(self, folder: Path, postgres_data: Path, server: str) -> None:
        self.postgres_data = postgres_data
        self.landing = folder / "landing" / "devices"
        self.internal, self.taken, self._home = folder / "internal", folder / "taken", folder / "airflow"
        self._folder = folder
        for made in (self.landing, self.internal, self.taken, self._home):
            made.mkdir(parents=True)
        self._socket = psycopg2.extensions.parse_dsn(server)["host"]
        self._user = urlsplit(server).username or "postgres"
        self._dsn = f"host={self._socket} user={self._user}"

    def _settings(self, form: str, port: int) -> dict[str, str]:
        dags = DAGS / form
        url = f"http://{local_stack.HOST}:{port}"
        connection = {"conn_type": "postgres", "host": self._socket, "login": self._user, "schema": "devices"}
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DEDP_", "DAGSTER"))
        }
        return kept | {
            "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONPATH": str(dags),  # the triggerer imports the trigger from there
            "AIRFLOW_HOME": str(self._home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": (
                f"postgresql+psycopg2://{self._user}@/airflow?host={quote(self._socket, safe='')}"
            ),
            "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
            # On this machine alone, and no reports to others.
            "AIRFLOW__API__HOST": local_stack.HOST,
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW_CONN_FS_DEFAULT": "fs:///",
            "AIRFLOW_CONN_DEVICES": json.dumps(connection),
            "DEVICES_LANDING": str(self.landing),
            "DEVICES_TAKEN": str(self.taken),
            "DEVICES_INTERNAL": str(self.internal),
        }

    def make_databases(self) -> None:
        """Make Airflow's own database and that of the devices."""
        with closing(psycopg2.connect(f"{self._dsn} dbname=postgres")) as administration:
            administration.autocommit = True
            with administration.cursor() as cursor:
                for name in ("airflow", "devices"):
                    cursor.execute(f"CREATE DATABASE {name}")
        with closing(psycopg2.connect(f"{self._dsn} dbname=devices")) as devices, devices, devices.cursor() as cursor:
            cursor.execute((DAGS / "sql" / "tables.sql").read_text())
        self.run("sensors", "db", "migrate")

    def run(self, form: str, *command: str) -> None:
        """Run a command of Airflow to its end."""
        done = subprocess.run(
            [VENV / "bin" / "airflow", *command],
            env=self._settings(form, local_stack.free_port()),
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_COMMAND_SECONDS,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"airflow {' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}")

    @contextmanager
    def running(self, form: str) -> Iterator[Airflow]:
        """Start Airflow, wait until it is ready, and stop it after the block.

        Args:
            form: the folder below `dags`: "sensors" or "assets".
        """
        port = local_stack.free_port()
        variables = self._settings(form, port)
        dags = sum(file.read_text().count("with DAG(") for file in (DAGS / form).glob("*.py"))
        with ExitStack() as cleanup:
            metadata = cleanup.enter_context(closing(psycopg2.connect(f"{self._dsn} dbname=airflow")))
            devices = cleanup.enter_context(closing(psycopg2.connect(f"{self._dsn} dbname=devices")))
            metadata.autocommit = devices.autocommit = True
            began = time.time()
            logs = {name: self._folder / f"{form} {name}.log" for name in COMPONENTS}
            processes = [
                cleanup.enter_context(
                    systems.running_process([str(VENV / "bin" / "airflow"), name, *options], variables, logs[name])
                )
                for name, options in COMPONENTS.items()
            ]
            url = f"http://{local_stack.HOST}:{port}"

            def is_ready() -> bool:
                for process, log in zip(processes, logs.values(), strict=True):
                    if process.poll() is not None:
                        raise RuntimeError(f"{log.stem} ended with {process.returncode}:\n{log.read_text()[-3000:]}")
                return (
                    count(metadata, _HEARTBEATS, began) == len(COMPONENTS) - 1
                    and count(metadata, _PARSED, began) >= dags
                    and _token(url) is not None
                )

            def missing() -> str:
                return (
                    f"Airflow is not ready: {count(metadata, _HEARTBEATS, began)} of {len(COMPONENTS) - 1} components, "
                    f"{count(metadata, _PARSED, began)} of {dags} DAGs; see {self._folder}"
                )

            systems.wait_until(is_ready, _START_SECONDS, missing, every=0.2)
            yield Airflow(url, processes, metadata, devices, time.time() - began, _token(url) or "")


@contextmanager
def lab() -> Iterator[Lab]:
    """Provide a new folder with a PostgreSQL server and Airflow's tables, and delete all of it after the block."""
    with (
        systems.fresh_home() as home,
        embedded_postgres.server_lease(home / "postgres") as server,
    ):
        made = Lab(home / "lab", home / "postgres" / "data", server)
        made.make_databases()
        yield made


def count(connection: psycopg2.extensions.connection, query: str, *values: object) -> int:
    """The number that a query returns; 0 for NULL."""
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return int(cursor.fetchall()[0][0] or 0)


def _token(url: str) -> str | None:
    """A token for the API; None while it does not answer."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            return str(session.get(f"{url}/auth/token", timeout=5).json()["access_token"])
        except (requests.RequestException, ValueError, KeyError):
            return None
