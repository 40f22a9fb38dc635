"""Dataset files: each write is complete or leaves no trace, and cleaning deletes only datasets."""

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO

from .errors import OutputError
from .lines import LINE_FORMATS, LineFormat
from .rows import Row

#: Called with the number of rows written since the last call.
Progress = Callable[[int], object]

_BATCH_ROWS = 10_000
_BUFFER_BYTES = 1 << 20

_WRITTEN_NAMES = frozenset(line_format.file_name for line_format in LINE_FORMATS.values())
_PART_NAME = re.compile(r"\.dataset\.(csv|json)\.[0-9a-f]+\.part")


def write_file(path: Path, rows: Iterator[Row], line_format: LineFormat, progress: Progress) -> None:
    """Write a dataset file in one step. A reader sees the whole old file or the whole new one."""
    with _whole_file(path) as file:
        file.write(line_format.header)
        _write_rows(file, rows, line_format, progress)


def extend_file(path: Path, rows: Iterator[Row], line_format: LineFormat, progress: Progress) -> None:
    """Add rows to a dataset file in one step, or create it. A reader sees none of the new rows, or all of them.

    This copies the file first. Each call takes time and free disk space in proportion to the size of the file.

    Raises:
        OutputError: the generator did not write this file, or a part of its last line is missing.
    """
    if not path.exists():
        return write_file(path, rows, line_format, progress)
    _check_extendable(path, line_format)
    with _whole_file(path, copy_of=path) as file:
        _write_rows(file, rows, line_format, progress)


def clean_folders(folders: Iterable[Path]) -> None:
    """Delete the datasets of earlier runs from these folders, and nothing else. Skip folders that do not exist."""
    for folder in folders:
        if folder.is_dir():
            for path in folder.iterdir():
                if _is_generated(path.name) and path.is_file():
                    path.unlink()


@contextmanager
def _whole_file(path: Path, copy_of: Path | None = None) -> Iterator[IO[str]]:
    """Open a file under a hidden temporary name. It gets its real name when the block ends without an error."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        if copy_of is not None:
            shutil.copy(copy_of, part)
        with part.open("a", encoding="utf-8", newline="", buffering=_BUFFER_BYTES) as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _write_rows(file: IO[str], rows: Iterator[Row], line_format: LineFormat, progress: Progress) -> None:
    while lines := list(line_format.lines(islice(rows, _BATCH_ROWS))):
        file.write("".join(lines))
        progress(len(lines))


def _check_extendable(path: Path, line_format: LineFormat) -> None:
    header = line_format.header.encode()
    with path.open("rb") as file:
        found = file.read(len(header))
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        last = file.read(1)
    if found != header or (last and last != b"\n"):
        raise OutputError(
            f"{path}: this file was not written by the generator, so rows cannot be added to it; "
            "move it away, or choose another output_path"
        )


def _is_generated(name: str) -> bool:
    return name in _WRITTEN_NAMES or _PART_NAME.fullmatch(name) is not None
