"""Where devices files arrive: which file belongs to which day, and what lies there now."""

import os
import stat
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from dedp_assets import settings
from dedp_assets.file_versions import FileVersion

FILE_NAME = "dataset.csv"

# Stands for the file that belongs to no day.
UNDATED = ""


def folder() -> Path:
    """The landing folder of the devices."""
    return settings.landing() / "devices"


def undated_file() -> Path:
    """The one file that every day takes for which nothing else has come."""
    return folder() / FILE_NAME


def dated_file(partition_key: str) -> Path:
    """The file that came for one day."""
    return folder() / partition_key / FILE_NAME


def name_of(day: str) -> str:
    """A landed file as messages call it, by its path in the landing folder. `day`: UNDATED for the undated file."""
    return f"{day}/{FILE_NAME}" if day else FILE_NAME


def is_dated(source: str, partition_key: str) -> bool:
    """Whether a landed file is the one of this day, wherever the landing folder was when it was copied."""
    return Path(source).parent.name == partition_key


@dataclass(frozen=True)
class Listing:
    """What lies in the landing folder: a version for each day (UNDATED for none), and what is wrong there.

    `unusable`: days that have a file of their own which can't be taken; it keeps them from the undated one.
    """

    files: dict[str, FileVersion] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unusable: set[str] = field(default_factory=set)


def scan_landing(folder: Path) -> Listing:
    """The files in the landing folder. What can't be read is a problem of its own and hides nothing else."""
    listing = Listing()
    try:
        entries = sorted(os.listdir(folder))
    except FileNotFoundError:
        listing.problems.append(f"{folder} does not exist yet: nothing has arrived")
        return listing
    except OSError as error:
        _add(listing, UNDATED, folder / FILE_NAME)
        listing.problems.append(f"{folder} can't be read: {error.strerror}")
        return listing
    if not _add(listing, UNDATED, folder / FILE_NAME):
        listing.problems.extend(_misnamed(folder, entries, ""))
    for name in entries:
        path = folder / name / FILE_NAME
        if _is_day(name):
            if not _add(listing, name, path):
                listing.problems.extend(_misnamed(folder / name, _names(folder / name), f"{name}/"))
        elif os.path.exists(path):
            shown = _shown(name)
            listing.problems.append(f"{shown}/{FILE_NAME} is ignored: {shown!r} is not a day like 2024-01-31")
    return listing


def _add(listing: Listing, day: str, path: Path) -> bool:
    """Note a file if it is there, usable or not; returns whether it is."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        if not path.is_symlink():
            return False
        problem = "is a link to nothing"
    except OSError as error:
        problem = f"can't be read: {error.strerror}"
    else:
        if not stat.S_ISREG(status.st_mode):
            problem = "is not a file"
        elif os.access(path, os.R_OK):
            listing.files[day] = FileVersion.of(status)
            return True
        elif os.path.lexists(path):
            problem = "can't be read: Permission denied"
        else:
            return False  # it vanished just now
    listing.problems.append(f"{name_of(day)} {problem}")
    listing.unusable.add(day)
    return True


def _misnamed(folder: Path, names: list[str], shown: str) -> list[str]:
    """Files that somebody may have meant to be dataset.csv, in a folder that has none."""
    if shown:
        wrong = [name for name in names if not name.startswith((".", "_"))]
    else:
        wrong = [name for name in names if name.lower().startswith(FILE_NAME) or name.lower().endswith(".csv")]
    return [
        f"{_shown(shown + name)} is ignored: expected the name {FILE_NAME}, and plain CSV in it"
        for name in wrong
        if os.path.isfile(folder / name)
    ]


def _shown(name: str) -> str:
    """A name that can be printed and stored: what is not UTF-8 stands as \\xNN."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _is_day(name: str) -> bool:
    try:
        return date.fromisoformat(name).isoformat() == name
    except ValueError:
        return False
