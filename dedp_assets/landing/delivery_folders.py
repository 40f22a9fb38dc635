"""Lists and scans the folders of deliveries, in a time that hardly depends on how many there are.

A folder is listed again when its time of change differs. What hangs, can't be read or leads elsewhere costs the others
nothing (`landing.directories.Scanner`).
"""

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dedp_assets.errors import ErrorNote
from dedp_assets.landing.deliveries import MARKER, Key, directory_of, in_turn, is_day
from dedp_assets.landing.directories import NOTHING, Directory, Scan, Scanner


class Folders(NamedTuple):
    """The folders of deliveries.

    Attributes:
        days: The days of each known supplier, in order.
        changed: Suppliers whose folders were listed anew.
        useless: Names that are no known supplier, or no day of a partition, each with why.
        problems: Folders that can't be listed, in words.
    """

    days: dict[str, list[str]]
    changed: set[str]
    useless: list[str]
    problems: list[str]


class _Listing(NamedTuple):
    """What a folder held, and when it had changed. A second listing sees a change within the same instant.

    `days` and `folders` are folders, named after a day or not; `others` is what else lies there.
    """

    modified_ns: int
    is_second: bool
    days: list[str]
    folders: list[str]
    others: list[str]


_NOTHING_LISTED = _Listing(0, True, [], [], [])


class DeliveryFolders:
    """The folders below a root. Keep one for the life of the process: it remembers what they held.

    Args:
        patience_seconds: A folder that does not answer for so long is left behind, in s.
    """

    def __init__(self, patience_seconds: float = 2.0) -> None:
        self._listings: dict[Path, _Listing] = {}
        self._lister = Scanner(self._list, patience_seconds)
        self._scanner = Scanner(patience_seconds=patience_seconds)
        self._glances: dict[Key, int] = {}
        self._glanced_at: dict[str, list[str]] = {}
        self._turn = 0
        self._glancer = Scanner(self._glance, patience_seconds)

    def list(self, root: Path, suppliers: Sequence[str], first_day: str, last_day: str) -> Folders:
        """List the folders.

        Args:
            root: Where the suppliers have a folder each.
            suppliers: Those that are known. Others are useless names.
            first_day: The first day of which a delivery can be taken.
            last_day: The last one.
        """
        before = dict(self._listings)
        scans = self._lister.scan_all([Directory(client="", path=root)])
        there = self._listings.get(root, _NOTHING_LISTED)
        names = [*there.days, *there.folders]
        useless = [f"{root / name}: not the folder of a known supplier" for name in names if name not in suppliers]
        useless += [f"{root / name}: not a folder that lies there itself" for name in there.others]
        suppliers = [supplier for supplier in suppliers if supplier in names]
        scans |= self._lister.scan_all(Directory(client=supplier, path=root / supplier) for supplier in suppliers)
        days: dict[str, list[str]] = {}
        changed = set()
        for supplier in suppliers:
            listing = self._listings.get(root / supplier)
            if listing is None:
                continue
            # The days are in order. There may be thousands of them, so they are not looked at one by one.
            begin, end = bisect_left(listing.days, first_day), bisect_right(listing.days, last_day)
            days[supplier] = listing.days[begin:end]
            if before.get(root / supplier) is not listing:
                changed.add(supplier)
            expected = f"expected folders named after a day from {first_day} to {last_day}"
            names = [*listing.others, *listing.folders, *listing.days[:begin], *listing.days[end:]]
            useless += [f"{root / supplier / name}: {expected}" for name in names]
        return Folders(days, changed, useless, [scan.failure for scan in scans.values() if scan.failure])

    def scan(self, root: Path, keys: Iterable[Key]) -> dict[Key, Scan]:
        """Scan the folders of some deliveries. One that was not reached in time is missing."""
        named = {"/".join(key): key for key in keys}
        found = self._scanner.scan_all(directory_of(root, key) for key in named.values())
        return {named[client]: scan for client, scan in found.items()}

    def glance(self, root: Path, listed: Mapping[str, Sequence[str]], at_most: int) -> Sequence[Key]:
        """Find the folders that have changed since the glance before, by two of their times. All have their turn.

        A file that comes, goes or is renamed changes the time of its folder, and a marker that is written again has
        another time. A file that is written in place, without a marker after it, changes neither: a scan finds it.

        Args:
            root: Where the suppliers have a folder each.
            listed: The days for which each supplier has a folder.
            at_most: How many folders to look at.
        """
        keys, self._turn = in_turn(listed, self._turn, at_most)
        self._glanced_at = {}
        for supplier, day in keys:
            self._glanced_at.setdefault(supplier, []).append(day)
        scans = self._glancer.scan_all(Directory(client=name, path=root / name) for name in self._glanced_at)
        found = {(supplier, day): times for supplier, scan in scans.items() for day, times in scan.markers.items()}
        changed = [key for key, times in found.items() if self._glances.get(key, times) != times]
        self._glances |= found
        return changed

    def _glance(self, supplier: Directory) -> Scan:
        return Scan(markers={day: _times_of(f"{supplier.place}/{day}") for day in self._glanced_at[supplier.client]})

    def _list(self, directory: Directory) -> Scan:
        path = Path(str(directory.path))
        before = self._listings.get(path)
        try:
            modified_ns = os.stat(path).st_mtime_ns
            is_same = before is not None and before.modified_ns == modified_ns
            if before is None or not is_same or not before.is_second:
                folders, others = _folders_in(path)
                days = [name for name in folders if is_day(name)]
                folders = [name for name in folders if not is_day(name)]
                self._listings[path] = _Listing(modified_ns, is_same, days, folders, others)
        except FileNotFoundError:
            self._listings.pop(path, None)  # a supplier who has never delivered
        except OSError as error:
            self._listings.pop(path, None)  # to be listed as new when it answers again
            return Scan(failure=ErrorNote(f"{path} can't be read: {error.strerror}"))
        return NOTHING


def _times_of(folder: str) -> int:
    """A number that changes when a file of a folder comes, goes or is renamed, and when its marker is written again."""
    modified_ns = marked_ns = 0
    try:
        modified_ns = os.stat(folder).st_mtime_ns
        marked_ns = os.stat(f"{folder}/{MARKER}").st_ctime_ns
    except OSError:
        pass  # there is no marker. That a folder can't be read is said by whoever scans it
    return hash((modified_ns, marked_ns))


def _folders_in(path: Path) -> tuple[list[str], list[str]]:
    """The names of the folders that lie in a folder, and of what else does. Hidden names are nobody's delivery."""
    folders: list[str] = []
    others: list[str] = []
    root = path.resolve()
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                is_ours = entry.is_dir() and (not entry.is_symlink() or Path(entry.path).resolve().is_relative_to(root))
            except OSError:
                is_ours = False
            (folders if is_ours else others).append(entry.name)
    return sorted(folders), sorted(others)
