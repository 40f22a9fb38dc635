"""The work of a run for each of its days: choose the landed file, wait until it is complete, copy it."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from dedp_assets.landing.copies import CopyRecord, read_record
from dedp_assets.landing.copying import AnotherFile, NotCopied, SeenSince, copy_when_settled
from dedp_assets.landing.dated import UNDATED, DatedFolder, is_dated
from dedp_assets.landing.versions import FileVersion
from dedp_assets.landing.wanted import StoredCopies, required_beginning


class LandedFiles(dg.Config):
    """Which landed file each day is copied from, and in which version. The sensor fills it in.

    Leave it empty for a run by hand: each day takes its own file if there is one, or else the undated file.
    """

    sources: dict[str, str] = Field(
        default={}, description="Day to landed file: `2024-01-03/dataset.csv` or `dataset.csv`."
    )
    complete: dict[str, str] = Field(default={}, description="Landed file to the version that was seen to be complete.")


@dataclass(frozen=True)
class Taken:
    """The copy of a day after the work.

    Attributes:
        sha256: Of the copy's content.
        metadata: For the UI.
        kept_because: Why the earlier copy was kept; empty if the file was copied.
    """

    sha256: str
    metadata: dict[str, Any]
    kept_because: str = ""


class TakingIn:
    """Copies the landed files of the days of one run.

    Args:
        landing: The landing folder.
        copy_of: Gives the path of a day's copy.
        config: The config of the run.
        settle_seconds: How long a file must be unchanged before it counts as complete, in s.

    Raises:
        NotCopied: The config has a version that is none.
    """

    def __init__(
        self, landing: DatedFolder, copy_of: Callable[[str], Path], config: LandedFiles, settle_seconds: float
    ) -> None:
        self._landing, self._copy_of, self._config = landing, copy_of, config
        self._settle_seconds = settle_seconds
        complete = {landing.path / name: _version(name, text) for name, text in config.complete.items()}
        self._seen = SeenSince(complete)

    def observe_files(self, days: Iterable[str]) -> None:
        """Note the present version of each day's file, so that all files settle at the same time."""
        for day in days:
            requested = self._config.sources.get(day)
            dated = self._landing.file_of(day)
            by_hand = dated if os.path.lexists(dated) else self._landing.file_of(UNDATED)
            self._seen.unchanged_since(self._landing.path / requested if requested else by_hand)

    def take_in(self, day: str) -> Taken:
        """Copy the file of a day.

        Raises:
            NotCopied: The file is missing or unusable, or is another file than the day has to take.
            StillBeingWritten: The file did not come to rest in time.
            StorageFailed: Reading the file or writing the copy failed.
        """
        source, copy = self._source(day), self._copy_of(day)
        # A run by hand copies the undated file whatever its content is. A requested run does not.
        is_requested = day in self._config.sources and source == self._landing.file_of(UNDATED)
        beginning = required_beginning(day, StoredCopies(self._landing, self._copy_of)) if is_requested else None
        before = read_record(copy)
        try:
            copied = copy_when_settled(
                source,
                copy,
                settle_seconds=self._settle_seconds,
                seen=self._seen,
                beginning=beginning,
                root=self._landing.path,
            )
        except AnotherFile as error:
            assert beginning is not None
            return Taken(beginning.sha256, {"content": "as before", "sha256": beginning.sha256}, str(error))
        return Taken(
            copied.sha256,
            {
                "source": dg.MetadataValue.path(str(copied.source)),
                "path": dg.MetadataValue.path(str(copy)),
                "size_bytes": copied.size_bytes,
                # Without the header. A broken file may not even have that.
                "dagster/partition_row_count": max(0, copied.line_count - 1),
                "sha256": copied.sha256,
                "content": "as before" if before and before.sha256 == copied.sha256 else "new",
            },
        )

    def _source(self, day: str) -> Path:
        """Choose the file to copy. Raises NotCopied if the file that the day has to take is gone."""
        dated, undated, copy = self._landing.file_of(day), self._landing.file_of(UNDATED), self._copy_of(day)
        requested = self._config.sources.get(day)
        if requested is not None:
            # Who launches a run chooses its config, and may not choose any file of this machine.
            if requested not in (self._landing.name_of(day), self._landing.name_of(UNDATED)):
                raise NotCopied(
                    f"the run config gives {day} the file {requested!r}; expected {self._landing.name_of(day)} or "
                    f"{self._landing.name_of(UNDATED)}"
                )
            source = self._landing.path / requested
            if not os.path.lexists(source):
                raise NotCopied(
                    f"{source} was to be copied, and is gone; no other file is copied in its place. Put it back, or "
                    f"materialize {day} by hand to copy the file that is there now"
                )
            return source
        if os.path.lexists(dated):
            return dated
        record = read_record(copy)
        if record is not None and is_dated(record.source, day):
            raise NotCopied(
                f"{dated}, from which {day} was copied, is gone; the copy stays. Put the file back. Or, to copy "
                f"{undated} in its place, delete {copy.parent} first"
            )
        if not os.path.lexists(undated):
            raise NotCopied(f"expected a file at {dated}, or at {undated} for every day; found neither")
        return undated


def _version(name: str, text: str) -> FileVersion:
    try:
        return FileVersion.from_text(text)
    except ValueError:
        raise NotCopied(
            f"the run config gives {name} the version {text!r}; expected what the sensor writes there, such as "
            "120:1704240000000000000:1704240000000000000:42. Leave `complete` out in a run by hand"
        ) from None


def materialization(key: dg.AssetKey, day: str, record: CopyRecord) -> dg.AssetMaterialization:
    """The event that tells Dagster of a copy which it does not know of."""
    return dg.AssetMaterialization(
        key,
        partition=day,
        metadata={"source": dg.MetadataValue.path(record.source), "sha256": record.sha256},
        tags={"dagster/data_version": record.sha256},
    )
