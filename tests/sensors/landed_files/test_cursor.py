"""The cursor survives its way through Dagster; one that is not ours counts as none."""

import pytest

from dedp_assets.landing.dated import UNDATED
from sensors.landed_files.cursor import Cursor
from tests.sensors.landed_files.made import plan_for, plan_of_comparison, version


def test_the_cursor_survives_its_way_through_json() -> None:
    files = {UNDATED: version(1), "2024-01-02": version(2), "2024-01-09": version(3)}
    cursor = plan_of_comparison(
        plan_for(files).cursor, minutes=1, files=files | {"2024-01-03": version(4)}, settle=5
    ).cursor
    assert all(cursor.__dict__.values()), cursor
    assert Cursor.from_json(cursor.to_json()) == cursor


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "garbage",
        "null",
        "[]",
        "7",
        '"text"',
        "{}",
        '{"cursor": 3}',
        '{"cursor": 2}',
        '{"cursor": 2, "seen": {}, "asked": {"2024-01-01": [1]}, "undated": null, "waiting": {}}',
        '{"cursor": 2, "seen": {"2024-01-01": 5}, "asked": {}, "undated": null, "waiting": {}}',
        '{"cursor": 2, "seen": {}, "asked": {}, "undated": null, "waiting": {}, "other": 1}',
        # Of an earlier version: what was taken in, the copies say.
        '{"unsettled": {}, "taken": {"2024-01-01": [1, 2, 3]}, "undated": [1, 2, 3], "undated_days": ["2024-01-02"]}',
    ],
)
def test_a_cursor_that_is_not_ours_counts_as_none(text: str | None) -> None:
    assert Cursor.from_json(text) == Cursor()
