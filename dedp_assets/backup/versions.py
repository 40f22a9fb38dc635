"""Which versions have made a backup, and whether this installation may restore it."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from dedp_assets.backup.errors import BackupError

_PACKAGES = {"dedp": "dedp-assets", "dagster": "dagster"}


def installed_versions() -> dict[str, str]:
    """The versions of this installation. One that is not known is left out: a checkout need not be installed."""
    found = {}
    for name, package in _PACKAGES.items():
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(package)
    return found


def known_migrations() -> set[str]:
    """The file names of all migrations of this installation."""
    return {path.name for path in Path(str(resources.files("dedp_assets"))).rglob("migrations/*.sql")}


def check_is_not_newer(
    versions: Mapping[str, Any],
    migrations: Mapping[str, Iterable[str]],
    installed: Mapping[str, str],
    known: set[str],
) -> None:
    """See that this installation understands what a backup holds.

    Args:
        versions: those that have made the backup.
        migrations: the file names of the migrations that its database has, by pipeline.
        installed: the versions of this installation.
        known: the file names of its migrations.

    Raises:
        BackupError: a newer version has made the backup.
    """
    from packaging.version import Version

    for name in _PACKAGES:
        if name in versions and name in installed and Version(versions[name]) > Version(installed[name]):
            raise BackupError(
                f"a newer version has made this backup: {name} {versions[name]}, and {installed[name]} is installed; "
                "update this installation"
            )
    for pipeline, files in migrations.items():
        newer = [file for file in files if file not in known]
        if newer:
            raise BackupError(
                f"a newer version has made this backup: its database has the migration {newer[0]} of {pipeline}, which "
                "this installation does not know; update this installation"
            )
