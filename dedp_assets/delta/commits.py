"""What a commit did, and which files a table has: plain values, with fingerprints that tell sets of files apart.

`actions` reads a commit's file. `log` takes a snapshot.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

# Fingerprints and stamps are added modulo this number, so that they fit into a signed integer of eight bytes.
_FINGERPRINTS = 2**63


@dataclass(frozen=True)
class PartitionChange:
    """What one commit did to one partition.

    Attributes:
        rows_added, rows_removed: numbers of rows, or None if the writer did not record them.
    """

    files_added: int
    files_removed: int
    rows_added: int | None
    rows_removed: int | None


class DataFile(NamedTuple):
    """The identity of a data file. The same Parquet file with another deletion vector has other rows.

    Attributes:
        path: the path as the log writes it.
        vector: the unique id of the file's deletion vector, or None.
    """

    path: str
    vector: str | None = None


class Prints(NamedTuple):
    """Two hashes of a data file, of 63 bits each.

    Attributes:
        fingerprint: tells the file from other files.
        stamp: also changes if the file is rewritten under the same name. It is 0 for a file that a commit removes.
    """

    fingerprint: int
    stamp: int


class FileAction(NamedTuple):
    """A file that a commit adds or removes.

    Attributes:
        added: True if the commit adds the file, False if it removes it.
        changes_data: False if the rows only move to other files, as in a compaction.
        rows: the number of rows in the file, or None if the writer did not record it.
    """

    added: bool
    file: DataFile
    prints: Prints
    changes_data: bool
    rows: int | None


@dataclass(frozen=True)
class Commit:
    """One version of the table, and what it changed. Partitions are named by their value in the log; "" is null.

    Attributes:
        timestamp: when it was committed (UTC), by the writer's clock.
        operation: the writer's name for what it did, such as "WRITE".
        changes: what it did to the rows of each partition. Files that were only compacted do not count.
        fingerprint_changes: what to add to the fingerprint of each partition, modulo 2**63. Compacted files count.
        table_id: the identity of the table, if this commit states it.
        check_table: whether `DeltaLog.snapshot` has to check that we can still read the table.
        mark: tells this commit's file from any other; see `DeltaLog.mark`.
        actions: what it did to the files of each partition.
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
        """The files of a partition after this commit.

        The order of a commit's actions means nothing. A file that it both removes and adds is there afterwards.

        Args:
            partition: the value of the partition.
            before: the files of the partition before this commit.
        """
        added, removed = _added_and_removed(self.actions.get(partition, ()))
        return {file: prints for file, prints in before.items() if file not in removed} | added

    def files_before(self, partition: str, after: Mapping[DataFile, Prints]) -> dict[DataFile, Prints]:
        """The files that a partition probably had before this commit.

        This is a guess, because a commit does not say whether a file that it adds was there already. We take it that
        the file was there if the commit changes no data and removes no other file: then only statistics are new.

        Args:
            partition: the value of the partition.
            after: the files of the partition after this commit.
        """
        actions = self.actions.get(partition, ())
        added, removed = _added_and_removed(actions)
        kept = {} if removed.keys() - added.keys() else {action.file for action in actions if not action.changes_data}
        return {file: prints for file, prints in after.items() if file not in added or file in kept} | removed


@dataclass(frozen=True)
class Snapshot:
    """A version of the table: all its files.

    Attributes:
        table_id: the identity of the table.
        files: the absolute URIs of the data files, by partition value; "" is null.
        root: the folder of the table. All files are below it.
        logged: the same files as the log writes them.
        schema: the type of each column, in Delta's words ("string", "decimal(10,2)", "struct").
    """

    table_id: str
    version: int
    files: dict[str, tuple[str, ...]]
    root: str
    logged: dict[str, dict[DataFile, Prints]] = field(default_factory=dict, repr=False)
    schema: dict[str, str] = field(default_factory=dict)

    def fingerprint(self, partition: str) -> int:
        """A hash of 63 bits of a partition's set of files, in any order; 0 without files."""
        return fingerprint_of(self.logged_files(partition))

    def fingerprints(self) -> dict[str, int]:
        """The fingerprint of every partition that has files."""
        return {partition: self.fingerprint(partition) for partition in self.files}

    def stamp(self, partition: str) -> int:
        """A hash of 63 bits that also changes if a file is rewritten under the same name (by size and time)."""
        return stamp_of(self.logged_files(partition))

    def logged_files(self, partition: str) -> dict[DataFile, Prints]:
        """A partition's files as the log writes them."""
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
    """The fingerprints of all partitions that have files after these commits.

    This may differ from a snapshot, which is right: a file that is added again, or removed twice, counts twice here.

    Args:
        fingerprints: the fingerprints before these commits.
        commits: the commits, in any order.
    """
    found = dict(fingerprints)
    for commit in commits:
        for partition, change in commit.fingerprint_changes.items():
            found[partition] = (found.get(partition, 0) + change) % _FINGERPRINTS
    return {partition: fingerprint for partition, fingerprint in found.items() if fingerprint}


def change_of(files: Iterable[FileAction]) -> PartitionChange | None:
    """The sum of these actions on one partition; None without actions."""
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

    A file that is both removed and added stays. If the commit removes no other file, a file that it adds without
    changing data was there before: only its statistics are new, and in a snapshot it counts once.
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
        # If two actions do the same to one file, the first counts, as in deltalake.
        (added if action.added else removed).setdefault(action.file, action.prints)
    return added, removed


def prints_of(place: str, vector: str | None, size: object = None, modified: object = None) -> Prints:
    """The hashes of a data file. Without a deletion vector, the fingerprint depends on the path alone.

    Args:
        place: the decoded path of the file inside the table's folder.
        vector: the unique id of its deletion vector, or None.
        size: the size that its add action gives, in bytes.
        modified: the time of change that its add action gives, in milliseconds since the epoch.
    """
    name = place if vector is None else f"{place}\0{vector}"
    return Prints(hash_63(name), hash_63(f"{place}\0{vector or ''}\0{size}\0{modified}"))


def hash_63(text: str) -> int:
    """A hash of a text, of 63 bits: it fits into a signed integer of eight bytes."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
