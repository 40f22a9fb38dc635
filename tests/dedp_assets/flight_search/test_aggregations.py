"""The aggregations are exact, also for late events, and are written once for each version of a day. Real Spark."""

from datetime import date

import pytest
from deltalake import DeltaTable, write_deltalake

from dedp_assets.flight_search import aggregations, contract
from dedp_assets.flight_search.aggregations import PER_HOUR, PER_ROUTE, Aggregation, Refreshed, refresh
from dedp_assets.resources.spark_limits import LimitedSpark, SparkLimits
from dedp_assets.resources_from_settings import LakeFromSettings, SparkFromSettings
from tests.dedp_assets.flight_search.landed import DAY, OTHER, event, land, rows, take_in, version

# Quick tests of the same: test_assets.py.
pytestmark = [pytest.mark.usefixtures("spark_remote"), pytest.mark.slow]


def bring_up_to_date(aggregation: Aggregation, *days: str) -> list[Refreshed]:
    return refresh(
        aggregation, days, LakeFromSettings(), lambda: LimitedSpark(SparkFromSettings().session, SparkLimits(cores=1))
    )


def test_each_route_and_each_hour_of_a_day_has_its_searches_and_passengers_and_late_events_are_added() -> None:
    land(
        "a.jsonl",
        event("s1", hour=0, passengers=1),
        event("s2", hour=23, passengers=9),
        event("s3", hour=23, origin="MUC"),
        event("s4", OTHER),
    )
    take_in()
    assert bring_up_to_date(PER_ROUTE, DAY) == [Refreshed(DAY, 1, True, 3)]
    bring_up_to_date(PER_HOUR, DAY)
    day = date(2024, 1, 2)
    columns = [field.name for field in PER_ROUTE.schema]
    assert rows(contract.PER_ROUTE, *columns) == [(day, "FRA", "JFK", 2, 10), (day, "MUC", "JFK", 1, 2)]
    assert rows(contract.PER_HOUR, *(field.name for field in PER_HOUR.schema)) == [(day, 0, 1, 1), (day, 23, 2, 11)]

    land("late.jsonl", event("s5", hour=12, passengers=4))
    take_in()
    assert bring_up_to_date(PER_ROUTE, DAY) == [Refreshed(DAY, 2, True, 4)]
    assert rows(contract.PER_ROUTE, *columns) == [(day, "FRA", "JFK", 3, 14), (day, "MUC", "JFK", 1, 2)]


def test_a_day_that_is_up_to_date_is_not_written_again_and_needs_no_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    land("a.jsonl", event("s1"), event("s2", OTHER))
    take_in()
    bring_up_to_date(PER_HOUR, DAY, OTHER)
    before = version(contract.PER_HOUR)
    monkeypatch.setenv("DEDP_SPARK_REMOTE", "sc://127.0.0.1:1")
    assert bring_up_to_date(PER_HOUR, OTHER, DAY) == [Refreshed(OTHER, 1, False), Refreshed(DAY, 1, False)]
    assert version(contract.PER_HOUR) == before


def test_a_day_without_searches_has_no_rows_and_is_up_to_date() -> None:
    assert bring_up_to_date(PER_HOUR, DAY) == [Refreshed(DAY, 0, True, 0)]
    assert bring_up_to_date(PER_HOUR, DAY) == [Refreshed(DAY, 0, False)]
    assert rows(contract.PER_HOUR, "hour") == []


def test_rows_of_older_searches_never_replace_rows_of_newer_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Late events are taken in and aggregated by another run, while this one has aggregated and not yet written."""
    land("a.jsonl", event("s1"))
    take_in()
    aggregate = aggregations._aggregate
    others: list[object] = []

    def while_another_runs(*arguments: object) -> object:
        found = aggregate(*arguments)  # type: ignore[arg-type]
        if not others:
            others.append(found)
            land("late.jsonl", event("s2"))
            take_in()
            assert bring_up_to_date(PER_ROUTE, DAY) == [Refreshed(DAY, 2, True, 2)]
        return found

    monkeypatch.setattr(aggregations, "_aggregate", while_another_runs)
    assert bring_up_to_date(PER_ROUTE, DAY) == [Refreshed(DAY, 2, False)]
    assert rows(contract.PER_ROUTE, "searches") == [(2,)]


def test_searches_that_somebody_has_deleted_are_counted_no_more() -> None:
    land("a.jsonl", event("s1"), event("s2"))
    take_in()
    bring_up_to_date(PER_ROUTE, DAY)
    DeltaTable(LakeFromSettings().table_uri(contract.SEARCHES)).delete("search_id = 's1'")
    assert bring_up_to_date(PER_ROUTE, DAY)[0].searches == 1
    take_in()  # its file is taken in: it does not come back
    assert bring_up_to_date(PER_ROUTE, DAY)[0].written is False


def test_compaction_of_the_searches_changes_no_count() -> None:
    for number in range(3):
        land(f"{number}.jsonl", event(f"s{number}"))
        take_in()
    bring_up_to_date(PER_ROUTE, DAY)
    DeltaTable(LakeFromSettings().table_uri(contract.SEARCHES)).optimize.compact()
    bring_up_to_date(PER_ROUTE, DAY)
    assert rows(contract.PER_ROUTE, "searches") == [(3,)]
    land("3.jsonl", event("s2"), event("s3"))
    assert take_in().days == {DAY: 1}


def test_what_is_recorded_survives_a_checkpoint() -> None:
    land("a.jsonl", event("s1"))
    take_in()
    table = DeltaTable(LakeFromSettings().table_uri(contract.SEARCHES))
    table.create_checkpoint()
    write_deltalake(table, table.to_pyarrow_table().slice(0, 0), mode="append")
    assert take_in().files == []
    land("b.jsonl", event("s1"))
    assert take_in().days == {}
