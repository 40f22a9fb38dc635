"""Restores a backup into an empty home and an empty database."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from dedp_assets.backup import database, lake
from dedp_assets.backup.archive import DUMP, Entry, Manifest, check_is_empty, entries, read_manifest, verify
from dedp_assets.backup.backing_up import size
from dedp_assets.backup.errors import BackupError
from dedp_assets.backup.places import HOME, INTERNAL, LAKE, LANDING, LOGS, Places
from dedp_assets.backup.versions import check_is_not_newer, installed_versions, known_migrations
from dedp_assets.delta.log_files import LOG
from dedp_assets.resources import object_store


def restore(
    source: Path,
    places: Places,
    database_of: Callable[[], AbstractContextManager[str]],
    mark: Path,
    *,
    without: frozenset[str] = frozenset(),
    say: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Restore a backup. Nothing is changed before the whole backup has been read and found sound.

    Args:
        source: the folder of the backup.
        places: where the parts of the system are to be. All of them must be empty, or not be there.
        database_of: gives the address of the database while its block lasts. It must be empty, too.
        mark: a file that exists while a restore is under way, or was not completed.
        without: `LAKE` or `LANDING`, to leave these parts as they are.
        say: is told how it goes.

    Raises:
        BackupError: the backup or a place for it can't be used.
    """
    manifest = read_manifest(source)
    check_is_not_newer(manifest.versions, manifest.migrations, installed_versions(), known_migrations())
    parts = set(manifest.parts) - without
    _check_is_empty(places, parts)
    _check_space(source, places, parts, manifest.database_bytes)
    say(f"reading all of {source}: {manifest.files} files, {size(manifest.bytes)}")
    verify(source)
    with database_of() as dsn:
        database.check_fits(dsn, manifest.versions["postgres"], manifest.schemas)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch(exist_ok=False)
        say("the files")
        _restore_files(source, places, parts)
        say("the database")
        database.load(dsn, source / DUMP, manifest.versions["postgres"])
    os.sync()
    mark.unlink()
    return manifest


def end_interrupted_runs(environment: Mapping[str, str]) -> None:
    """Report the runs as failed that were under way when the backup was made. Dagster repeats them.

    Args:
        environment: the environment variables of a process of this system.
    """
    command = [sys.executable, "-m", "dedp_assets.backup.interrupted_runs"]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True)
    if done.returncode:
        raise BackupError(
            "everything is restored, but the runs that were under way when the backup was made could not be reported "
            f"as failed: {' '.join(done.stderr.split())[-500:]}. Cancel them in Dagster's UI"
        )


def _check_is_empty(places: Places, parts: set[str]) -> None:
    check_is_empty(places.home, "the home (DEDP_HOME)")
    if INTERNAL in parts:
        check_is_empty(places.internal, "the folder for our copies (DEDP_INTERNAL)")
    if LANDING in parts:
        check_is_empty(places.landing, "the landing folder (DEDP_LANDING)")
    if LAKE in parts:
        if not object_store.is_object_store(places.lake):
            check_is_empty(Path(places.lake), "the folder for the Delta tables (DEDP_DATA_URI)")
        elif next(lake.lake_at(places.lake).files(), None) is not None:
            raise BackupError(f"the place for the Delta tables (DEDP_DATA_URI), {places.lake}, is not empty")


def _check_space(source: Path, places: Places, parts: set[str], database_bytes: int) -> None:
    """See that each disk has room for what is to be restored to it."""
    sizes = Counter[str]()
    for entry in entries(source):
        sizes[entry.path.partition("/")[0]] += entry.size
    wanted = [(root, sizes[part]) for part, root in _roots(places).items() if part in parts]
    if places.database is not None:
        wanted.append((places.database, database_bytes))
    needed = Counter[int]()
    for root, number in wanted:
        there = next(folder for folder in (root, *root.parents) if folder.is_dir())
        disk = there.stat().st_dev
        needed[disk] += number
        free = shutil.disk_usage(there).free
        if free < needed[disk]:
            raise BackupError(f"the restore may need {size(needed[disk])}, and {size(free)} are free in {there}")


def _roots(places: Places) -> dict[str, Path]:
    """The folder of each part that is in a folder."""
    local = {} if object_store.is_object_store(places.lake) else {LAKE: Path(places.lake)}
    return {HOME: places.home, INTERNAL: places.internal, LANDING: places.landing, LOGS: places.logs, **local}


def _restore_files(source: Path, places: Places, parts: set[str]) -> None:
    roots, into = _roots(places), lake.lake_at(places.lake)
    for is_log in (False, True):  # who reads a table meanwhile finds all of it, or none
        for entry in entries(source):
            part, _, path = entry.path.partition("/")
            if part not in parts:
                continue
            if part == LAKE:
                if (f"/{LOG}/" in path) == is_log:
                    into.put(path, source / entry.path, entry.modified_ns)
            elif not is_log:
                _restore_file(source / entry.path, roots[part] / path, entry)
    if LANDING in parts:
        for folder, _, _ in os.walk(source / LANDING):  # those without a file, too
            (places.landing / Path(folder).relative_to(source / LANDING)).mkdir(parents=True, exist_ok=True)


def _restore_file(source: Path, target: Path, entry: Entry) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(entry.mode)
    os.utime(target, ns=(entry.modified_ns, entry.modified_ns))
