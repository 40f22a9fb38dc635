"""What the client uploads watch: the directories that `uploads.yaml` names, or all below `$DEDP_LANDING/clients`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

import dagster as dg
from psycopg2.extensions import connection as Connection

from dedp_assets.client_uploads import contract, ledger, status
from dedp_assets.client_uploads.arrival import Arrivals, arrival_of
from dedp_assets.client_uploads.watched import WatchedClients
from dedp_assets.client_uploads.workflow import WORKFLOW
from dedp_assets.doorbell.woken_by import woken_by
from dedp_assets.landing.arrivals import Arrival, Known, TimedOut
from dedp_assets.landing.versions import FileVersion
from dedp_assets.notifications.notification import Notification
from sensors.directories import DirectoryPipeline, DirectoryTick, Watched, directory_sensor

_watched = WatchedClients()
_status = status.StatusTables()


def _clients() -> Watched:
    clients = _watched.now()
    return Watched(clients.directories, clients.problems, clients.max_runs, clients.max_files_per_run)


class _Ledger:
    """The ledger in PostgreSQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def known_files(self, asked: Mapping[str, Sequence[str]]) -> Mapping[str, Mapping[str, Known]]:
        return ledger.known_files(self._connection, asked)

    def confirm_versions(self, same: Sequence[tuple[str, str, FileVersion]]) -> None:
        ledger.confirm_versions(self._connection, same)

    def report(self, tick: DirectoryTick) -> None:
        _status.write(self._connection, tick.directories, tick.plan, tick.now, tick.seconds, tick.before)


@contextmanager
def _ledger(context: dg.SensorEvaluationContext) -> Iterator[_Ledger]:
    with context.resources.postgres.connect() as connection:
        ledger.ensure_tables(connection)
        yield _Ledger(connection)


def _run_config(files: Sequence[tuple[Arrival, str]]) -> dg.RunConfig:
    return dg.RunConfig(ops={"uploads": Arrivals(files=[arrival_of(arrival, sha256) for arrival, sha256 in files])})


def _files_of(run: dg.DagsterRun) -> Iterator[tuple[str, str]]:
    config: Any = run.run_config  # of any run of these assets, also one by hand without files
    for file in config.get("ops", {}).get("uploads", {}).get("config", {}).get("files", []):
        yield file["client"], file["file"]


def _notify(context: dg.SensorEvaluationContext, silent: TimedOut) -> None:
    client = silent.directory.client
    since = datetime.fromtimestamp(silent.silent_since, timezone.utc).isoformat(timespec="seconds")
    context.resources.notifier.send(
        Notification(
            key=f"uploads/silent/{client}/{since}",
            subject=f"{client} has uploaded nothing since {since}",
            text=f"{silent.directory.path} should have had a file within {silent.directory.timeout_seconds:g} s.",
            severity="warning",
        )
    )


uploads_arrived = directory_sensor(
    "uploads_arrived",
    DirectoryPipeline(
        targets=[contract.RECEIVED, contract.RECORDS],
        partitions=contract.CLIENTS,
        watched=_clients,
        ledger=_ledger,
        run_config=_run_config,
        files_of=_files_of,
        workflow=WORKFLOW,
        check=contract.SILENCE_CHECK,
        notify=_notify,
    ),
    description="Takes the files of all clients once they are complete. It watches any number of directories.",
    required_resource_keys={"postgres", "notifier"},
    metadata=woken_by(folders="sensors.watched_folders:uploads", own_runs=True, polls=True),
)
