"""Commits to a Delta table are what delta-rs makes of them, with types that follow from the values."""

import sys
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from dagster_scenario import Scenario, ScenarioError
from dagster_scenario.world.delta import Table
from deltalake import DeltaTable

DAY = date(2024, 1, 5)


@pytest.fixture
def orders(scenario: Scenario, tmp_path: Path) -> Table:
    return scenario.delta(tmp_path / "orders")


def told(scenario: Scenario) -> list[str]:
    return [event.text for event in scenario.timeline.events if event.kind == "world"]


def types(table: Table) -> dict[str, str]:
    return {field.name: field.type.type for field in DeltaTable(table.path).schema().fields}


def test_values_come_back_as_they_were_with_delta_types_that_follow_from_them(orders: Table) -> None:
    berlin = timezone(timedelta(hours=1))
    row = {
        "id": 2**62,
        "price": 1.5,
        "note": "naïve",
        "paid": True,
        "raw": b"\x00\xff",
        "day": DAY,
        "at": datetime(2024, 1, 5, 8, 30, 15, 123456, tzinfo=berlin),
        "local": datetime(1969, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001
    }
    nothing = dict.fromkeys(row)
    orders.append([nothing, row])
    assert orders.rows("id IS NOT NULL") == [row]
    assert orders.rows("id IS NULL") == [nothing]
    assert types(orders) == {
        "id": "long",
        "price": "double",
        "note": "string",
        "paid": "boolean",
        "raw": "binary",
        "day": "date",
        "at": "timestamp",
        "local": "timestamp_ntz",
    }


def test_versions_count_commits_from_a_table_that_is_not_there(orders: Table) -> None:
    assert orders.version is None
    assert not orders.path.exists()
    orders.append([{"id": 1}])
    assert orders.version == 0
    orders.append([{"id": 2}])
    assert orders.version == 1
    assert orders.rows() == [{"id": 1}, {"id": 2}]


def test_what_others_commit_is_seen(orders: Table) -> None:
    orders.append([{"id": 1}])
    DeltaTable(orders.path).delete()
    assert (orders.version, orders.rows()) == (1, [])


def test_rows_are_sorted_however_they_were_committed(orders: Table) -> None:
    orders.append([{"id": 3, "note": "c"}, {"id": 1, "note": "b"}])
    orders.append([{"id": 1, "note": "a"}])
    assert [tuple(row.values()) for row in orders.rows()] == [(1, "a"), (1, "b"), (3, "c")]
    assert orders.rows("note > 'a' AND id < 3") == [{"id": 1, "note": "b"}]


def test_columns_and_values_that_are_left_out_are_null(orders: Table) -> None:
    orders.append([{"id": 1, "day": DAY}, {"id": 2}])
    orders.append([{"id": 3}])
    orders.append([{"id": 4, "day": None}])
    assert [row["day"] for row in orders.rows()] == [DAY, None, None, None]
    assert types(orders) == {"id": "long", "day": "date"}


def test_integers_fit_columns_of_other_numbers_and_are_never_cut(scenario: Scenario, tmp_path: Path) -> None:
    from arro3.core import Array, DataType
    from arro3.core import Table as Arrow
    from deltalake import write_deltalake

    path = tmp_path / "prices"
    write_deltalake(
        path, Arrow.from_pydict({"id": Array([1], DataType.int32()), "price": Array([0.5], DataType.float64())})
    )
    prices = scenario.delta(path)
    prices.append([{"id": 2, "price": 3}, {"id": 3, "price": 4.5}])
    assert [row["price"] for row in prices.rows()] == [0.5, 3.0, 4.5]
    with pytest.raises(Exception, match="Can't cast value 2147483648 to type Int32"):
        prices.append([{"id": 2**31, "price": 1}])
    assert prices.version == 1


def test_a_partitioned_table_has_its_partitions_and_overwrite_replaces_one(scenario: Scenario, tmp_path: Path) -> None:
    events = scenario.delta(tmp_path / "events", partition_by=("event_time",))
    other = date(2024, 1, 6)
    events.append([{"event_time": DAY, "id": 1}, {"event_time": other, "id": 2}])
    assert DeltaTable(events.path).metadata().partition_columns == ["event_time"]
    assert (events.path / "event_time=2024-01-05").is_dir()
    events.overwrite([{"event_time": DAY, "id": 7}], where="event_time = '2024-01-05'")
    assert [(row["event_time"], row["id"]) for row in events.rows()] == [(DAY, 7), (other, 2)]
    with pytest.raises(Exception, match="1 rows failed validation"):
        events.overwrite([{"event_time": other, "id": 8}], where="event_time = '2024-01-05'")
    events.overwrite([], where="event_time = '2024-01-05'")
    assert [row["id"] for row in events.rows()] == [2]
    events.overwrite([{"event_time": DAY, "id": 9}])
    assert [row["id"] for row in events.rows()] == [9]
    assert events.version == 3
    events.overwrite([])
    assert events.rows() == []


def test_rows_are_deleted_by_a_condition_and_nothing_deleted_is_no_commit(orders: Table) -> None:
    orders.append([{"id": number} for number in (1, 2, 3)])
    orders.delete("id = 2")
    assert [row["id"] for row in orders.rows()] == [1, 3]
    orders.delete("id = 99")
    assert orders.version == 1
    orders.delete()
    assert (orders.version, orders.rows()) == (2, [])


def test_compacting_makes_one_file_of_many_with_the_same_rows(orders: Table) -> None:
    for number in range(4):
        orders.append([{"id": number}])
    assert len(DeltaTable(orders.path).file_uris()) == 4
    before = orders.rows()
    orders.compact()
    assert len(DeltaTable(orders.path).file_uris()) == 1
    assert orders.rows() == before
    assert orders.version == 4
    orders.compact()
    assert orders.version == 4


def test_every_commit_has_the_simulated_time_beside_the_real_one(scenario: Scenario, orders: Table) -> None:
    orders.append([{"id": 1}])
    scenario.clock.move(scenario.clock.parse("2024-01-05 08:00"))
    orders.append([{"id": 2}])
    orders.overwrite([{"id": 3}, {"id": 4}])
    orders.append([{"id": 5}])
    orders.compact()
    orders.delete("id = 5")
    orders.overwrite([])
    history = sorted(DeltaTable(orders.path).history(), key=lambda commit: commit["version"])
    assert [commit["simulatedTime"][:16] for commit in history] == ["2024-01-01T00:00"] + ["2024-01-05T08:00"] * 6
    assert all(commit["timestamp"] > datetime(2025, 1, 1, tzinfo=timezone.utc).timestamp() * 1000 for commit in history)


def test_the_timeline_has_counts_partitions_and_versions_and_not_where_the_table_is(
    scenario: Scenario, tmp_path: Path
) -> None:
    events = scenario.delta(tmp_path / "events", partition_by="event_time")
    events.append([{"event_time": DAY, "id": 1}])
    events.append([{"event_time": DAY + timedelta(days=days), "id": 1} for days in range(5)])
    events.overwrite([{"event_time": DAY, "id": 7}], where="event_time = '2024-01-05'")
    events.delete("id = 7")
    events.compact()
    for _ in range(2):
        events.append([{"event_time": DAY, "id": 8}])
    events.compact()
    plain = scenario.delta(tmp_path / "plain")
    plain.append([{"id": 1}])
    plain.overwrite([{"id": 1}, {"id": 2}])
    assert told(scenario) == [
        "events: 1 row appended in event_time=2024-01-05, version 0",
        "events: 5 rows appended in event_time=2024-01-05, event_time=2024-01-06, event_time=2024-01-07 "
        "and 2 more partitions, version 1",
        "events: 1 row in event_time=2024-01-05 in place of those where event_time = '2024-01-05', version 2",
        "events: 1 row deleted where id = 7, version 3",
        "events: nothing to compact, version 3",
        "events: 1 row appended in event_time=2024-01-05, version 4",
        "events: 1 row appended in event_time=2024-01-05, version 5",
        "events: 2 files compacted into 1, version 6",
        "plain: 1 row appended, version 0",
        "plain: 2 rows in place of all, version 1",
    ]


def test_wrong_use_says_what_to_do_and_commits_nothing(scenario: Scenario, orders: Table) -> None:
    for use in (orders.rows, orders.delete, orders.compact, lambda: orders.overwrite([])):
        with pytest.raises(ScenarioError, match=r"there is no Delta table at .*orders; append\(\[\.\.\.\]\) makes it"):
            use()
    utc = datetime(2024, 1, 5, tzinfo=timezone.utc)
    orders.append([{"id": 1, "at": utc}])
    refused: list[tuple[list[dict[str, Any]], str]] = [
        ([], r"which rows\?"),
        ([{"id": 2, "total": 1}], "orders has no column 'total'; its columns are id, at"),
        ([{"id": "2"}], "column 'id' of orders takes int, not str"),
        ([{"id": 2.5}], "takes int, not float"),
        ([{"id": True}], "takes int, not bool"),
        ([{"at": utc.replace(tzinfo=None)}], "takes datetime with a time zone, not datetime without a time zone"),
        ([{"at": DAY}], "takes datetime with a time zone, not date"),
        ([{"id": 1}, {"id": "2"}], "values of several types: int, str"),
        ([{"id": Decimal(1)}], "has a Decimal; expected str, int, float, bool, bytes, date, datetime or None"),
        ([{"id": 2**63}], "column 'id' has a number that is too large"),
    ]
    for rows, message in refused:
        with pytest.raises(ScenarioError, match=message):
            orders.append(rows)
    empty = scenario.delta(orders.path.with_name("empty"), partition_by=["day"])
    with pytest.raises(ScenarioError, match="column 'day' has no value, so nothing says its type"):
        empty.append([{"id": 1, "day": None}])
    with pytest.raises(ScenarioError, match="empty is partitioned by 'day', which no row has"):
        empty.append([{"id": 1}])
    with pytest.raises(ScenarioError, match="orders is partitioned by nothing, not by id; leave partition_by out"):
        scenario.delta(orders.path, partition_by=["id"]).append([{"id": 2}])
    assert (orders.version, empty.version) == (0, None)
    assert len(told(scenario)) == 1


def test_without_deltalake_it_says_what_to_install(
    scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "dagster_scenario.world.delta")
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(ScenarioError, match=r"pip install 'dagster-scenario\[delta\]'"):
        scenario.delta(tmp_path / "orders")
