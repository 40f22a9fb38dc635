"""Reads the actions in a commit's file: what each one says about a data file or about the table.

Format: https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any
from urllib.parse import unquote

from dedp_assets.delta.commits import DataFile, FileAction, prints_of

# The mark of a commit is made from this many bytes of its beginning. Times and file names, which differ, are there.
MARK_BYTES = 64 * 1024

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
# Finds the paths in a commit without parsing it.
_PATHS = re.compile(rb'"path"\s*:\s*"((?:[^"\\]|\\.)*)"')

# The kind of an action, such as "add", and its content.
Action = tuple[str, dict[str, Any]]


class PartitionUnknown(Exception):
    """A commit removes a file, and does not say from which partition. The message is the file's path.

    Only `DeltaLog` sees this exception. It raises LogIncomplete instead.
    """


def actions_of(content: bytes) -> list[Action]:
    """The actions of a commit, from the content of its file: JSON objects, usually one in each line.

    Raises:
        ValueError: the content is not JSON objects.
    """
    try:
        objects = [json.loads(line) for line in content.split(b"\n") if line.strip()]
    except ValueError:
        objects = list(_objects(content.decode("utf-8")))
    return [(kind, action) for found in objects for kind, action in found.items() if action is not None]


def _objects(text: str) -> Iterator[Any]:
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        if text[at].isspace():
            at += 1
        else:
            found, at = decoder.raw_decode(text, at)
            yield found


def file_action(kind: str, action: dict[str, Any], root: str) -> FileAction:
    """What an action does to a data file.

    Args:
        kind: "add" or "remove".
        action: the content of the action.
        root: the folder of the table.

    Raises:
        KeyError, TypeError, AttributeError: the action does not follow the protocol.
    """
    rows = None
    with suppress(ValueError, TypeError, KeyError):
        rows = int(json.loads(action["stats"])["numRecords"])
    path, vector = action["path"], _vector(action)
    place = place_of(path, root) or unquote(path)
    prints = prints_of(place, vector, action.get("size"), action.get("modificationTime"))
    if kind == "remove":
        prints = prints._replace(stamp=0)
    return FileAction(kind == "add", DataFile(path, vector), prints, action.get("dataChange") is not False, rows)


def partition_of(kind: str, action: dict[str, Any], column: str) -> object:
    """The value of the partition column for the file of an action, as the log writes it; None for null.

    Args:
        kind: "add" or "remove".
        action: the content of the action.
        column: the name of the partition column.

    Raises:
        PartitionUnknown: the action removes a file and does not name its partition.
    """
    values = action.get("partitionValues") or {}
    if column in values:
        return values[column]
    if kind == "add":
        return None
    # A writer may leave the values out when it removes a file. Then the name of the file's folder may have them.
    for name in unquote(action["path"]).split("/")[:-1]:
        if name.startswith(f"{column}="):
            value = unquote(name[len(column) + 1 :])
            return None if value == _HIVE_NULL else value
    raise PartitionUnknown(action["path"])


def place_of(path: str, root: str) -> str | None:
    """The decoded path of a file inside the table's folder, from its path in the log; None if the file is outside.

    Args:
        path: the path as the log writes it: relative and percent-encoded, or absolute.
        root: the folder of the table.
    """
    place = unquote(path)
    return _inside(place, root) if _is_absolute(path) else place


def _inside(path: str, root: str) -> str | None:
    """An absolute path, made relative to `root`; None if it is not below `root`."""
    path = re.sub(r"^file:/+", "/", path)
    for begin in {root, root.replace("s3://", "s3a://", 1), root.replace("s3a://", "s3://", 1)}:
        if path.startswith(f"{begin}/"):
            return path[len(begin) + 1 :]
    return None


def _is_absolute(path: str) -> bool:
    return re.match(r"/|[A-Za-z][A-Za-z0-9+.-]*:", path) is not None


def _vector(action: dict[str, Any]) -> str | None:
    """The unique id of a file's deletion vector, as the protocol defines it; None without a vector."""
    vector = action.get("deletionVector")
    if not vector:
        return None
    offset = vector.get("offset")
    return f"{vector['storageType']}{vector['pathOrInlineDv']}" + ("" if offset is None else f"@{offset}")


def committed_at(info: dict[str, Any]) -> datetime | None:
    """When a commit was made (UTC), according to its commitInfo; None if that does not say so."""
    for key in ("timestamp", "inCommitTimestamp"):
        with suppress(KeyError, TypeError, ValueError, OverflowError, OSError):
            return datetime.fromtimestamp(info[key] / 1000, timezone.utc)
    return None


def changes_the_table(kind: str, action: dict[str, Any]) -> bool:
    """Whether an action may make a table unreadable for us. Then the table has to be checked again."""
    odd = kind == "add" and (action.get("deletionVector") or _is_absolute(action["path"]))
    return bool(odd) or kind in ("protocol", "metaData")


def mark_of(size: int, beginning: bytes) -> str:
    """A hash that tells a commit's file from any other.

    Args:
        size: the size of the file, in bytes.
        beginning: its first MARK_BYTES bytes.
    """
    return hashlib.blake2b(b"%d:%b" % (size, beginning), digest_size=12).hexdigest()


def added_again(contents: Iterable[bytes | None]) -> dict[str, dict[str, Any]]:
    """The files that one of these commits both removed and added, and that no later commit removed.

    Args:
        contents: the contents of the commits' files, in order; None for a missing file.

    Returns:
        For each file, by its path in the log, the action that added it.
    """
    found: dict[str, dict[str, Any]] = {}
    for content in contents:
        # Only a commit that names a path twice can do that. Most commits don't, and need not be parsed.
        paths = _PATHS.findall(content or b"")
        if not found and len(paths) == len(set(paths)):
            continue
        with suppress(ValueError):  # the commit may be damaged if a checkpoint after it replaces it
            files = [(kind, action) for kind, action in actions_of(content or b"") if kind in ("add", "remove")]
            removed = {(action["path"], _vector(action)) for kind, action in files if kind == "remove"}
            added = {(action["path"], _vector(action)): action for kind, action in files if kind == "add"}
            found = {path: action for path, action in found.items() if (path, _vector(action)) not in removed}
            found |= {file[0]: action for file, action in added.items() if file in removed}
    return found
