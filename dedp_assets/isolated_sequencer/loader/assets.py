"""`devices_file`: each day's file, in internal storage, whole and under our own roof."""

import os
import time
from pathlib import Path

import dagster as dg

from dedp_assets import partition_runs, settings
from dedp_assets.file_versions import FileVersion
from dedp_assets.isolated_sequencer import contract
from dedp_assets.isolated_sequencer.internal_storage import Copied, read_copied
from dedp_assets.isolated_sequencer.loader import landing
from dedp_assets.isolated_sequencer.loader.copying import (
    AnotherFile,
    NotCopied,
    SeenSince,
    StillBeingWritten,
    copy_when_settled,
)
from dedp_assets.isolated_sequencer.loader.requested import LandedFiles
from dedp_assets.isolated_sequencer.loader.wanted import StoredCopies, may_only_grow


@dg.asset(
    key=contract.DEVICES_FILE,
    partitions_def=contract.LOADS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="devices_loader",
    owners=["team:devices-loading"],
    kinds={"csv", "file"},
    metadata={"dagster/column_schema": dg.TableSchema([dg.TableColumn(name, "string") for name in contract.HEADER])},
    retry_policy=dg.RetryPolicy(max_retries=3, delay=20),
)
def devices_file(context: dg.AssetExecutionContext, config: LandedFiles) -> dg.MaterializeResult:
    """One day's devices file, copied from the landing folder to internal storage.

    The file that came for the day (`devices/2024-01-03/dataset.csv`) wins over the undated one
    (`devices/dataset.csv`). The copy is replaced as a whole or not at all.
    """
    folder = landing.folder()
    seen = SeenSince({folder / name: FileVersion.from_text(version) for name, version in config.complete.items()})
    for day in context.partition_keys:
        # Now, so that all of them settle at the same time.
        seen.look(folder / config.sources[day] if day in config.sources else _file_of(day))

    def take_in(day: str) -> partition_runs.Materialized:
        source = _source(day, config.sources.get(day))
        # By hand, a day takes whatever is there.
        is_later = day in config.sources and source == landing.undated_file()
        beginning = may_only_grow(day, StoredCopies()) if is_later else None
        try:
            return _take_in(day, source, seen, beginning)
        except AnotherFile as error:
            assert beginning is not None
            context.log.info(f"{day}: {error}; the day keeps what it has")
            return partition_runs.Materialized(beginning.sha256, {"content": "as before", "sha256": beginning.sha256})

    return partition_runs.materialize_each(context, take_in, failures=(NotCopied,), retryable=(StillBeingWritten,))


def _file_of(day: str) -> Path:
    """The file that a day takes: its own if there is one, usable or not, or else the undated one."""
    dated = landing.dated_file(day)
    return dated if os.path.lexists(dated) else landing.undated_file()


def _source(day: str, requested: str | None) -> Path:
    """The file to take. Raises NotCopied where it would be another one than the day has been promised."""
    dated, undated = landing.dated_file(day), landing.undated_file()
    if requested is not None:
        source = landing.folder() / requested
        if not os.path.lexists(source):
            raise NotCopied(
                f"{source} was to be taken in, and is gone; nothing else is taken in its place. Put it back, or "
                f"materialize {contract.DEVICES_FILE.to_user_string()} for {day} by hand to take what is there"
            )
        return source
    if os.path.lexists(dated):
        return dated
    copied = read_copied(contract.internal_file(day))
    if copied is not None and landing.is_dated(copied.source, day):
        raise NotCopied(
            f"{dated} is gone, from which {day} was taken in; its copy stays. Put the file back, or, to take {undated} "
            f"in its place, delete {contract.internal_file(day).parent} first"
        )
    if not os.path.lexists(undated):
        raise NotCopied(f"expected a file at {dated}, or at {undated} for every day; found neither")
    return undated


def _take_in(day: str, source: Path, seen: SeenSince, beginning: Copied | None) -> partition_runs.Materialized:
    began = time.monotonic()
    destination = contract.internal_file(day)
    before = read_copied(destination)
    copied = copy_when_settled(
        source, destination, settle_seconds=settings.settle_seconds(), seen=seen, beginning=beginning
    )
    return partition_runs.Materialized(
        data_version=copied.sha256,
        metadata={
            "source": dg.MetadataValue.path(str(copied.source)),
            "path": dg.MetadataValue.path(str(destination)),
            "size_bytes": copied.size_bytes,
            # Lines without the header, which is what will be read; a broken file may have none.
            "dagster/partition_row_count": max(0, copied.line_count - 1),
            "sha256": copied.sha256,
            "content": "as before" if before and before.sha256 == copied.sha256 else "new",
            "seconds": round(time.monotonic() - began, 3),
        },
    )
