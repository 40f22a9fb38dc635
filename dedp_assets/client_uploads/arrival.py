"""What a run is told of the files that it takes: typed, validated, and the same in its config and in its metadata."""

from datetime import datetime, timezone
from typing import Any

import dagster as dg
from pydantic import Field, field_validator

from dedp_assets.client_uploads.settings_file import problem_of_client
from dedp_assets.landing import arrivals
from dedp_assets.landing.versions import FileVersion


class Arrival(dg.Config):
    """A complete version of a file that a client has uploaded. Times are in UTC, as ISO 8601."""

    client: str = Field(description="Whose file it is: the partition.")
    directory: str = Field(description="The folder that it lies in.")
    file: str = Field(description="Its name there.")
    pattern: str = Field(description="The pattern of the settings that its name matches, such as *.csv.")
    version: str = Field(description="The version that is complete: size, mtime, ctime and inode.")
    size_bytes: int = Field(description="Its size in bytes.", ge=0)
    modified_at: str = Field(description="When it was modified last, as the file says.")
    first_seen_at: str = Field(description="When the sensor saw it first.")
    waited_seconds: float = Field(description="From then until this run was requested, in s.", ge=0)
    sha256: str = Field("", description="Of its content, or empty where the sensor left it to the run: it is large.")

    @field_validator("client")
    @classmethod
    def _check_client(cls, client: str) -> str:
        problem = problem_of_client(client)
        if problem:
            raise ValueError(f"the client {client!r} {problem}")
        return client

    @field_validator("file")
    @classmethod
    def _check_file(cls, file: str) -> str:
        if not file or "/" in file or "\0" in file or file in (".", ".."):
            raise ValueError(f"expected the name of a file in the client's directory, found {file!r}")
        return file

    @field_validator("version")
    @classmethod
    def _check_version(cls, version: str) -> str:
        FileVersion.from_text(version)
        return version

    @field_validator("modified_at", "first_seen_at")
    @classmethod
    def _check_time(cls, time: str) -> str:
        if datetime.fromisoformat(time).tzinfo is None:
            raise ValueError(f"expected a time with its offset, such as 2024-01-31T08:00:00+00:00, found {time!r}")
        return time

    @field_validator("sha256")
    @classmethod
    def _check_sha256(cls, sha256: str) -> str:
        if sha256 and (len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef")):
            raise ValueError(f"expected 64 hexadecimal digits or nothing, found {sha256!r}")
        return sha256


class Arrivals(dg.Config):
    """The files that a run takes. Left empty, as by hand: all files of its clients that have not been loaded."""

    files: list[Arrival] = Field([], description="In the order in which they are taken.")


def arrival_of(found: arrivals.Arrival, sha256: str = "") -> Arrival:
    """What a run is told of a file that the sensor has found."""
    return Arrival(
        client=found.directory.client,
        directory=str(found.directory.path),
        file=found.file,
        pattern=found.directory.pattern_of(found.file) or "",
        version=found.version.to_text(),
        size_bytes=found.version.size,
        modified_at=_iso(found.version.modified_ns / 1e9),
        first_seen_at=_iso(found.first_seen),
        waited_seconds=round(found.waited_seconds, 3),
        sha256=sha256,
    )


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


def metadata_of(arrival: Arrival) -> dict[str, Any]:
    """The details of an arrival for the UI."""
    return {
        "directory": dg.MetadataValue.path(arrival.directory),
        "file": arrival.file,
        "pattern": arrival.pattern,
        "size_bytes": arrival.size_bytes,
        "modified_at": dg.MetadataValue.timestamp(datetime.fromisoformat(arrival.modified_at)),
        "first_seen_at": dg.MetadataValue.timestamp(datetime.fromisoformat(arrival.first_seen_at)),
        "waited_seconds": arrival.waited_seconds,
        "sha256": arrival.sha256,
    }
