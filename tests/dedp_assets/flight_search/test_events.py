"""Which lines are events. Each line of a file is one of these, and Spark reads all of them in one query."""

import json
from datetime import date
from typing import Any

import pytest

from dedp_assets.flight_search.events import check_lines
from dedp_assets.flight_search.reading import read_lines
from dedp_assets.resources.spark import SparkConnectResource
from dedp_assets.resources.spark_limits import LimitedSpark, SparkLimits
from tests.dedp_assets.flight_search.landed import event

TODAY = date(2024, 1, 10)


def line(search_id: str, without: str = "", **values: Any) -> bytes:
    return json.dumps({name: value for name, value in event(search_id, **values).items() if name != without}).encode()


GOOD = line("good")
# What a line is: the day of the event, or a word of the reason why it is set aside.
LINES = {
    GOOD: "2024-01-02",
    b"\xef\xbb\xbf" + line("byte-order-mark"): "2024-01-02",
    line("carriage-return") + b"\r": "2024-01-02",
    b"  " + line("blanks") + b"  ": "2024-01-02",
    line("other-field", user="somebody"): "2024-01-02",
    line("number-as-text", passengers="9"): "2024-01-02",
    line("zone", searched_at="2024-01-03T01:00:00+02:00"): "2024-01-02",
    line("other-zone", searched_at="2024-01-02T23:00:00-02:00"): "2024-01-03",
    line("fraction", searched_at="2024-01-02T23:59:59.999999999Z"): "2024-01-02",
    line("first-day", day="2024-01-01"): "2024-01-01",
    line("clock-ahead", day="2024-01-11"): "2024-01-11",
    line("flies-yesterday-there", departure_date="2024-01-01"): "2024-01-02",
    b"": "empty line",
    b" \t ": "empty line",
    b"nonsense": "not one JSON object",
    b"null": "not one JSON object",
    b"[" + GOOD + b"]": "not one JSON object",
    b'"' + b"text" + b'"': "not one JSON object",
    GOOD[:-1]: "not one JSON object",
    GOOD + b"x": "not one JSON object",
    GOOD + GOOD: "not one JSON object",
    GOOD + b"," + GOOD: "not one JSON object",
    GOOD + b"],[" + GOOD: "not one JSON object",
    GOOD + b',"x":' + GOOD: "not one JSON object",
    GOOD + b"]": "not one JSON object",
    GOOD + b"}": "not one JSON object",
    GOOD.replace(b'"', b"'"): "not one JSON object",
    GOOD.replace(b": 2", b": NaN"): "not one JSON object",
    GOOD.replace(b"{", b'{"origin": "MUC", '): "not one JSON object",
    b'{"search_id": ' * 3000 + b"1" + b"}" * 3000: "not one JSON object",
    b"\xff" + GOOD: "not UTF-8",
    GOOD.replace(b"FRA", b"F\xe9A"): "not UTF-8",
    b"{}": "missing: search_id, searched_at, origin, destination, departure_date, passengers",
    line("x", without="origin"): "missing: origin",
    line("x", passengers=None): "missing: passengers",
    line(""): "search_id",
    line("x" * 101): "search_id",
    line("two words"): "search_id",
    GOOD.replace(b'"good"', b'{"a": 1}'): "search_id",
    line("x", searched_at="2024-01-02T10:15:30"): "searched_at",
    line("x", searched_at="2024-01-02"): "searched_at",
    line("x", searched_at="2024-02-30T10:15:30Z"): "searched_at",
    line("x", searched_at="2024-01-02T24:15:30Z"): "searched_at",
    line("x", searched_at=1704190530): "searched_at",
    line("x", searched_at="2024-01-01T00:00:00+01:00"): "searched_at: before",
    line("x", searched_at="2024-01-12T00:00:00Z"): "searched_at: more than 1 day in the future",
    line("x", origin="fra"): "origin",
    line("x", origin="FRAN"): "origin",
    line("x", destination="J1K"): "destination",
    line("x", destination="FRA"): "origin and destination are the same",
    line("x", departure_date="2023-12-31"): "departure_date: before",
    line("x", departure_date="2024-02-30"): "departure_date",
    line("x", departure_date="01.02.2024"): "departure_date",
    line("x", passengers=0): "passengers",
    line("x", passengers=10): "passengers",
    line("x", passengers=-1): "passengers",
    line("x", passengers=1.5): "passengers",
    line("x", passengers=True): "passengers",
}


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory, spark_server: str) -> list[dict[str, Any]]:
    """What Spark makes of these lines."""
    path = tmp_path_factory.mktemp("lines") / "0" / "content"
    path.parent.mkdir()
    path.write_bytes(b"\n".join(LINES) + b"\nlast line without an end")
    spark = LimitedSpark(SparkConnectResource(remote=spark_server).session, SparkLimits(cores=1))
    found: list[dict[str, Any]] = check_lines(read_lines(spark, [path]), TODAY).toArrow().to_pylist()
    return found


def test_every_line_is_an_event_of_its_day_in_utc_or_has_a_reason_that_names_what_was_expected(
    checked: list[dict[str, Any]],
) -> None:
    assert len(checked) == len(LINES) + 1
    found = [str(row["reason"] or row["day"]) for row in checked]
    wrong = {
        line: said
        for line, expected, said in zip([*LINES, b"last"], [*LINES.values(), "not one JSON"], found, strict=True)
        if not said.startswith(expected)
    }
    assert wrong == {}


def test_the_text_of_a_line_that_is_set_aside_can_be_read(checked: list[dict[str, Any]]) -> None:
    assert [row["line"] for row in checked if row["reason"] == "not UTF-8"] == [
        "\ufffd" + GOOD.decode(),
        GOOD.decode().replace("FRA", "F\ufffdA"),
    ]
    assert checked[-1]["line"] == "last line without an end"
