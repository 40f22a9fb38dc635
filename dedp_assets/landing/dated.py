"""A landing folder with a file for each day, and one file for all days that have no file of their own.

landing/devices/2024-01-03/dataset.csv    the dated file of its day
                dataset.csv               the undated file, for every day without a dated file
"""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from dedp_assets.days import day_of
from dedp_assets.errors import ErrorNote
from dedp_assets.landing.links import LEADS_OUT, leads_out
from dedp_assets.landing.versions import DRAFT_ENDINGS, FileVersion
from dedp_assets.wording import shown_name

# Takes the place of a day where the undated file is meant.
UNDATED = ""


@dataclass(frozen=True)
class DatedFolder:
    """A landing folder. Every file in it that is taken in has the same name.

    Attributes:
        path: The folder.
        file_name: The name, such as dataset.csv.
    """

    path: Path
    file_name: str

    def name_of(self, day: str) -> str:
        """The path of a landed file inside the folder, for messages. `day` is UNDATED for the undated file."""
        return f"{day}/{self.file_name}" if day else self.file_name

    def file_of(self, day: str) -> Path:
        """The path of a landed file, which may not exist. `day` is UNDATED for the undated file."""
        return self.path / day / self.file_name


def is_dated(source: str, day: str) -> bool:
    """Whether the path of a landed file is that of this day's own file. The landing folder may have moved since."""
    return Path(source).parent.name == day


@dataclass(frozen=True)
class Listing:
    """The content of the landing folder.

    Attributes:
        files: The version of each file, by its day; UNDATED for the undated file.
        problems: What is wrong in the folder, a sentence each. An `ErrorNote` for what keeps a day from being loaded.
        unusable: Days whose own file can't be read. They must not take the undated file.
        folders: The names in it that are days, with a file in the folder or without one.
    """

    files: dict[str, FileVersion] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unusable: set[str] = field(default_factory=set)
    folders: list[str] = field(default_factory=list)


def scan_landing(landing: DatedFolder) -> Listing:
    """List the files in the landing folder. A file that can't be read is a problem, and does not hide other files."""
    listing, folder = Listing(), landing.path
    try:
        entries = sorted(os.listdir(folder))
    except FileNotFoundError:
        listing.problems.append(f"{folder} does not exist yet: nothing has arrived")
        return listing
    except OSError as error:
        _add(listing, UNDATED, landing)
        listing.problems.append(ErrorNote(f"{folder} can't be read: {error.strerror}"))
        return listing
    if not _add(listing, UNDATED, landing):
        listing.problems.extend(_misnamed(landing, UNDATED, entries))
    for name in entries:
        if day_of(name):
            listing.folders.append(name)
            if not _add(listing, name, landing):
                listing.problems.extend(_misnamed(landing, name, _names(folder / name)))
        elif os.path.exists(landing.file_of(name)):
            shown = shown_name(name)
            listing.problems.append(f"{shown}/{landing.file_name} is ignored: '{shown}' is not a day like 2024-01-31")
    return listing


def _add(listing: Listing, day: str, landing: DatedFolder) -> bool:
    """Add a file to the listing, usable or not; returns whether it exists."""
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
        elif leads_out(path, landing.path, os.path.realpath(path)):
            problem = LEADS_OUT
        elif os.access(path, os.R_OK):
            listing.files[day] = FileVersion.of(status)
            return True
        elif os.path.lexists(path):
            problem = "can't be read: Permission denied"
        else:
            return False  # it has just been deleted
    listing.problems.append(ErrorNote(f"{landing.name_of(day)} {problem}"))
    listing.unusable.add(day)
    return True


def _misnamed(landing: DatedFolder, day: str, names: list[str]) -> list[str]:
    """Problems for files with a wrong name, in a folder that lacks a file of the right name."""
    expected = landing.file_name
    if day:
        wrong = [name for name in names if not name.startswith((".", "_"))]
    else:
        wrong = [name for name in names if name.lower().startswith(expected) or name.lower().endswith(".csv")]
    return [
        f"{shown_name(os.path.join(day, name))} is ignored: expected the name {expected}, and plain CSV in it"
        for name in wrong
        if not name.endswith(DRAFT_ENDINGS) and os.path.isfile(landing.path / day / name)
    ]


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
