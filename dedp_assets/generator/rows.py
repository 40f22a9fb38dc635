"""The stream of device rows: exact composition, constant memory, reproducible with a seed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import repeat
from random import Random
from typing import Final, TypeAlias

from .catalogues import COMBINATIONS

FIELDS: Final = ("type", "full_name", "version")

#: (type, full_name, version); a missing field is None.
Device: TypeAlias = tuple[str | None, str | None, str | None]
#: A device, or the one cell of a line no reader can parse.
Row: TypeAlias = Device | tuple[str]

#: Draws a float in [0, 1).
Random01: TypeAlias = Callable[[], float]

UNPROCESSABLE: Final[tuple[str]] = ("{........",)

_CLEAN, _DUPLICATE, _MISSING, _UNPROCESSABLE, _LATE = range(5)

# How many recent clean rows a duplicate is copied from, and how many late rows wait at a time:
# together they bound the memory of a stream of any length.
_RECENT_ROWS: Final = 256
_WAITING_ROWS: Final = 128

# Which fields (type, full_name, version) stay, by the number of fields that go missing (1, 2, 3).
_KEPT_FIELDS: Final = (
    ((False, True, True), (True, False, True), (True, True, False)),
    ((True, False, False), (False, True, False), (False, False, True)),
    ((False, False, False),),
)

# A made-up version is v and 17 digits. The number starts at random and only grows, by a few hundred at
# most, so it never repeats and keeps 17 digits for 10^14 rows.
_FIRST_NUMBER: Final = 10_000_000_000_000_000
_FIRST_NUMBER_RANGE: Final = 40_000_000_000_000_000


@dataclass(frozen=True)
class RowCounts:
    """How many rows of each kind one generation loop writes; together they are all its rows."""

    clean: int
    duplicates: int
    missing_fields: int
    unprocessable_rows: int
    late_rows: int

    @property
    def total(self) -> int:
        return self.clean + self.duplicates + self.missing_fields + self.unprocessable_rows + self.late_rows


def row_counts(
    rows: int,
    *,
    duplicates: float = 0,
    missing_fields: float = 0,
    unprocessable_rows: float = 0,
    late_rows: float = 0,
) -> RowCounts:
    """Turn percentages (0 to 100, together at most 100) of ``rows`` rows into exact counts.

    Each count is rounded down and the remainder is clean. Raises ValueError for a number out of range, and
    for duplicates without a single clean row to copy.
    """
    if rows < 0:
        raise ValueError(f"rows must be 0 or more, found {rows}")
    percentages = (duplicates, missing_fields, unprocessable_rows, late_rows)
    if not all(0 <= percentage <= 100 for percentage in percentages):
        raise ValueError(f"every percentage must be between 0 and 100, found {percentages}")
    shares = [Fraction(str(percentage)) for percentage in percentages]
    if sum(shares) > 100:
        raise ValueError(f"the percentages add up to {_plain(sum(shares))}, which is more than 100")
    # Fractions, because 0.29 * 100 is 28.999999999999996 in floating point.
    counts = [int(share * rows / 100) for share in shares]
    clean = rows - sum(counts)
    if counts[0] and not clean:
        raise ValueError(
            "the percentages leave no clean row to copy the duplicates from; make them add up to less than 100"
        )
    return RowCounts(clean, *counts)


def devices(
    rows: int,
    *,
    seed: int | str | None,
    duplicates: float = 0,
    missing_fields: float = 0,
    unprocessable_rows: float = 0,
    late_rows: float = 0,
) -> Iterator[Row]:
    """Stream exactly ``rows`` rows, with the given percentages (0 to 100) of each kind of problem.

    A row is ``(type, full_name, version)``; a missing field is None, and an unprocessable row is the tuple
    ``("{........",)``. Clean and late rows are distinct from each other, duplicates copy an earlier clean
    row. The same seed gives the same rows; None gives different rows every time. Raises ValueError like
    ``row_counts``, at once rather than at the first row.
    """
    counts = row_counts(
        rows,
        duplicates=duplicates,
        missing_fields=missing_fields,
        unprocessable_rows=unprocessable_rows,
        late_rows=late_rows,
    )
    return stream(counts, Random() if seed is None else Random(f"devices:{seed}"))


def stream(counts: RowCounts, randomness: Random) -> Iterator[Row]:
    """Stream the rows of one generation loop, the kinds spread at random over the whole of it."""
    # Only random() is used, never randrange() or choice(): it alone is promised to give the same numbers
    # for a seed in every Python version.
    random = randomness.random
    next_device = _distinct_devices(random).__next__
    copied = counts.duplicates > 0
    recent: list[Device] = []
    position = 0
    waiting: list[Device] = []
    for kind in _kinds(counts, random):
        if kind == _CLEAN:
            device = next_device()
            if copied:
                if len(recent) < _RECENT_ROWS:
                    recent.append(device)
                else:
                    recent[position] = device
                    position = (position + 1) % _RECENT_ROWS
            yield device
        elif kind == _DUPLICATE:
            yield recent[int(random() * len(recent))]
        elif kind == _MISSING:
            yield _without_some_fields(next_device(), random)
        elif kind == _UNPROCESSABLE:
            yield UNPROCESSABLE
        elif len(waiting) < _WAITING_ROWS:
            waiting.append(next_device())
        else:
            slot = int(random() * _WAITING_ROWS)
            released, waiting[slot] = waiting[slot], next_device()
            yield released
    yield from waiting


def _kinds(counts: RowCounts, random: Random01) -> Iterator[int]:
    """The kind of every row, drawn without replacement so that the totals come out exactly."""
    if counts.clean == counts.total:
        return repeat(_CLEAN, counts.clean)
    return _drawn_kinds(counts, random)


def _drawn_kinds(counts: RowCounts, random: Random01) -> Iterator[int]:
    clean, late = counts.clean, counts.late_rows
    left = [0, counts.duplicates, counts.missing_fields, counts.unprocessable_rows, 0]
    nothing_to_copy = counts.duplicates > 0
    for total in range(counts.total, 0, -1):
        drawn = int(random() * total)
        if late and total - late == 1:
            # The last row on time is kept for the end: a late row needs a row it comes too late for.
            kind = _LATE
        elif drawn < clean:
            kind = _CLEAN
        else:
            kind = _kind_drawn(drawn - clean, left)
        if nothing_to_copy:
            if kind == _DUPLICATE:
                kind = _CLEAN
            nothing_to_copy = kind != _CLEAN
        if kind == _CLEAN:
            clean -= 1
        elif kind == _LATE:
            late -= 1
        else:
            left[kind] -= 1
        yield kind


def _kind_drawn(drawn: int, left: list[int]) -> int:
    for kind in (_DUPLICATE, _MISSING, _UNPROCESSABLE):
        if drawn < left[kind]:
            return kind
        drawn -= left[kind]
    return _LATE


def _distinct_devices(random: Random01) -> Iterator[tuple[str, str, str]]:
    """Devices without end, no two alike: catalogue entries once each, then with a made-up version."""
    choices = len(COMBINATIONS)
    used = bytearray(choices)
    number = _FIRST_NUMBER + int(random() * _FIRST_NUMBER_RANGE)
    while True:
        chosen = int(random() * choices)
        device = COMBINATIONS[chosen]
        if used[chosen]:
            number += 1 + chosen
            yield device[0], device[1], f"v{number}"
        else:
            used[chosen] = 1
            yield device


def _without_some_fields(device: tuple[str, str, str], random: Random01) -> Device:
    choices = _KEPT_FIELDS[int(random() * len(_KEPT_FIELDS))]
    kept = choices[int(random() * len(choices))]
    return (
        device[0] if kept[0] else None,
        device[1] if kept[1] else None,
        device[2] if kept[2] else None,
    )


def _plain(number: Fraction | int) -> str:
    return f"{float(number):g}"
