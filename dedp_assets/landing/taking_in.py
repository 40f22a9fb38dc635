"""What a run does for each of its days: choose the landed file, wait until it is complete, copy it."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from dedp_assets.landing.copies import Copied, read_copied
from dedp_assets.landing.copying import AnotherFile, NotCopied, SeenSince, copy_when_settled
from dedp_assets.landing.dated import UNDATED, DatedFolder, is_dated
from dedp_assets.landing.versions import FileVersion
from dedp_assets.landing.wanted import StoredCopies, may_only_grow


class LandedFiles(dg.Config):
    """Which file each day is taken in from, and in which version: what the sensor has seen.

    Left empty, as by hand: each day takes its own file if there is one, or else the undated one.
    """

    sources: dict[str, str] = Field({}, description="Day to landed file: `2024-01-03/dataset.csv` or `dataset.csv`.")
    complete: dict[str, str] = Field({}, description="Landed file to the version that was seen to be complete.")


@dataclass(frozen=True)
class Taken:
    """A day's copy as it is now: its SHA-256, what to show of it, and why it was kept as it was, or ""."""

    sha256: str
    metadata: dict[str, Any]
    kept_because: str = ""


class TakingIn:
    """Copies the landed files of a run's days, each to its place.

    Args:
        landing: the folder that they arrive in.
        copy_of: where a day's copy is kept.
        config: what the sensor asks for.
        settle_seconds: how long a file must have been seen unchanged, in s.
    """

    def __init__(
        self, landing: DatedFolder, copy_of: Callable[[str], Path], config: LandedFiles, settle_seconds: float
    ) -> None:
        self._landing, self._copy_of, self._config = landing, copy_of, config
        self._settle_seconds = settle_seconds
        complete = {landing.path / name: FileVersion.from_text(version) for name, version in config.complete.items()}
        self._seen = SeenSince(complete)

    def look_at(self, days: Iterable[str]) -> None:
        """See each day's file now, so that all of them settle at the same time."""
        for day in days:
            requested = self._config.sources.get(day)
            dated = self._landing.file_of(day)
            by_hand = dated if os.path.lexists(dated) else self._landing.file_of(UNDATED)
            self._seen.look(self._landing.path / requested if requested else by_hand)

    def take_in(self, day: str) -> Taken:
        """Copy a day's file. Raises NotCopied, with what was found and expected."""
        source, copy = self._source(day), self._copy_of(day)
        # By hand, a day takes whatever is there.
        is_later = day in self._config.sources and source == self._landing.file_of(UNDATED)
        beginning = may_only_grow(day, StoredCopies(self._landing, self._copy_of)) if is_later else None
        before = read_copied(copy)
        try:
            copied = copy_when_settled(
                source, copy, settle_seconds=self._settle_seconds, seen=self._seen, beginning=beginning
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
                # Lines without the header, which is what will be read; a broken file may have none.
                "dagster/partition_row_count": max(0, copied.line_count - 1),
                "sha256": copied.sha256,
                "content": "as before" if before and before.sha256 == copied.sha256 else "new",
            },
        )

    def _source(self, day: str) -> Path:
        """The file to take. Raises NotCopied where it would be another one than the day has been promised."""
        dated, undated, copy = self._landing.file_of(day), self._landing.file_of(UNDATED), self._copy_of(day)
        requested = self._config.sources.get(day)
        if requested is not None:
            source = self._landing.path / requested
            if not os.path.lexists(source):
                raise NotCopied(
                    f"{source} was to be taken in, and is gone; nothing else is taken in its place. Put it back, or "
                    f"materialize {day} by hand to take what is there"
                )
            return source
        if os.path.lexists(dated):
            return dated
        copied = read_copied(copy)
        if copied is not None and is_dated(copied.source, day):
            raise NotCopied(
                f"{dated} is gone, from which {day} was taken in; its copy stays. Put the file back, or, to take "
                f"{undated} in its place, delete {copy.parent} first"
            )
        if not os.path.lexists(undated):
            raise NotCopied(f"expected a file at {dated}, or at {undated} for every day; found neither")
        return undated


def materialization(key: dg.AssetKey, day: str, copied: Copied) -> dg.AssetMaterialization:
    """The event that tells Dagster of a copy that it does not know of."""
    return dg.AssetMaterialization(
        key,
        partition=day,
        metadata={"source": dg.MetadataValue.path(copied.source), "sha256": copied.sha256},
        tags={"dagster/data_version": copied.sha256},
    )
