"""What the client uploads watch: the directories that `uploads.yaml` names, or all below `$DEDP_LANDING/clients`."""

from collections.abc import Iterator, Mapping, Sequence

import dagster as dg

from dedp_assets.client_uploads import contract, ledger, status
from dedp_assets.client_uploads.arrival import Arrivals, arrival_of
from dedp_assets.client_uploads.watched import WatchedClients
from dedp_assets.landing.arrivals import Arrival, Known
from dedp_assets.landing.versions import FileVersion
from dedp_assets.resources.postgres import PostgresResource
from sensors.directories import DirectoryPipeline, TickReport, Watched, directory_sensor

_watched = WatchedClients()


def _clients() -> Watched:
    clients = _watched.now()
    return Watched([client.directory for client in clients.by_name.values()], clients.problems)


class _Ledger:
    """The ledger in PostgreSQL, by the resource of the tick."""

    def __init__(self, postgres: PostgresResource) -> None:
        self._postgres = postgres

    def known_files(self, asked: Mapping[str, Sequence[str]]) -> Mapping[str, Mapping[str, Known]]:
        if not asked:
            return {}
        with self._postgres.connect() as connection:
            ledger.ensure_tables(connection)
            return ledger.known_files(connection, asked)

    def confirm_versions(self, same: Sequence[tuple[str, str, FileVersion]]) -> None:
        with self._postgres.connect() as connection:
            ledger.confirm_versions(connection, same)

    def report(self, tick: TickReport) -> None:
        with self._postgres.connect() as connection:
            ledger.ensure_tables(connection)
            status.write(connection, tick.directories, tick.plan, tick.now, tick.seconds, tick.before)


def _run_config(files: Sequence[tuple[Arrival, str]]) -> dg.RunConfig:
    return dg.RunConfig(ops={"uploads": Arrivals(files=[arrival_of(arrival, sha256) for arrival, sha256 in files])})


def _files_of(run: dg.DagsterRun) -> Iterator[tuple[str, str]]:
    config = run.run_config.get("ops", {}).get("uploads", {}).get("config", {})
    for file in config.get("files", []):
        yield file["client"], file["file"]


uploads_arrived = directory_sensor(
    "uploads_arrived",
    DirectoryPipeline(
        targets=[contract.RECEIVED, contract.RECORDS],
        partitions=contract.CLIENTS,
        watched=_clients,
        ledger=lambda context: _Ledger(context.resources.postgres),
        run_config=_run_config,
        files_of=_files_of,
        check="no_client_is_silent",
    ),
    description="Takes the files of all clients once they are complete. It watches any number of directories.",
    required_resource_keys={"postgres"},
)
