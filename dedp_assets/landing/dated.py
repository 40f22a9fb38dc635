"""A folder in which a file for each day arrives, and one for every day for which nothing else has come.

landing/devices/2024-01-03/dataset.csv    dated: belongs to its day
                dataset.csv               undated: for every day without a file of its own
"""

import os
import stat
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from dedp_assets.landing.versions import FileVersion

# Stands for the file that belongs to no day.
UNDATED = ""

# How names end under which a file is written before it is renamed: nobody has meant them to be taken.
_DRAFTS = (".part", ".partial", ".filepart", ".tmp", ".temp", "~")


@dataclass(frozen=True)
class DatedFolder:
    """Where files of one name arrive, by day."""

    path: Path
    file_name: str

    def name_of(self, day: str) -> str:
        """A landed file as messages call it, by its path in the folder. `day`: UNDATED for the undated file."""
        return f"{day}/{self.file_name}" if day else self.file_name

    def file_of(self, day: str) -> Path:
        """The landed file of a day, whether or not it is there. `day`: UNDATED for the undated file."""
        return self.path / day / self.file_name


def is_dated(source: str, day: str) -> bool:
    """Whether a landed file is the one of this day, wherever the folder was when it was copied."""
    return Path(source).parent.name == day


@dataclass(frozen=True)
class Listing:
    """What lies in the landing folder: a version for each day (UNDATED for none), and what is wrong there.

    `unusable`: days that have a file of their own which can't be taken; it keeps them from the undated one.
    """

    files: dict[str, FileVersion] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unusable: set[str] = field(default_factory=set)


def scan_landing(landing: DatedFolder) -> Listing:
    """The files in the landing folder. What can't be read is a problem of its own and hides nothing else."""
    listing, folder = Listing(), landing.path
    try:
        entries = sorted(os.listdir(folder))
    except FileNotFoundError:
        listing.problems.append(f"{folder} does not exist yet: nothing has arrived")
        return listing
    except OSError as error:
        _add(listing, UNDATED, landing)
        listing.problems.append(f"{folder} can't be read: {error.strerror}")
        return listing
    if not _add(listing, UNDATED, landing):
        listing.problems.extend(_misnamed(landing, UNDATED, entries))
    for name in entries:
        if _is_day(name):
            if not _add(listing, name, landing):
                listing.problems.extend(_misnamed(landing, name, _names(folder / name)))
        elif os.path.exists(landing.file_of(name)):
            shown = _shown(name)
            listing.problems.append(f"{shown}/{landing.file_name} is ignored: {shown!r} is not a day like 2024-01-31")
    return listing


def _add(listing: Listing, day: str, landing: DatedFolder) -> bool:
    """Note a file if it is there, usable or not; returns whether it is."""
    path = landing.file_of(day)
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
    listing.problems.append(f"{landing.name_of(day)} {problem}")
    listing.unusable.add(day)
    return True


def _misnamed(landing: DatedFolder, day: str, names: list[str]) -> list[str]:
    """Files that somebody may have meant, in the folder of a day, or in the folder itself, that lacks the right one."""
    expected = landing.file_name
    if day:
        wrong = [name for name in names if not name.startswith((".", "_"))]
    else:
        wrong = [name for name in names if name.lower().startswith(expected) or name.lower().endswith(".csv")]
    return [
        f"{_shown(os.path.join(day, name))} is ignored: expected the name {expected}, and plain CSV in it"
        for name in wrong
        if not name.endswith(_DRAFTS) and os.path.isfile(landing.path / day / name)
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
