"""The types of the functions that the fixtures beside this file give."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol


class WriteDevices(Protocol):
    """Writes a devices file: rows below the header, or the bytes of the whole file. Returns its path."""

    def __call__(self, content: bytes | Iterable[str], name: str = "dataset.csv") -> Path: ...


class AssertExact(Protocol):
    """Asserts that the totals equal a recount and, with `accounts`, that every line of every load is accounted for."""

    def __call__(self, accounts: bool = True) -> None: ...


class WaitUntil(Protocol):
    """Waits until a query gives a true value, and returns that value. Fails after so many seconds."""

    def __call__(self, query: str, *parameters: object, seconds: float = 60) -> int: ...


# Line number, reason, detail, line and raw line.
QuarantinedLine = tuple[int, str, str, str, bytes]

# Both take a load id.
RowsOf = Callable[[str], list[str]]
QuarantineOf = Callable[[str], list[QuarantinedLine]]
