"""Makes a backup of a system, which may be running."""

import shutil
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from dedp_assets.backup import database, folders, lake
from dedp_assets.backup.archive import DUMP, Draft, Manifest, drafting
from dedp_assets.backup.errors import BackupError
from dedp_assets.backup.places import HOME, INTERNAL, LAKE, LANDING, LOGS, NOT_COPIED, Places
from dedp_assets.backup.versions import installed_versions


def back_up(
    target: Path,
    places: Places,
    dsn: str,
    storage_dsn: str,
    *,
    without: frozenset[str] = frozenset(),
    with_logs: bool = False,
    settle_seconds: float = 2,
    say: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Write a backup.

    The order makes it consistent while the system runs: see the docstring of the package.

    Args:
        target: its folder, which is made. It must not be there, or be empty.
        places: where the parts of the system are.
        dsn: the address of the database.
        storage_dsn: the address of Dagster's storage in it.
        without: `LAKE` or `LANDING`, to leave these parts out.
        with_logs: whether to copy the output of runs, too.
        settle_seconds: how long a landed file must not have changed, in s.
        say: is told how it goes.

    Raises:
        BackupError: the backup can't be made. Nothing of it is left.
    """
    target = target.resolve()
    inside = places.around(target)
    if inside is not None:
        raise BackupError(
            f"{target} is in {inside}, which is part of the system; a backup belongs outside of it, on another disk"
        )
    parts = [part for part in (LAKE, INTERNAL, HOME, LANDING) if part not in without] + ([LOGS] if with_logs else [])
    if LANDING in parts and not places.is_in_home(places.landing):
        parts.remove(LANDING)
    described = database.describe(dsn, storage_dsn)
    _check_space(target, _bytes_of(places, parts) + described.bytes)
    manifest = Manifest(
        made_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions={**installed_versions(), "postgres": described.server_version},
        migrations=described.migrations,
        schemas=described.schemas,
        parts=parts,
        database_bytes=described.bytes,
    )
    with drafting(target) as draft:
        say(f"the database: {size(described.bytes)}, before it is compressed")
        database.dump(dsn, described.schemas, described.server_version, draft.folder / DUMP)
        draft.adopt(DUMP)
        for part in parts:
            before = draft.files, draft.bytes
            _copy_part(part, places, draft, settle_seconds)
            say(f"{part}: {draft.files - before[0]} files, {size(draft.bytes - before[1])}")
        if LANDING not in parts:
            draft.left_out.append(
                f"{places.landing}: the landing folder belongs to others; what is in it is not copied"
            )
        if LAKE not in parts:
            draft.left_out.append(f"{places.lake}: the Delta tables were left out")
        return draft.finish(manifest)


def _copy_part(part: str, places: Places, draft: Draft, settle_seconds: float) -> None:
    if part == LAKE:
        lake.copy_lake(lake.lake_at(places.lake), part, draft, places.sources)
    elif part == LANDING:
        folders.copy_landed(places.landing, part, draft, settle_seconds)
    else:
        folders.copy_own(_root(part, places), part, draft, lambda path: _is_skipped(path, places))


def _root(part: str, places: Places) -> Path:
    return {INTERNAL: places.internal, HOME: places.home, LOGS: places.logs}[part]


def _is_skipped(path: Path, places: Places) -> bool:
    """Whether a file or folder is no part of `home`, `internal` or `logs`."""
    if path.parent == places.home and path.name in NOT_COPIED:
        return True
    others = (places.internal, places.landing, Path(places.lake), *places.temporary)
    return path in others


def _bytes_of(places: Places, parts: list[str]) -> int:
    total = lake.size_of(lake.lake_at(places.lake)) if LAKE in parts else 0
    for part in parts:
        if part == LANDING:
            total += folders.size_of(places.landing)
        elif part != LAKE:
            total += folders.size_of(_root(part, places), lambda path: _is_skipped(path, places))
    return total


def _check_space(target: Path, needed: int) -> None:
    there = next(folder for folder in (target, *target.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise BackupError(
            f"the backup may need {size(needed)}, and {size(free)} are free in {there}; choose a folder on another disk"
        )


def size(number: int) -> str:
    """A number of bytes for people."""
    value = float(number)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
