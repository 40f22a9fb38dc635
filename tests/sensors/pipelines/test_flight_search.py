"""When a run is requested for files of events, and which days are reported and put right after a run has died."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from dedp_assets.delta.commits import DataFile, Prints, Snapshot
from dedp_assets.flight_search import contract, searches
from dedp_assets.flight_search.aggregations import Input
from dedp_assets.flight_search.events import SCHEMA
from dedp_assets.landing.versions import FileVersion
from dedp_assets.resources_from_settings import LakeFromSettings
from jobs.flight_search import defs
from sensors.pipelines.flight_search import (
    Cursor,
    Request,
    days_behind,
    first_day,
    flight_search_reconciled,
    flight_searches_landed,
    plan_request,
)
from tests.dedp_assets.flight_search.landed import DAY, OTHER, event, land
from tests.ticks import SensorTicks

A, B = FileVersion(10, 1, 1, 1), FileVersion(20, 2, 2, 2)


class Ticks:
    """Ticks that follow one another."""

    def __init__(self) -> None:
        self.cursor = Cursor()

    def __call__(self, now: float, waiting: Mapping[str, FileVersion], in_progress: bool = False) -> Request | None:
        request, cursor = plan_request(waiting, self.cursor, now=now, settle_seconds=2, is_in_progress=in_progress)
        self.cursor = Cursor.from_json(cursor.to_json())
        assert self.cursor == cursor
        return request


def test_a_file_is_asked_for_once_when_it_has_settled() -> None:
    tick = Ticks()
    assert tick(0, {"a": A}) is None
    assert tick(1, {"a": B}) is None, "it has changed"
    assert tick(2.5, {"a": B}) is None
    request = tick(3, {"a": B})
    assert request
    assert (request.files, request.cause) == (["a"], "")
    assert tick(4, {"a": B}) is None
    assert tick(5, {}) is None


def test_files_that_come_while_a_run_is_under_way_are_asked_for_after_it() -> None:
    tick = Ticks()
    tick(0, {"a": A})
    assert tick(2, {"a": A})
    tick(3, {"a": A, "b": B}, in_progress=True)
    assert tick(6, {"a": A, "b": B}, in_progress=True) is None
    request = tick(7, {"b": B})
    assert request
    assert request.files == ["b"]


def test_a_file_that_no_run_takes_in_is_asked_for_again_with_growing_pauses() -> None:
    tick = Ticks()
    tick(0, {"a": A})
    requests = {now: request for now in range(1, 1000) if (request := tick(now, {"a": A}))}
    assert [*requests] == [2, 2 + 120, 2 + 120 + 240, 2 + 120 + 240 + 480]
    assert len({request.run_key for request in requests.values()}) == 4
    assert requests[122].cause == "still not taken in (request 2): a"


def test_a_clock_that_is_set_back_delays_a_request_by_no_more_than_its_pause() -> None:
    tick = Ticks()
    tick(1_000_000, {"a": A})
    assert tick(1_000_002, {"a": A})
    tick(0, {"a": A})
    assert next(now for now in range(1, 200) if tick(now, {"a": A})) <= 120


@pytest.mark.parametrize("stored", [None, "", "nonsense", "[]", '{"seen": 1}', '{"another": 1}'])
def test_a_cursor_that_is_not_ours_is_a_new_beginning(stored: str | None) -> None:
    assert Cursor.from_json(stored) == Cursor()


@pytest.mark.parametrize(
    ("content", "day"),
    [
        (["nonsense", event("s", searched_at="2024-01-03T01:00:00+02:00")], "2024-01-02"),
        (["[]", "1", '{"searched_at": 5}', '{"searched_at": "soon"}'], None),
        ([], None),
    ],
)
def test_a_run_is_named_after_a_day_in_the_first_lines_of_a_file(content: list[Any], day: str | None) -> None:
    assert first_day(land("a.jsonl", *content)) == day


def test_no_day_is_read_from_a_file_that_has_gone(tmp_path: Path) -> None:
    assert first_day(tmp_path / "gone") is None


def test_a_day_is_behind_until_each_aggregation_reflects_its_files() -> None:
    files = {DAY: {DataFile("x"): Prints(7, 7)}, OTHER: {DataFile("y"): Prints(8, 8)}}
    snapshot = Snapshot("id", 3, {DAY: ("x",), OTHER: ("y",), "2024-02-01": ("z",)}, "/lake", files)
    known = {DAY, OTHER, "2024-01-06"}
    current = {DAY: Input(7, 1), OTHER: Input(8, 2)}
    assert days_behind(snapshot, [current, current], known) == {}
    assert days_behind(snapshot, [current, {DAY: Input(7, 1)}], known) == {OTHER: "8"}
    assert days_behind(snapshot, [{**current, "2024-01-06": Input(5, 1)}, current], known) == {"2024-01-06": "0"}
    assert days_behind(None, [current], known) == {}


def append(day: str) -> None:
    """An event in the table that no run has reported."""
    table = searches.open_searches(LakeFromSettings())
    values = {"day": [day], "search_id": [f"s{table.version()}"]}
    row = pa.table({name: values.get(name, [None]) for name in SCHEMA.names})
    row = row.set_column(0, "day", pa.array([day]).cast(pa.date32()))
    searches.append(table, row.cast(SCHEMA), (), {})


@pytest.fixture
def tick(instance: dg.DagsterInstance) -> SensorTicks:
    return SensorTicks(
        flight_searches_landed,
        instance,
        definitions=defs,
        resources={"lake": LakeFromSettings()},
        records_events=True,
    )


def test_days_that_a_run_has_changed_before_it_died_are_reported_once(tick: SensorTicks) -> None:
    assert tick().events == []
    append(DAY)
    append(OTHER)
    append(DAY)
    assert [(event.partition, (event.tags or {})["dagster/data_version"]) for event in tick().events] == [
        (DAY, "3"),
        (OTHER, "2"),
    ]
    assert tick().events == []
    tick.cursor = None
    assert tick().events == [], "Dagster knows of them"


def test_a_table_that_is_made_anew_is_followed_from_its_beginning(
    tick: SensorTicks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    append(DAY)
    tick()
    monkeypatch.setenv("DEDP_DATA_URI", str(tmp_path))
    append(OTHER)
    assert [event.partition for event in tick().events] == [OTHER]


def test_a_tick_asks_for_a_run_of_a_day_that_the_file_has(tick: SensorTicks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDP_SETTLE_SECONDS", "0")
    land("a.jsonl", event("s1", OTHER))
    (request,) = tick().run_requests
    assert (request.partition_key, request.asset_selection) == (OTHER, [contract.SEARCHES])
    assert tick().run_requests == []


def test_a_damaged_table_is_said_by_the_tick(tick: SensorTicks) -> None:
    append(DAY)
    tick()
    log = (
        Path(DeltaTable(LakeFromSettings().table_uri(contract.SEARCHES)).table_uri.removeprefix("file://"))
        / "_delta_log"
    )
    for commit in log.glob("*.json"):
        commit.write_text("nonsense")
    assert "can't be read" in tick().message


def test_without_a_table_nothing_is_behind(instance: dg.DagsterInstance) -> None:
    ticks = SensorTicks(flight_search_reconciled, instance, resources={"lake": LakeFromSettings()})
    assert ticks().message == "every day reflects its input"
    append(DAY)
    assert ticks().message == f"1 behind their input: {DAY}"
