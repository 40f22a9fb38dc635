"""Devices files to measure with: 50 devices, as in the original of the isolated sequencer."""

import os
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

ROWS = 50
_TYPES = ("galaxy", "htc", "iphone", "lenovo", "lg", "mac")
_LINES = [f"{_TYPES[row % 6]};Device model {row // 5:03};OS {row % 5}.{row}\n" for row in range(ROWS)]


def days(first: date, count: int) -> list[str]:
    """So many days that follow one another, as partition keys."""
    return [(first + timedelta(days=number)).isoformat() for number in range(count)]


def file_of(landing: Path, day: str) -> Path:
    """Where the devices file of a day lands, in the landing folder of the devices. Makes the folder of the day."""
    folder = landing / day
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "dataset.csv"


def write_draft(file: Path) -> Path:
    """Write the devices beside the place where their file is to be, and return where."""
    draft = file.with_name(f".{file.name}.part")
    draft.write_text(text())
    return draft


def rename(drafts: Sequence[Path], files: Sequence[Path]) -> None:
    """Rename drafts into place."""
    for draft, file in zip(drafts, files, strict=True):
        os.replace(draft, file)


def text() -> str:
    """The content of a devices file."""
    return "type;full_name;version\n" + "".join(_LINES)
