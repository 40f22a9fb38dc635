"""What a commit did, and what a table consists of: plain values, and the fingerprints that tell sets of files apart.

How a commit's file is read is in `actions`, how a snapshot is taken in `log`.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

# Fingerprints and stamps are added modulo this: they fit in a signed integer of eight bytes.
_FINGERPRINTS = 2**63


@dataclass(frozen=True)
class PartitionChange:
    """What one commit did to one partition. Rows are None where the writer did not say."""

    files_added: int
    files_removed: int
    rows_added: int | None
    rows_removed: int | None


class DataFile(NamedTuple):
    """What tells a data file from any other: its path as the log has it, and the unique id of its deletion vector.

    The same Parquet file with another vector has other rows.
    """

    path: str
    vector: str | None = None


class Prints(NamedTuple):
    """A data file in 63 bits each: `fingerprint` tells it from others, `stamp` also from itself, rewritten in place."""

    fingerprint: int
    stamp: int


class FileAction(NamedTuple):
    """A file that a commit adds or removes; `changes_data` is False where its rows were there before or stay.

    prints: the stamp of a file that is removed is not known, 0.
    """

    added: bool
    file: DataFile
    prints: Prints
    changes_data: bool
    rows: int | None


@dataclass(frozen=True)
class Commit:
    """One version of the table, by what it changed.

    timestamp: when it was committed (UTC), by the writer's clock.
    changes: by partition value as the log has it, "" for null; without files that were only moved about (compaction).
    fingerprint_changes: what to add to each partition's fingerprint, modulo 2**63; these with all files.
    table_id: the table's identity, where the commit states it.
    check_table: it changed what the table is, so `DeltaLog.snapshot` has to say whether we can still read it.
    mark: tells this commit's file from any other: see `DeltaLog.mark`.
    actions: what it did to each partition's files.
    """

    version: int
    timestamp: datetime
    operation: str
    changes: dict[str, PartitionChange]
    fingerprint_changes: dict[str, int]
    table_id: str | None
    check_table: bool
    mark: str
    actions: dict[str, tuple[FileAction, ...]] = field(default_factory=dict)

    def files_after(self, partition: str, before: Mapping[DataFile, Prints]) -> dict[DataFile, Prints]:
        """The files of a partition after this commit, by those before it.

        The order of its actions means nothing: it removes from what was there before, and adds to what comes after.
        """
        added, removed = _added_and_removed(self.actions.get(partition, ()))
        return {file: prints for file, prints in before.items() if file not in removed} | added

    def files_before(self, partition: str, after: Mapping[DataFile, Prints]) -> dict[DataFile, Prints]:
        """The files that a partition seems to have had before this commit, by those after it.

        Certain it is not: a commit does not say whether a file that it adds was there already. It seems so where it
        changes no data and removes no other file: then only the file's statistics or the like are new.
        """
        actions = self.actions.get(partition, ())
        added, removed = _added_and_removed(actions)
        kept = {} if removed.keys() - added.keys() else {action.file for action in actions if not action.changes_data}
        return {file: prints for file, prints in after.items() if file not in added or file in kept} | removed


@dataclass(frozen=True)
class Snapshot:
    """A version of the table, by its files: absolute URIs below `root`, by partition value, "" for null.

    logged: the same files as the log has them. schema: the type of each column, in Delta's words ("string",
    "decimal(10,2)", "struct").
    """

    table_id: str
    version: int
    files: dict[str, tuple[str, ...]]
    root: str
    logged: dict[str, dict[DataFile, Prints]] = field(default_factory=dict, repr=False)
    schema: dict[str, str] = field(default_factory=dict)

    def fingerprint(self, partition: str) -> int:
        """Tells one set of files from another: 63 bits, in any order of the files; 0 for no files."""
        return fingerprint_of(self.logged_files(partition))

    def fingerprints(self) -> dict[str, int]:
        """The fingerprint of every partition that has files."""
        return {partition: self.fingerprint(partition) for partition in self.files}

    def stamp(self, partition: str) -> int:
        """Tells also the same files from themselves, rewritten in place, by size and time of change: 63 bits."""
        return stamp_of(self.logged_files(partition))

    def logged_files(self, partition: str) -> dict[DataFile, Prints]:
        """A partition's files as the log has them."""
        if partition in self.logged:
            return self.logged[partition]
        paths = (uri[len(self.root) + 1 :] for uri in self.files.get(partition, ()))
        return {DataFile(path): prints_of(path, None) for path in paths}


def fingerprint_of(files: Mapping[DataFile, Prints]) -> int:
    """The fingerprint of a set of files: see `Snapshot.fingerprint`."""
    return sum(prints.fingerprint for prints in files.values()) % _FINGERPRINTS


def stamp_of(files: Mapping[DataFile, Prints]) -> int:
    """The stamp of a set of files: see `Snapshot.stamp`."""
    return sum(prints.stamp for prints in files.values()) % _FINGERPRINTS


def add_fingerprints(fingerprints: Mapping[str, int], commits: Iterable[Commit]) -> dict[str, int]:
    """The fingerprints of every partition that has files, after these commits.

    As far as commits tell: what is added once more, or removed twice, counts twice. A snapshot is right.
    """
    found = dict(fingerprints)
    for commit in commits:
        for partition, change in commit.fingerprint_changes.items():
            found[partition] = (found.get(partition, 0) + change) % _FINGERPRINTS
    return {partition: fingerprint for partition, fingerprint in found.items() if fingerprint}


def change_of(files: Iterable[FileAction]) -> PartitionChange | None:
    """What was done to a partition by these actions; None for no actions."""
    added: list[int | None] = []
    removed: list[int | None] = []
    for file in files:
        (added if file.added else removed).append(file.rows)
    return PartitionChange(len(added), len(removed), _sum(added), _sum(removed)) if added or removed else None


def _sum(rows: list[int | None]) -> int | None:
    known = [number for number in rows if number is not None]
    return sum(known) if len(known) == len(rows) else None


def fingerprint_change(files: Collection[FileAction]) -> int:
    """What to add to a partition's fingerprint for these actions of one commit, modulo 2**63.

    A file that is removed and added at once stays. One that is added without changing data, while none is removed, was
    there before: its statistics or the like are new, and in a snapshot it counts once.
    """
    added, removed = _added_and_removed(files)
    if not removed.keys() - added.keys():
        added = {file.file: file.prints for file in files if file.added and file.changes_data}
    new = {file: prints for file, prints in added.items() if file not in removed}
    gone = {file: prints for file, prints in removed.items() if file not in added}
    return (fingerprint_of(new) - fingerprint_of(gone)) % _FINGERPRINTS


def _added_and_removed(actions: Iterable[FileAction]) -> tuple[dict[DataFile, Prints], dict[DataFile, Prints]]:
    added: dict[DataFile, Prints] = {}
    removed: dict[DataFile, Prints] = {}
    for action in actions:
        # Of two that say the same of one file the first counts, as for deltalake.
        (added if action.added else removed).setdefault(action.file, action.prints)
    return added, removed


def prints_of(place: str, vector: str | None, size: object = None, modified: object = None) -> Prints:
    """The prints of a data file. One without a deletion vector has the fingerprint of its path alone.

    Args:
        place: where it is below the table's folder, decoded.
        vector: the unique id of its deletion vector, or None.
        size, modified: its size and its time of change, as whoever added it gave them.
    """
    name = place if vector is None else f"{place}\0{vector}"
    return Prints(hash_63(name), hash_63(f"{place}\0{vector or ''}\0{size}\0{modified}"))


def hash_63(text: str) -> int:
    """63 bits that tell a text from others: what fits in a signed integer of eight bytes."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
