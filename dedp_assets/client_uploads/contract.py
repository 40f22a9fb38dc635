"""What others may know of the client uploads: asset keys, partitions, and where a file's copy is kept."""

from pathlib import Path

import dagster as dg

from dedp_assets import settings

RECEIVED = dg.AssetKey(["uploads", "received"])
RECORDS = dg.AssetKey(["uploads", "records"])
REPORT = dg.AssetKey(["uploads", "report"])

# Fails while a client has uploaded nothing for longer than its time-out.
SILENCE_CHECK = "no_client_is_silent"

# A partition is a client, and not a file: there would soon be more files than any tool can show.
CLIENTS = dg.DynamicPartitionsDefinition(name="upload_clients")

# The columns of dedp.upload_records that a client's file fills.
COLUMNS = ("id", "name", "value")


def copy_of(client: str, file: str) -> Path:
    """Our own copy of a client's file, in a folder of its own."""
    return settings.internal() / "uploads" / client / file / "content"


def report_file() -> Path:
    """The report of the uploads, an HTML page."""
    return settings.home() / "uploads" / "report.html"
