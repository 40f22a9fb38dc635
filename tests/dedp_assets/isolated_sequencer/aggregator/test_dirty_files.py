"""Whatever a file is made of, every line of it is in the table or set aside, once, and as it came."""

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import connection as Connection

from dedp_assets.delimited import lines
from dedp_assets.delimited.header import UnusableFile
from dedp_assets.delimited.lines import RejectedLine, classify
from dedp_assets.isolated_sequencer.aggregator.loading import load_file
from dedp_assets.isolated_sequencer.contract import DEVICES_FORMAT
from tests.dedp_assets.delimited.dirty_files import dirty_files, physical_lines, values_of

HEADER = b"type;full_name;version\n"
LOAD = "20240101"


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=dirty_files().filter(lambda body: not any(map(values_of, physical_lines(body).values()))))
def test_a_file_without_one_row_is_refused_with_all_its_lines_counted(
    body: bytes,
    database: Connection,
    devices_csv: Callable[..., Path],
    rows_of: Callable[[str], list[str]],
    quarantine_of: Callable[[str], list[tuple[int, str, str, str, bytes]]],
) -> None:
    load_file(database, LOAD, devices_csv(["earlier;row;1", "bad"]))
    with pytest.raises(UnusableFile) as raised:
        load_file(database, LOAD, devices_csv(HEADER + body))
    rejected = {
        item.line_number: item
        for item in classify(io.BytesIO(HEADER + body), DEVICES_FORMAT)
        if isinstance(item, RejectedLine)
    }
    assert raised.value.lines_read == len(rejected) == len(physical_lines(body))
    assert raised.value.reasons == Counter(item.rejection.reason for item in rejected.values())
    assert [line.line_number for line in raised.value.first_lines] == list(rejected)[:5]
    assert rows_of(LOAD) == ["earlier;row;1"]
    assert [raw for *_, raw in quarantine_of(LOAD)] == [b"bad"]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=dirty_files(), block_bytes=st.sampled_from([32, 47, 1000]))
def test_tables_hold_the_clean_lines_once_and_every_other_line_byte_by_byte(
    body: bytes,
    block_bytes: int,
    database: Connection,
    devices_csv: Callable[..., Path],
    assert_exact: Callable[[], None],
    quarantine_of: Callable[[str], list[tuple[int, str, str, str, bytes]]],
) -> None:
    path = devices_csv(HEADER + b"first;row;1\n" + body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_BYTES", block_bytes)
        report = load_file(database, LOAD, path)

    in_table: set[tuple[str, ...]] = set()
    set_aside: dict[int, tuple[bytes, bool]] = {}
    expected = physical_lines(b"first;row;1\n" + body)
    for number, raw in expected.items():
        values = values_of(raw)
        if values is None or values in in_table:
            set_aside[number] = (raw, values is not None)
        else:
            in_table.add(values)

    with database, database.cursor() as cursor:
        cursor.execute("SELECT type, full_name, version FROM dedp.devices_raw")
        rows = cursor.fetchall()
    assert len(rows) == len(in_table)
    assert set(rows) == in_table
    assert set_aside == {number: (raw, reason == "duplicate") for number, reason, _, _, raw in quarantine_of(LOAD)}
    assert (report.lines_read, report.rows_loaded, report.rows_quarantined) == (
        len(expected),
        len(in_table),
        len(set_aside),
    )
    assert_exact()
