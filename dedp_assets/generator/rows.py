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
#: A device, or the only cell of a line that no reader can parse.
Row: TypeAlias = Device | tuple[str]

#: Draws a float in [0, 1).
Random01: TypeAlias = Callable[[], float]

UNPROCESSABLE: Final[tuple[str]] = ("{........",)

_CLEAN, _DUPLICATE, _MISSING, _UNPROCESSABLE, _LATE = range(5)

# A duplicate copies one of this many recent clean rows, and at most this many late rows wait. This limits the memory of
# a stream of any length.
_RECENT_ROWS: Final = 256
_WAITING_ROWS: Final = 128

# Which fields (type, full_name, version) remain if 1, 2 or 3 of them are missing.
_KEPT_FIELDS: Final = (
    ((False, True, True), (True, False, True), (True, True, False)),
    ((True, False, False), (False, True, False), (False, False, True)),
    ((False, False, False),),
)

# An invented version is v and 17 digits. The number starts at random, and grows by a few hundred at most for each row.
# It never repeats, and it has 17 digits for 10^14 rows.
_FIRST_NUMBER: Final = 10_000_000_000_000_000
_FIRST_NUMBER_RANGE: Final = 40_000_000_000_000_000


@dataclass(frozen=True)
class RowCounts:
    """How many rows of each kind one generation loop writes. Each row has exactly one kind."""

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
    """Turn percentages of ``rows`` rows into exact counts.

    Each count is rounded down, and the remaining rows are clean. The percentages add up to at most 100.

    Raises:
        ValueError: a number is out of range, or there is no clean row for the duplicates to copy.
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

    A row is ``(type, full_name, version)``. A missing field is None. An unprocessable row is the tuple
    ``("{........",)``. No two clean or late rows are equal. A duplicate copies an earlier clean row.

    Args:
        rows: how many rows to stream.
        seed: the same seed gives the same rows; None gives other rows every time.

    Raises:
        ValueError: see ``row_counts``. It is raised by this call, and not at the first row.
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
    """Stream the rows of one generation loop. All kinds are spread at random over the loop."""
    # Use only random(), never randrange() or choice(): for a seed, only random() gives the same numbers in every
    # version of Python.
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
    """Yield the kind of each row. The kinds are drawn without replacement, which makes the totals exact."""
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
            # Keep the last row that is not late for the end: a late row must come after a newer row.
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
    """Yield an endless number of different devices: each of the catalogue once, and then with an invented version."""
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
