"""The cursor survives its way through Dagster, and an old one stays readable."""

import json
from dataclasses import replace

import pytest

from sensors.delta_commits.cursor import Cursor
from tests.sensors.delta_commits.made_commits import commit, observed, plan_for
from tests.sensors.delta_commits.world import FIRST


def test_the_cursor_survives_its_way_through_json() -> None:
    cursor = plan_for(observed(commit(1, FIRST, "", "2024-02-02"))).cursor
    assert cursor.fingerprints
    assert cursor.waiting
    assert Cursor.from_json(cursor.to_json()) == cursor
    assert Cursor.from_json(replace(cursor, mark=None).to_json()) == replace(cursor, mark=None)


# A cursor that was stored before cursors had a format.
OLD_CURSOR = (
    '{"table_id":"0b8c6e9e-7a3d-4a7e-9d6e-0a5a0c9f2f11","version":7,"mark":"5f0c",'
    '"fingerprints":{"2024-01-01":11,"":5},"waiting":{"2024-02-02":7}}'
)


def test_a_cursor_of_the_first_format_is_understood_and_its_sums_are_not_relied_on() -> None:
    cursor = Cursor.from_json(OLD_CURSOR)
    assert cursor == Cursor(
        "0b8c6e9e-7a3d-4a7e-9d6e-0a5a0c9f2f11",
        7,
        "5f0c",
        {FIRST: 11, "": 5},
        {"2024-02-02": 7},
        touched=frozenset({FIRST, ""}),
    )
    assert Cursor.from_json(cursor.to_json()) == cursor
    assert json.loads(cursor.to_json())["format"] == 2


def test_a_cursor_of_a_format_to_come_counts_as_none() -> None:
    assert Cursor.from_json(cursor_text := Cursor("t", 1, "m").to_json())
    assert Cursor.from_json(cursor_text.replace('"format":2', '"format":3')) is None


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "garbage",
        "null",
        "[]",
        "7",
        "{}",
        '{"table_id":"t","version":1,"mark":"m","fingerprints":{}}',
        '{"table_id":"t","version":"x","mark":"m","fingerprints":{},"waiting":{}}',
        '{"table_id":"t","version":1,"mark":"m","fingerprints":[],"waiting":{}}',
        '{"table_id":"t","version":1,"mark":"m","fingerprints":{},"waiting":{"2024-01-01":null}}',
        '{"table_id":"t","version":1,"mark":"m","fingerprints":{},"waiting":{},"format":2}',
    ],
)
def test_a_cursor_that_is_not_ours_counts_as_none(text: str | None) -> None:
    assert Cursor.from_json(text) is None
