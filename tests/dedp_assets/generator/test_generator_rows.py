"""The stream of rows has exact totals, different devices, values that fit their columns, and constant memory."""

import csv
import io
import json
import tracemalloc
from collections import deque
from itertools import islice
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedp_assets.generator import devices, row_counts
from dedp_assets.generator.catalogues import CATALOGUES, COMBINATIONS
from dedp_assets.generator.lines import csv_lines, json_lines
from dedp_assets.generator.rows import FIELDS, UNPROCESSABLE

# Percentages by the kind of row.
Composition: TypeAlias = dict[str, int]

VARCHAR_LIMITS = (15, 50, 40)


@st.composite
def compositions(draw: st.DrawFn) -> Composition:
    """Percentages that leave some clean rows."""
    left = 99
    percentages = {}
    for kind in ("duplicates", "missing_fields", "unprocessable_rows", "late_rows"):
        percentages[kind] = draw(st.integers(0, left))
        left -= percentages[kind]
    return percentages


few = settings(max_examples=30, deadline=None)


@few
@given(rows=st.integers(0, 1500), composition=compositions(), seed=st.integers())
def test_the_totals_of_every_kind_are_exact(rows: int, composition: Composition, seed: int) -> None:
    written = list(devices(rows, seed=seed, **composition))
    whole = [row for row in written if row != UNPROCESSABLE and None not in row]

    assert len(written) == rows
    assert written.count(UNPROCESSABLE) == rows * composition["unprocessable_rows"] // 100
    assert sum(None in row for row in written) == rows * composition["missing_fields"] // 100
    assert len(whole) - len(set(whole)) == rows * composition["duplicates"] // 100


@few
@given(rows=st.integers(1, 1500), composition=compositions(), seed=st.integers())
def test_a_duplicate_is_a_copy_of_an_earlier_row(rows: int, composition: Composition, seed: int) -> None:
    seen = set()
    copies = 0
    for row in devices(rows, seed=seed, **composition):
        if len(row) == 3 and None not in row:
            copies += row in seen
            seen.add(row)
    assert copies == row_counts(rows, **composition).duplicates


@few
@given(rows=st.integers(0, 3000), seed=st.integers())
def test_clean_rows_are_distinct(rows: int, seed: int) -> None:
    written = list(devices(rows, seed=seed))
    assert len(set(written)) == rows


@few
@given(composition=compositions(), seed=st.integers() | st.text())
def test_the_same_seed_gives_the_same_rows(composition: Composition, seed: int | str) -> None:
    assert list(devices(500, seed=seed, **composition)) == list(devices(500, seed=seed, **composition))


def test_other_seeds_and_no_seed_give_other_rows() -> None:
    streams = [list(devices(100, seed=seed)) for seed in (1, -1, 2, None, None)]
    assert len({tuple(stream) for stream in streams}) == len(streams)


def test_a_seed_gives_the_rows_it_gave_before() -> None:
    assert list(devices(3, seed=7)) == [
        ("lenovo", 'Lenovo Slim Pro 7 (14" AMD) Laptop', "Ubuntu 22"),
        ("iphone", "APPLE iPhone 12 Pro Max (Graphite, 128 GB)", "iOS 15"),
        ("mac", "MacBook Pro (16-inch, 2021)", "macOS Monterey"),
    ]


@few
@given(composition=compositions(), seed=st.integers())
def test_every_value_fits_its_column(composition: Composition, seed: int) -> None:
    for row in devices(1000, seed=seed, **composition):
        if row != UNPROCESSABLE:
            for value, limit in zip(row, VARCHAR_LIMITS, strict=True):
                assert value is None or 0 < len(value) <= limit


def test_every_catalogue_entry_fits_its_column() -> None:
    for combination in COMBINATIONS:
        assert all(len(value) <= limit for value, limit in zip(combination, VARCHAR_LIMITS, strict=True))
    assert set(CATALOGUES) == {"galaxy", "htc", "iphone", "lenovo", "lg", "mac"}


def test_a_used_combination_comes_back_with_a_made_up_version_of_17_digits() -> None:
    rows = list(devices(2000, seed=1))
    made_up = [str(row[-1]) for row in rows if row not in COMBINATIONS]
    assert made_up
    assert all(version[0] == "v" and version[1:].isdigit() and len(version) == 18 for version in made_up)


def test_one_to_three_fields_go_missing() -> None:
    rows = devices(300, seed=1, missing_fields=100)
    assert {sum(value is None for value in row) for row in rows} == {1, 2, 3}


def test_late_rows_are_written_after_rows_that_were_made_later() -> None:
    # The number in an invented version grows with each row. It shows the order in which the rows were made.
    rows = 20_000
    newest = late = 0
    for row in devices(rows, seed=1, late_rows=10):
        version = str(row[-1])
        if version.startswith("v"):
            late += int(version[1:]) < newest
            newest = max(newest, int(version[1:]))
    made_from_catalogue = len(COMBINATIONS)
    assert 2000 - made_from_catalogue <= late <= 2000


def test_problems_are_spread_over_the_whole_stream() -> None:
    rows = list(devices(10_000, seed=1, unprocessable_rows=10))
    per_quarter = [rows[start : start + 2500].count(UNPROCESSABLE) for start in range(0, 10_000, 2500)]
    assert sum(per_quarter) == 1000
    assert all(200 < count < 300 for count in per_quarter)


def test_counts_are_exact_for_fractions_of_a_percent() -> None:
    assert row_counts(10_000, duplicates=0.29).duplicates == 29
    assert row_counts(1000, missing_fields=33.3, late_rows=66.7).clean == 0


@pytest.mark.parametrize(
    ("percentages", "problem"),
    [
        ({"duplicates": 101}, "between 0 and 100"),
        ({"late_rows": -1}, "between 0 and 100"),
        ({"duplicates": 60, "missing_fields": 50}, "add up to 110"),
        ({"duplicates": 50, "missing_fields": 50}, "no clean row to copy"),
    ],
)
def test_percentages_that_cannot_be_are_refused_before_the_first_row(percentages: Composition, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        devices(100, seed=1, **percentages)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_rows() -> None:
    composition = {"duplicates": 20, "missing_fields": 5, "unprocessable_rows": 5, "late_rows": 10}

    def peak_bytes(rows: int) -> int:
        tracemalloc.start()
        deque(csv_lines(devices(rows, seed=1, **composition)), maxlen=0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(1000)
    # Other threads of this process allocate too. So we allow some memory, but far less than one byte for each row.
    assert peak_bytes(200_000) - peak_bytes(20_000) < 0.2 * 180_000


@few
@given(composition=compositions(), seed=st.integers())
def test_a_csv_line_is_what_the_csv_module_writes(composition: Composition, seed: int) -> None:
    rows = list(devices(600, seed=seed, **composition))
    expected = io.StringIO()
    csv.writer(expected, delimiter=";", lineterminator="\n").writerows(rows)
    assert "".join(csv_lines(rows)) == expected.getvalue()


@few
@given(composition=compositions(), seed=st.integers())
def test_a_json_line_reads_back_as_its_row(composition: Composition, seed: int) -> None:
    rows = list(devices(600, seed=seed, **composition))
    lines = list(json_lines(rows))
    assert len(lines) == len(rows)
    for row, line in zip(rows, lines, strict=True):
        if row == UNPROCESSABLE:
            assert line == "{........\n"
        else:
            assert json.loads(line) == dict(zip(FIELDS, row, strict=True))


def test_a_long_stream_starts_at_once() -> None:
    assert len(list(islice(devices(10**12, seed=1, duplicates=10, late_rows=5), 5))) == 5
