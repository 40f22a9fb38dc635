"""The dashboard: who is late, what it shows, that no supplier can write into it, and that it says what it reflects."""

import threading
from datetime import date, datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dedp_assets.promotions import contract
from dedp_assets.promotions.reports.charts import whole_ticks
from dedp_assets.promotions.reports.comparing import compare
from dedp_assets.promotions.reports.dashboard import _LOCK, build, dashboard_html, verdict, written_version
from dedp_assets.promotions.reports.figures import (
    MOST_DELIVERIES,
    Figures,
    delivery_day,
    read_figures,
    read_version,
)
from tests.promotion_tables import Deliveries

TODAY = date(2024, 3, 15)
EVENING = datetime(2024, 3, 15, 22, tzinfo=timezone.utc)
NEXT_MORNING = datetime(2024, 3, 16, 5, tzinfo=timezone.utc)
HOSTILE = ['<script>alert("x")</script>', "<img src=http://evil.example/x>", "{{ 7*7 }}", "a\u202egpj.exe"]


def day(before: int) -> str:
    return (TODAY - timedelta(days=before)).isoformat()


class Page(HTMLParser):
    """What a browser finds in a page: its elements, its text, and what it would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.loads: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        links = [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data", "srcset")]
        self.loads += [link for link in links if not link.startswith("#")]

    def handle_data(self, data: str) -> None:
        self.text += data


def figures_at(deliveries: Deliveries, now: datetime) -> Figures:
    return read_figures(deliveries.connection, now)


def states(figures: Figures, on: date = TODAY) -> dict[str, str]:
    return {each.name[-1]: figures.state(each, on) for each in figures.suppliers}


def test_no_supplier_can_write_into_the_page_and_the_page_loads_nothing(deliveries: Deliveries) -> None:
    for before in (1, 0):
        deliveries.load("supermarket1", day(before), {name: (10.0 + before, 5) for name in HOSTILE})
        compare(deliveries.connection, "supermarket1", [date.fromisoformat(day(before))])
    deliveries.execute("UPDATE dedp.promotions SET product = product_id")
    page = Page(dashboard_html(figures_at(deliveries, EVENING)))
    assert not page.elements & {"script", "img", "iframe", "object", "embed", "link", "form", "a", "base"}
    assert page.loads == []
    for name in HOSTILE[:3]:
        assert page.text.count(name) == 2  # among the discounts, and among the changes
    assert "\u202e" not in page.text
    assert r"a\u202egpj.exe" in page.text


def test_a_supplier_is_expected_until_the_window_closes_and_missing_after_that(deliveries: Deliveries) -> None:
    deliveries.load("supermarket1", day(0), {"a": 1})
    deliveries.load("supermarket2", day(0), {"a": 1}, late=True)
    deliveries.load("supermarket3", day(1), {"a": 1})
    at_night = figures_at(deliveries, EVENING)
    assert states(at_night) == {"1": "on time", "2": "late", "3": "expected", "4": "expected"}
    in_the_morning = figures_at(deliveries, NEXT_MORNING)
    assert states(in_the_morning) == {"1": "on time", "2": "late", "3": "missing", "4": "missing"}
    assert verdict(in_the_morning) == (
        "bad",
        "2 of 4 suppliers have delivered for 2024-03-15. supermarket2: late. "
        "supermarket3, supermarket4: missing, and the window is closed.",
    )
    # Before its first delivery nobody expects anything of a supplier.
    assert states(in_the_morning, date(2024, 3, 13)) == {"1": "none", "2": "none", "3": "none", "4": "none"}
    assert at_night.version != in_the_morning.version


@pytest.mark.parametrize(
    ("now", "delivered", "shown"),
    [
        (EVENING, [], TODAY),
        (datetime(2024, 3, 15, 15, 59, tzinfo=timezone.utc), [], date(2024, 3, 14)),
        (datetime(2024, 3, 15, 9, tzinfo=timezone.utc), [TODAY], TODAY),  # somebody is early
        (datetime(2024, 3, 16, 1, tzinfo=timezone.utc), [TODAY], TODAY),
    ],
)
def test_the_page_is_about_the_day_whose_window_has_opened_last(
    now: datetime, delivered: list[date], shown: date
) -> None:
    assert delivery_day(now, delivered) == shown


def test_the_page_shows_what_a_person_wants_to_know(deliveries: Deliveries) -> None:
    deliveries.load("supermarket1", day(3), {"tea": (4, 3), "milk": (2, 1), "gone": (1, 1)})
    deliveries.load("supermarket1", day(0), {"tea": (5, 1), "milk": (2, 1), "new": (1, 1)}, quarantined=2)
    for before in (3, 0):
        compare(deliveries.connection, "supermarket1", [date.fromisoformat(day(before))])
    figures = figures_at(deliveries, EVENING)
    supplier = figures.suppliers[0]
    assert [(each.product_id, round(each.percent)) for each in supplier.discounts] == [
        ("tea", 80),
        ("milk", 50),
        ("new", 0),
    ]
    assert supplier.changes is not None
    assert supplier.changes[:4] == (date(2024, 3, 12), 1, 1, 1)
    assert [(each.product_id, each.percent) for each in supplier.changes.prices] == [("tea", 25.0)]
    text = Page(dashboard_html(figures)).text
    for said in (
        "1 of 4 suppliers",
        "43.33 %",
        "2 lines",
        "Product tea",
        "1 with another price",
        "2024-03-15 17:00:00",
    ):
        assert said in text


def test_a_page_before_the_first_delivery_says_who_is_expected(empty_dsn: str) -> None:
    nothing = Deliveries(empty_dsn, is_new=False)
    figures = figures_at(nothing, EVENING)
    assert figures.version == read_version(nothing.connection, EVENING) == ""
    assert "0 of 4 suppliers have delivered for 2024-03-15." in Page(dashboard_html(figures)).text
    nothing.connection.close()


def test_the_version_of_the_figures_changes_with_whatever_the_page_shows(deliveries: Deliveries) -> None:
    seen = {""}

    def is_new() -> bool:
        version = read_version(deliveries.connection, EVENING)
        assert version == figures_at(deliveries, EVENING).version
        is_new = version not in seen
        seen.add(version)
        return is_new

    assert not is_new()
    deliveries.load("supermarket1", day(1), {"a": 1}, is_measured=False)
    assert not is_new()  # it is not shown yet
    deliveries.measure("supermarket1", day(1))
    assert is_new()
    compare(deliveries.connection, "supermarket1", [date.fromisoformat(day(1))])
    assert is_new()
    deliveries.load("supermarket1", day(1), {"a": 2})
    assert is_new()
    deliveries.load("supermarket2", day(5), {"a": 2})
    assert is_new()
    assert not is_new()


def test_what_the_page_shows_of_a_supplier_does_not_grow_with_its_history(deliveries: Deliveries) -> None:
    for before in range(MOST_DELIVERIES + 3):
        deliveries.load("supermarket1", day(before), {"a": 1})
    figures = figures_at(deliveries, EVENING)
    before_more = Page(dashboard_html(figures))
    assert len(figures.suppliers[0].deliveries) == MOST_DELIVERIES
    assert figures.suppliers[0].latest == figures.suppliers[0].on(TODAY)
    assert "30 deliveries (the last ones)" in before_more.text
    version = figures.version
    deliveries.load("supermarket1", day(100), {"a": 1})
    assert read_version(deliveries.connection, EVENING) == version  # it is not on the page


def test_a_dashboard_says_itself_which_figures_it_shows(deliveries: Deliveries, tmp_path: Path) -> None:
    deliveries.load("supermarket1", day(0), {"a": 1})
    figures = build(deliveries.connection)
    assert written_version(contract.dashboard_file()) == figures.version != ""
    assert written_version(tmp_path / "none") is None
    other = tmp_path / "other.html"
    other.write_text("<html></html>")
    assert written_version(other) is None


def test_when_two_runs_meet_the_one_that_writes_last_has_read_the_latest_figures(deliveries: Deliveries) -> None:
    deliveries.load("supermarket1", day(0), {"a": 1})
    other = Deliveries(deliveries.dsn, is_new=False)
    other.execute(_LOCK)  # another run is writing a page
    waiting = Deliveries(deliveries.dsn, is_new=False)
    run = threading.Thread(target=build, args=[waiting.connection])
    run.start()
    while deliveries.query("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") != [(1,)]:
        assert run.is_alive()
    deliveries.load("supermarket2", day(0), {"a": 1})
    other.connection.close()
    run.join()
    waiting.connection.close()
    now = datetime.now(timezone.utc)
    assert written_version(contract.dashboard_file()) == read_version(deliveries.connection, now)


@pytest.mark.parametrize(
    ("highest", "last", "number"), [(1, 1, 2), (5, 5, 6), (6, 6, 4), (7, 8, 5), (101, 150, 4), (12_345, 15_000, 4)]
)
def test_the_axis_of_products_has_few_round_numbers(highest: int, last: int, number: int) -> None:
    ticks = whole_ticks(highest)
    assert (ticks[-1], len(ticks)) == (last, number)
