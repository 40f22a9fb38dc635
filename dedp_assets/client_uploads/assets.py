"""`uploads/received` and `uploads/records`: what clients have uploaded, copied, loaded and accounted for."""

import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

import dagster as dg
from psycopg2.extensions import connection as Connection

from dedp_assets.client_uploads import contract, ledger
from dedp_assets.client_uploads.arrival import Arrival, Arrivals, metadata_of
from dedp_assets.client_uploads.settings_file import Client
from dedp_assets.client_uploads.status import silent_clients
from dedp_assets.client_uploads.taking import Source, Taken, take_file
from dedp_assets.client_uploads.watched import WatchedClients
from dedp_assets.delimited.header import UnreadableFile
from dedp_assets.errors import DedpError
from dedp_assets.failures import named_failures
from dedp_assets.landing.copies import StorageFailed
from dedp_assets.landing.copying import NotCopied, StillBeingWritten
from dedp_assets.landing.object_folders import scan_anywhere
from dedp_assets.materializations import record_materializations
from dedp_assets.origin import ORIGIN_TAG
from dedp_assets.resources.object_store import StorageProblem
from dedp_assets.resources.postgres import PostgresResource

_RETRIES = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL)
_COLUMNS = dg.TableSchema(
    [
        dg.TableColumn("client", "text", "Whose file the row comes from."),
        dg.TableColumn("file", "text", "The name of the file in the client's directory."),
        dg.TableColumn("line_number", "bigint", "The line of the file; 1 is its first line, in CSV the header."),
        dg.TableColumn("id", "text", "As it stands in the file; never empty."),
        dg.TableColumn("name", "text", "As it stands in the file; never empty."),
        dg.TableColumn("value", "text", "As it stands in the file; never empty."),
    ]
)

# What was done is recorded after so many seconds. If the run is killed, the ledger has the files all the same.
_RECORD_SECONDS = 1.0

_watched = WatchedClients()


@dg.multi_asset(
    name="uploads",
    specs=[
        dg.AssetSpec(
            contract.RECEIVED,
            skippable=True,
            description="A client's files, copied whole to internal storage, each version once.",
            kinds={"csv", "file"},
            owners=["team:client-uploads"],
        ),
        dg.AssetSpec(
            contract.RECORDS,
            deps=[contract.RECEIVED],
            skippable=True,
            description="The good lines of all files of a client. The others are in dedp.upload_quarantine.",
            kinds={"postgres", "table"},
            owners=["team:client-uploads"],
            metadata={"dagster/table_name": "dedp.upload_records", "dagster/column_schema": _COLUMNS},
        ),
    ],
    partitions_def=contract.CLIENTS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="client_uploads",
    retry_policy=_RETRIES,
)
def uploads(
    context: dg.AssetExecutionContext, config: Arrivals, postgres: PostgresResource
) -> Iterable[dg.Output[None]]:
    """Take the files that the sensor has found, or by hand all files of the run's clients that are not in the ledger.

    One step does both, since a run's time is mostly its start. A run that the sensor requests may be for any number of
    clients, which no partition and no range of them says. So the step records each client's materializations itself.
    """
    clients = _watched.now().by_name
    source = Source(context.run.tags.get(ORIGIN_TAG, "by hand"), context.run.run_id)
    problems: list[DedpError] = []
    with named_failures(context.log), postgres.connect() as connection, _Recorder(context) as recorder:
        ledger.ensure_tables(connection)
        arrivals = config.files or _waiting_files(connection, clients, context.partition_keys)
        for client, files in _by_client(arrivals).items():
            done = []
            for arrival in files:
                try:
                    taken = _take(connection, clients, arrival, source)
                except (NotCopied, StillBeingWritten, StorageFailed, StorageProblem, UnreadableFile) as error:
                    # One file stops no other.
                    problems.append(error)
                    context.log.error(f"{client}: {error}")
                    continue
                if taken:
                    done.append(taken)
            if done:
                recorder.add(client, done)
    if problems:
        raise dg.Failure("\n".join(map(str, problems)), allow_retries=any(problem.may_pass for problem in problems))
    yield from ()


class _Recorder:
    """Tells Dagster what was done, for several clients at once: an event takes it longer than to load a small file.

    Whatever ends the block, short of the death of the process, nothing that was added is lost.
    """

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._context = context
        self._done: list[tuple[str, list[Taken]]] = []
        self._written = time.monotonic()

    def __enter__(self) -> "_Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def add(self, client: str, done: list[Taken]) -> None:
        self._done.append((client, done))
        if time.monotonic() - self._written > _RECORD_SECONDS:
            self._write()

    def _write(self) -> None:
        done, self._done = self._done, []
        _log(self._context, [taken for _, files in done for taken in files])
        for key, materialization in ((contract.RECEIVED, _received), (contract.RECORDS, _loaded)):
            if key in self._context.selected_asset_keys:
                made = [materialization(client, files) for client, files in done]
                record_materializations(self._context, [each for each in made if each is not None])
        self._written = time.monotonic()


def _by_client(arrivals: Iterable[Arrival]) -> dict[str, list[Arrival]]:
    found: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        found.setdefault(arrival.client, []).append(arrival)
    return found


def _waiting_files(connection: Connection, clients: dict[str, Client], names: Iterable[str]) -> list[Arrival]:
    """All files of some clients that are not in the ledger in their present version."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    found = []
    for name in names:
        if name not in clients:
            continue
        directory = clients[name].directory
        scan = scan_anywhere(directory)
        known = ledger.known_files(connection, {name: list(scan.files)}).get(name, {})
        for file, version in sorted(scan.files.items()):
            if version.size and not (file in known and known[file].version == version):
                found.append(
                    Arrival(
                        client=name,
                        directory=str(directory.path),
                        file=file,
                        pattern=directory.pattern_of(file) or "",
                        # Not the version that was seen: nobody has seen it unchanged for long enough yet.
                        version="0:0:0:0",
                        size_bytes=version.size,
                        modified_at=now,
                        first_seen_at=now,
                        waited_seconds=0.0,
                        sha256="",
                    )
                )
    return found


def _take(connection: Connection, clients: dict[str, Client], arrival: Arrival, source: Source) -> Taken | None:
    client = clients.get(arrival.client)
    if client is None:
        raise NotCopied(
            f"{arrival.directory}/{arrival.file}: the settings do not name the client {arrival.client} any more"
        )
    # Who launches a run chooses its config, and may not choose any folder of this machine.
    if arrival.directory != str(client.directory.path):
        raise NotCopied(
            f"{arrival.directory}/{arrival.file} is not taken: the directory of {arrival.client} is "
            f"{client.directory.path}, and a run takes files of that one only"
        )
    return take_file(connection, arrival, client, contract.copy_of(arrival.client, arrival.file), source)


def _log(context: dg.AssetExecutionContext, done: list[Taken]) -> None:
    """One message for all good files, because each message is an event; and one for each file that is refused."""
    said = []
    for arrival, outcome in done:
        if outcome.state == "refused":
            context.log.warning(f"{arrival.client}/{arrival.file}: refused: {outcome.reason}")
        else:
            said.append(
                f"{arrival.client}/{arrival.file}: {outcome.state}, {outcome.lines_read:,} lines read, "
                f"{outcome.rows_loaded:,} loaded, {outcome.rows_quarantined:,} quarantined"
            )
    if said:
        context.log.info("\n".join(said))


def _received(client: str, done: list[Taken]) -> dg.AssetMaterialization:
    """The materialization of a client's files, with the details of the files."""
    metadata: dict[str, Any] = {
        **metadata_of(done[-1].arrival),
        "files": len(done),
        "arrivals": dg.MetadataValue.json([taken.arrival.model_dump() for taken in done[:100]]),
        "longest_wait_seconds": max(taken.arrival.waited_seconds for taken in done),
    }
    return dg.AssetMaterialization(contract.RECEIVED, partition=client, metadata=metadata, tags=_version(done))


def _loaded(client: str, done: list[Taken]) -> dg.AssetMaterialization | None:
    """The materialization of a client's rows, or None if its files were only copied."""
    states = Counter(taken.outcome.state for taken in done)
    if not states["loaded"] + states["refused"]:
        return None
    metadata: dict[str, Any] = {
        "files_loaded": states["loaded"],
        "files_refused": states["refused"],
        "lines_read": sum(taken.outcome.lines_read for taken in done),
        "dagster/partition_row_count": sum(taken.outcome.rows_loaded for taken in done),
        "rows_quarantined": sum(taken.outcome.rows_quarantined for taken in done),
        "refusals": dg.MetadataValue.json(
            {taken.arrival.file: taken.outcome.reason for taken in done if taken.outcome.state == "refused"}
        ),
    }
    return dg.AssetMaterialization(contract.RECORDS, partition=client, metadata=metadata, tags=_version(done))


def _version(done: list[Taken]) -> dict[str, str]:
    return {"dagster/data_version": done[-1].arrival.sha256}


@dg.asset_check(asset=contract.RECEIVED, name=contract.SILENCE_CHECK)
def no_client_is_silent(postgres: PostgresResource) -> dg.AssetCheckResult:
    """No client with a time-out has been silent for longer, as the last tick found. The sensor reports it as well."""
    with postgres.connect() as connection:
        ledger.ensure_tables(connection)
        silent = silent_clients(connection)
    return dg.AssetCheckResult(passed=not silent, severity=dg.AssetCheckSeverity.WARN, metadata={"silent": silent})
