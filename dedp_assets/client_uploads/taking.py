"""Takes one uploaded file: copies it whole, loads it, and writes the ledger, in one transaction."""

from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from psycopg2.extensions import connection as Connection

from dedp_assets.client_uploads import ledger
from dedp_assets.client_uploads.arrival import Arrival
from dedp_assets.client_uploads.ledger import Outcome
from dedp_assets.client_uploads.loading import load_copy
from dedp_assets.client_uploads.settings_file import Client
from dedp_assets.landing.copying import CopiedFile, SeenSince, copy_when_settled
from dedp_assets.landing.directories import ObjectFolder
from dedp_assets.landing.object_folders import copy_object
from dedp_assets.landing.versions import FileVersion
from dedp_assets.resources.object_store import is_object_store


class Taken(NamedTuple):
    """What was done with a file: its details as they were when it was copied, and what became of it."""

    arrival: Arrival
    outcome: Outcome


class Source(NamedTuple):
    """What started a run, and the run's id: they stand in the ledger."""

    origin: str
    run_id: str


def take_file(connection: Connection, arrival: Arrival, client: Client, copy: Path, source: Source) -> Taken | None:
    """Copy a file, load it if its client's target is the records, and write the ledger.

    Two runs of the same file take turns. The version that is there is copied, if need be a later one than was asked
    for: what the ledger says is always what the table holds.

    Args:
        connection: To a database with the tables. What it does is committed.
        arrival: The file, in the version that was seen to be complete.
        client: Whose file it is.
        copy: Where our own copy is kept.
        source: For the ledger.

    Returns:
        What was done, or None if the ledger has this version already.

    Raises:
        NotCopied: The file is gone, or can't be read.
        StorageProblem: The object store does not answer.
        UnreadableFile: The copy can't be read.
    """
    with connection, connection.cursor() as cursor:
        ledger.lock_file(cursor, arrival.client, arrival.file)
        wanted = "received" if client.target == "uploads/received" else "loaded"
        if ledger.current(cursor, arrival.client, arrival.file) in [
            (arrival.version, wanted),
            (arrival.version, "refused"),
        ]:
            return None
        copied = _copied(arrival, client, copy)
        arrival = arrival.model_copy(
            update={
                "version": copied.version.to_text(),
                "size_bytes": copied.size_bytes,
                "modified_at": datetime.fromtimestamp(copied.version.modified_ns / 1e9, timezone.utc).isoformat(
                    timespec="milliseconds"
                ),
                "sha256": copied.sha256,
            }
        )
        if wanted == "received":
            outcome = Outcome("received", copied.sha256)
        else:
            outcome = load_copy(cursor, arrival.client, arrival.file, copy, client.format, copied.sha256)
        ledger.record(cursor, arrival, outcome, origin=source.origin, run_id=source.run_id)
        return Taken(arrival, outcome)


def _copied(arrival: Arrival, client: Client, copy: Path) -> CopiedFile:
    complete, settle_seconds = FileVersion.from_text(arrival.version), client.directory.settle_seconds
    if is_object_store(arrival.directory):
        folder = ObjectFolder(arrival.directory)
        return copy_object(folder, arrival.file, copy, settle_seconds=settle_seconds, complete=complete)
    path = Path(arrival.directory) / arrival.file
    return copy_when_settled(path, copy, settle_seconds=settle_seconds, seen=SeenSince({path: complete}))
