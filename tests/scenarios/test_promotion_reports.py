"""Stories of the reports on promotions, on a simulated clock: how long suppliers wait, who is told, and of what."""

import json
import re
import socket
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import psycopg2
import pytest
from dagster_scenario import Scenario

from dedp_assets import settings
from dedp_assets.demo import promotions
from dedp_assets.demo.timeline import Timeline
from dedp_assets.promotions import contract
from dedp_assets.promotions.generator import corrected, offers, write_delivery

DIFFERENCES, DASHBOARD, NOTIFICATION = "promotions/differences", "promotions/dashboard", "promotions/notification"
SENSOR = "promotions_followed"
DOCS = settings.REPOSITORY / "docs" / "promotions.md"
DAY = "2024-01-05"

# Writes a delivery of some of the generator's products. `again`: a corrected one.
Deliver = Callable[..., None]


@pytest.fixture
def shop(scenario: Scenario, empty_dsn: str, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """Both code locations are at work, and nobody has delivered yet."""
    monkeypatch.setenv("DEDP_POSTGRES_DSN", empty_dsn)
    monkeypatch.setenv("DEDP_NOTIFY", f"file:{own_home}/messages")
    scenario.start(f"{DAY} 15:55")
    scenario.load("jobs.promotions", "jobs.promotion_reports")
    scenario.advance(minutes=1)
    return scenario


@pytest.fixture
def deliver(shop: Scenario) -> Deliver:
    def put(supplier: str, day: str = DAY, *, again: bool = False, marker: bool = True) -> None:
        good = offers(supplier, datetime.fromisoformat(day).date(), 20)
        lines = [offer.line for offer in (corrected(good) if again else good)]
        write_delivery(contract.landing_folder() / supplier / day, lines, marker=marker)

    return put


def told(own_home: Path) -> list[str]:
    path = own_home / "messages"
    keys = [json.loads(line)["key"] for line in path.read_text().splitlines()] if path.exists() else []
    return ["|".join(key.split("/")[1:3]) for key in keys if "missing" not in key]


def waits_of_the_docs() -> dict[str, tuple[str, str, str, str]]:
    """The table in the docs, by supplier: complete at; and the waits of the workflow, of the sensors, and here."""
    rows = re.findall(r"^\| (supermarket\d) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", DOCS.read_text(), re.MULTILINE)
    return {row[0]: row[1:] for row in rows}


def test_each_supplier_is_reported_on_within_a_minute_and_waits_for_nobody_as_the_docs_say(
    shop: Scenario, deliver: Deliver, own_home: Path
) -> None:
    waits = waits_of_the_docs()
    arrivals = {}
    for supplier, (complete_at, *_) in waits.items():
        shop.at(complete_at)
        arrivals[supplier] = shop.now
        arrived = shop.mark(supplier)
        deliver(supplier)
        shop.advance(minutes=2)
        shop.expect(NOTIFICATION).materialized(f"{supplier}|{DAY}", since=arrived).by_sensor(SENSOR)
        (event,) = shop.instance.fetch_materializations(contract.NOTIFICATION, limit=1).records
        assert event.timestamp - shop.now.timestamp() + 120 < 61  # seconds since it was complete
    last = max(arrivals.values())
    assert waits == {
        supplier: (f"{at:%H:%M}", hours(window_closes() - at), hours(last - at), "at most a minute")
        for supplier, at in arrivals.items()
    }
    assert len(waits) == 4
    assert told(own_home) == [f"{supplier}|{DAY}" for supplier in waits]
    shop.expect_runs().none_failed()
    shop.expect_runs().no_slot_held_while_waiting()


def test_a_delivery_that_comes_late_changes_the_differences_of_the_one_after_it(
    shop: Scenario, deliver: Deliver, own_home: Path
) -> None:
    deliver("supermarket1", "2024-01-03")
    deliver("supermarket1", DAY)
    shop.advance(minutes=3)
    late = shop.mark("late")
    deliver("supermarket1", "2024-01-04")
    shop.advance(minutes=3)
    after = ["supermarket1|2024-01-04", f"supermarket1|{DAY}"]
    shop.expect(DIFFERENCES).materialized(*after, since=late).by_sensor(SENSOR)
    shop.expect(NOTIFICATION).materialized(after[0], since=late)
    shop.expect(DASHBOARD).materialized(since=late)
    done = shop.mark("done")
    shop.advance(hours=1)
    shop.expect(DIFFERENCES).not_materialized(since=done)
    shop.expect(DASHBOARD).not_materialized(since=done)
    assert len(told(own_home)) == 3


def test_deliveries_that_come_together_share_one_run_of_reports(shop: Scenario, deliver: Deliver) -> None:
    together = shop.mark("together")
    for number in range(1, 5):
        deliver(f"supermarket{number}")
    shop.advance(minutes=3)
    shop.expect(NOTIFICATION).materialized(*(f"supermarket{number}|{DAY}" for number in range(1, 5)), since=together)
    shop.expect(DASHBOARD).materialized(times=1, since=together)


def test_a_delivery_without_its_marker_is_not_reported_on_and_is_missing_once_the_window_is_closed(
    shop: Scenario, deliver: Deliver, own_home: Path
) -> None:
    deliver("supermarket1")
    deliver("supermarket2", marker=False)
    shop.advance(minutes=3)
    assert told(own_home) == [f"supermarket1|{DAY}"]
    assert "supermarket2, supermarket3, supermarket4: expected" in contract.dashboard_file().read_text()
    shop.at("01:59")
    shop.advance(minutes=5, every_tick=True)  # the time alone makes the page out of date
    page = contract.dashboard_file().read_text()
    assert "supermarket2, supermarket3, supermarket4: missing, and the window is closed" in page
    deliver("supermarket2")
    shop.advance(minutes=3)
    assert told(own_home) == [f"supermarket1|{DAY}", f"supermarket2|{DAY}"]
    assert "supermarket2: late" in contract.dashboard_file().read_text()


def test_a_corrected_delivery_is_reported_on_again_and_each_version_is_told(
    shop: Scenario, deliver: Deliver, own_home: Path
) -> None:
    deliver("supermarket1")
    shop.advance(minutes=3)
    deliver("supermarket1", again=True)
    shop.advance(minutes=3)
    shop.expect(NOTIFICATION).materialized(f"supermarket1|{DAY}", f"supermarket1|{DAY}")
    assert told(own_home) == [f"supermarket1|{DAY}"] * 2


def test_what_happened_while_everything_was_down_is_reported_on_once_it_is_up_again(
    shop: Scenario, deliver: Deliver, own_home: Path
) -> None:
    with shop.daemons_down():
        for day in ("2024-01-05", "2024-01-06", "2024-01-07"):
            shop.at(f"{day} 17:00")
            deliver("supermarket1", day)
    shop.advance(minutes=5)
    assert sorted(told(own_home)) == [f"supermarket1|2024-01-0{number}" for number in (5, 6, 7)]
    shop.expect_runs().none_failed()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "messages"),
    [
        ("dedp_assets.promotions.reports.assets._draw", 1),  # the differences are committed
        ("dedp_assets.promotions.reports.assets.announce", 1),
        ("dedp_assets.promotions.reports.announcing._record", 2),  # the message is sent
    ],
)
def test_a_killed_run_of_reports_is_made_up_for_and_a_message_comes_again_with_its_key(
    shop: Scenario, deliver: Deliver, own_home: Path, empty_dsn: str, point: str, messages: int
) -> None:
    deliver("supermarket1", "2024-01-04")
    shop.advance(minutes=3)
    killed = shop.mark("killed")
    deliver("supermarket1", DAY)
    shop.kill(DIFFERENCES, before=point)
    shop.advance(minutes=10)
    shop.expect(NOTIFICATION).materialized(f"supermarket1|{DAY}", since=killed)
    assert told(own_home) == ["supermarket1|2024-01-04"] + [f"supermarket1|{DAY}"] * messages
    with closing(psycopg2.connect(empty_dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT day::text, previous_day::text FROM dedp.promotion_comparisons ORDER BY day")
        assert cursor.fetchall() == [("2024-01-04", None), (DAY, "2024-01-04")]
        cursor.execute("SELECT count(*) FROM dedp.promotion_notifications")
        assert cursor.fetchall() == [(2,)]
    done = shop.mark("done")
    shop.advance(hours=1)
    shop.expect(DASHBOARD).not_materialized(since=done)


class Receiver(BaseHTTPRequestHandler):
    """A webhook that remembers the keys of the messages that it got."""

    keys: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.keys.append(self.headers["Idempotency-Key"])
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_webhook_that_is_down_stops_nothing_else_and_gets_each_message_once_when_it_is_up(
    shop: Scenario, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    monkeypatch.setenv("DEDP_NOTIFY", f"http://127.0.0.1:{address[1]}/hook")
    monkeypatch.setattr(Receiver, "keys", [])
    deliver("supermarket1")
    deliver("supermarket2")
    shop.advance(minutes=4)
    both = [f"supermarket1|{DAY}", f"supermarket2|{DAY}"]
    compared = shop.instance.fetch_materializations(contract.DIFFERENCES, limit=20).records
    assert {event.partition_key for event in compared} == set(both)
    shop.expect(NOTIFICATION).failed(error="was not sent: no answer")
    shop.expect(NOTIFICATION).not_materialized()
    assert "2 of 4 suppliers have delivered" in contract.dashboard_file().read_text()
    up = shop.mark("the webhook is up")
    with ThreadingHTTPServer(address, Receiver) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        shop.advance(minutes=20)
        server.shutdown()
    shop.expect(NOTIFICATION).materialized(*both, since=up, in_any_order=True)
    assert sorted("|".join(key.split("/")[1:3]) for key in Receiver.keys) == both


def window_closes() -> datetime:
    return contract.window_closes(DAY).replace(tzinfo=timezone.utc)


def hours(wait: timedelta) -> str:
    return f"{wait / timedelta(hours=1):g} h"


def test_the_act_of_the_demo_has_the_results_that_it_expects(
    shop: Scenario, empty_dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(psycopg2.connect(empty_dsn)) as database:
        database.autocommit = True
        act = promotions.act(Timeline(shop.instance, promotions.ASSETS), database)
        passed = False
        try:
            while True:
                can_go_on = next(act)
                for _ in range(5):
                    shop.advance(minutes=1)
                assert can_go_on()
        except StopIteration as end:
            passed = end.value
    said = capsys.readouterr().out
    assert passed, said
    assert "late           " in said
    assert contract.dashboard_file().exists()
    shop.expect_runs().none_failed()
