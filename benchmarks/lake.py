"""Writes devices for the benchmarks of the late-data integrator: many rows of few devices, quickly."""

from collections.abc import Iterator
from datetime import date

import pyarrow as pa
from deltalake import write_deltalake

from dedp_assets.late_data_integrator import contract

DEVICES = 1000
_CHUNK = 1_000_000


def append(day: str, rows: int) -> None:
    """Append `rows` rows to a day of lake/devices, with a commit and a file for each million rows."""
    for chunk in _chunks(rows):
        write_deltalake(
            contract.uri(contract.DEVICES),
            _table([day], chunk),
            mode="append",
            partition_by=[contract.PARTITION_COLUMN],
        )


def append_each(days: list[str], rows: int) -> None:
    """Append `rows` rows to each of the days, in one commit."""
    write_deltalake(
        contract.uri(contract.DEVICES), _table(days, rows), mode="append", partition_by=[contract.PARTITION_COLUMN]
    )


def _chunks(rows: int) -> Iterator[int]:
    while rows > 0:
        yield min(rows, _CHUNK)
        rows -= _CHUNK


def _table(days: list[str], rows: int) -> pa.Table:
    names = pa.array([f"device {number % DEVICES}" for number in range(rows)])
    each = pa.table({"type": pa.repeat("phone", rows), "full_name": names, "version": pa.repeat("1", rows)})
    parts = [
        each.append_column(contract.PARTITION_COLUMN, pa.repeat(pa.scalar(date.fromisoformat(day), pa.date32()), rows))
        for day in days
    ]
    return pa.concat_tables(parts)
