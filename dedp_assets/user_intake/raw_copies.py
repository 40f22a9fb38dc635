"""The copy of a day's fetch: one file, replaced as a whole. Its first line says when it was fetched, and its version.

The other lines are the users in the order in which they came, each with its page.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from dedp_assets.errors import PermanentError
from dedp_assets.whole_files import write_whole


class UnusableCopy(PermanentError):
    """A day has no raw copy, or a damaged one. The message names the file and says what to do."""


class Header(NamedTuple):
    """What the first line says.

    Attributes:
        fetched_at: when the fetch began, with a time zone.
        pages: how many pages it had.
        users: how many users follow.
        sha256: of the other lines.
    """

    fetched_at: datetime
    pages: int
    users: int
    sha256: str


def write_copy(path: Path, fetched_at: datetime, pages: Sequence[Sequence[Any]]) -> Header:
    """Replace a day's copy by the pages of a fetch.

    Raises:
        OSError: it can't be written; the earlier copy stays.
    """
    lines = [json.dumps({"page": page, "user": user}) for page, users in enumerate(pages, 1) for user in users]
    content = "".join(f"{line}\n" for line in lines).encode()
    header = Header(fetched_at, len(pages), len(lines), hashlib.sha256(content).hexdigest())
    first = json.dumps({**header._asdict(), "fetched_at": fetched_at.isoformat()})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, first.encode() + b"\n" + content)
    return header


def read_copy(path: Path) -> tuple[Header, list[Any]]:
    """Read a day's copy: its header, and the users in their order.

    Raises:
        UnusableCopy: there is none, or it is not as it was written.
    """
    try:
        first, _, content = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        raise UnusableCopy(f"{path} does not exist; materialize users/raw for this partition first") from None
    header = _header(first)
    if header is None or hashlib.sha256(content).hexdigest() != header.sha256:
        raise UnusableCopy(f"{path} is not as it was written; materialize users/raw for this partition again")
    return header, [json.loads(line)["user"] for line in content.splitlines()]


def headers_below(folder: Path) -> Iterator[tuple[str, Header]]:
    """The name of each folder in `folder` that has a copy, with the header of the copy."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    for name in names:
        try:
            with open(folder / name / "users.jsonl", "rb") as stream:
                header = _header(stream.readline())
        except (FileNotFoundError, NotADirectoryError):
            continue
        if header is not None:
            yield name, header


def _header(line: bytes) -> Header | None:
    try:
        found = json.loads(line)
        return Header(
            datetime.fromisoformat(found["fetched_at"]), int(found["pages"]), int(found["users"]), found["sha256"]
        )
    except (ValueError, TypeError, KeyError):
        return None
