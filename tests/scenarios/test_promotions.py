"""Stories of suppliers that deliver promotions, on a simulated clock: what is loaded, when, and who waits for whom."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from dagster_scenario import Scenario

RAW, CLEANED, METRICS = "promotions/raw", "promotions/cleaned", "promotions/metrics"
SENSOR, RECONCILED = "promotions_delivered", "promotions_reconciled"
HEADER = "product_id,product,price,promotion_price,starts_on,ends_on"

Deliver = Callable[..., None]


def promotions(prices: dict[str, str]) -> str:
    """A file with a promotion for each product: half of its price."""
    lines = [
        f"{product},Product {product},{price},{float(price) / 2},2024-01-05,2024-01-12"
        for product, price in prices.items()
    ]
    return "\n".join([HEADER, *lines]) + "\n"


@pytest.fixture
def shop(scenario: Scenario, dsn: str, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """The code location is at work, and nobody has delivered yet."""
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    monkeypatch.setenv("DEDP_NOTIFY", f"file:{own_home}/notifications.jsonl")
    scenario.start("2024-01-05 15:00")
    scenario.folder(own_home / "landing" / "promotions")
    scenario.load("jobs.promotions")
    scenario.advance(minutes=1)
    return scenario


@pytest.fixture
def deliver(shop: Scenario, own_home: Path) -> Deliver:
    """Drops data files of a supplier, each with its products and prices, and then the marker."""
    folder = shop.folder(own_home / "landing" / "promotions")

    def put(supplier: str, day: str = "2024-01-05", marker: bool = True, **files: dict[str, str] | str) -> None:
        names = {f"data-{name}.csv": content for name, content in files.items()} or {"data-1.csv": {"milk": "2.00"}}
        for name, content in names.items():
            text = content if isinstance(content, str) else promotions(content)
            path = f"{supplier}/{day}/{name}"
            folder.rewrite(path, text) if (folder.path / path).exists() else folder.drop(path, text)
        if marker:
            path = f"{supplier}/{day}/_SUCCESS"
            folder.rewrite(path, "") if (folder.path / path).exists() else folder.drop(path, "")

    return put


def query(dsn: str, sql: str) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(dsn)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()
    finally:
        connection.close()


def loaded(dsn: str) -> dict[str, dict[str, str]]:
    """The price of each product of each delivery."""
    found: dict[str, dict[str, str]] = {}
    for key, product, price in query(
        dsn, "SELECT supplier || '/' || day, product_id, price::text FROM dedp.promotions ORDER BY 1, 2"
    ):
        found.setdefault(key, {})[product] = price
    return found


def measured(dsn: str) -> dict[str, int]:
    return dict(
        query(
            dsn,
            "SELECT supplier || '/' || day, products FROM dedp.promotion_metrics "
            "JOIN dedp.promotion_deliveries USING (supplier, day, load_number)",
        )
    )


def told(own_home: Path) -> list[str]:
    path = own_home / "notifications.jsonl"
    return [json.loads(line)["key"] for line in path.read_text().splitlines()] if path.exists() else []


def test_a_supplier_who_is_in_is_loaded_and_measured_at_once_and_waits_for_nobody(
    shop: Scenario, deliver: Deliver, dsn: str
) -> None:
    deliver("supermarket1", **{"1": {"milk": "2.00", "tea": "3.00"}, "2": {"milk": "1.80"}})
    shop.advance(minutes=1)
    shop.expect(METRICS).materialized("supermarket1|2024-01-05").by_sensor(SENSOR)
    assert loaded(dsn) == {"supermarket1/2024-01-05": {"milk": "1.80", "tea": "3.00"}}
    assert query(dsn, "SELECT products, mean_discount::text, max_discount::text FROM dedp.promotion_metrics") == [
        (2, "50.00", "50.00")
    ]
    shop.expect_runs().no_slot_held_while_waiting()


def test_four_suppliers_at_once_share_a_run_and_one_who_comes_later_has_its_own(
    shop: Scenario, deliver: Deliver, dsn: str
) -> None:
    for number in (1, 2, 3):
        deliver(f"supermarket{number}")
    shop.advance(minutes=1)
    assert len(measured(dsn)) == 3
    shop.at("2024-01-06 01:30")
    deliver("supermarket4")
    shop.advance(minutes=1)
    assert len(measured(dsn)) == 4
    shop.expect_runs().count(2)
    shop.expect(METRICS).materialized(times=4)
    shop.advance(hours=2)
    shop.expect_runs().count(2)
    shop.expect_check(RAW, "every_supplier_delivered").not_evaluated()


def test_files_without_a_marker_wait_and_a_marker_without_files_is_no_delivery(
    shop: Scenario, deliver: Deliver, dsn: str, own_home: Path
) -> None:
    deliver("supermarket1", marker=False)
    folder = shop.folder(own_home / "landing" / "promotions")
    folder.drop("supermarket2/2024-01-05/_SUCCESS")
    folder.drop("supermarket3/2024-01-05/_SUCCESS")
    folder.drop("supermarket3/2024-01-05/data-1.csv", "")
    shop.advance(hours=1)
    assert loaded(dsn) == {}
    shop.expect_sensor(SENSOR).waiting(because="supermarket2/2024-01-05 has its marker _SUCCESS, and no data file")
    folder.drop("supermarket1/2024-01-05/_SUCCESS")
    folder.drop("supermarket2/2024-01-05/data-1.csv", promotions({"tea": "3.00"}))
    shop.advance(minutes=2)
    assert loaded(dsn) == {
        "supermarket1/2024-01-05": {"milk": "2.00"},
        "supermarket2/2024-01-05": {"tea": "3.00"},
    }


def test_a_file_after_the_marker_is_a_new_version_once_it_rests(
    shop: Scenario, deliver: Deliver, dsn: str, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDP_SETTLE_SECONDS", "120")
    deliver("supermarket1")
    shop.advance(minutes=1)
    assert loaded(dsn) == {"supermarket1/2024-01-05": {"milk": "2.00"}}
    folder = shop.folder(own_home / "landing" / "promotions")
    folder.grow("supermarket1/2024-01-05/data-2.csv", promotions({"tea": "3.00"}))
    for number in range(5):
        shop.advance(minutes=1)
        folder.grow(
            "supermarket1/2024-01-05/data-2.csv", f"oil{number},Oil,{number + 1}.00,0.50,2024-01-05,2024-01-12\n"
        )
    assert loaded(dsn) == {"supermarket1/2024-01-05": {"milk": "2.00"}}, "it is still being written"
    shop.advance(minutes=4)
    assert len(loaded(dsn)["supermarket1/2024-01-05"]) == 7
    assert query(dsn, "SELECT files, load_number FROM dedp.promotion_deliveries") == [(2, 2)]
    folder.delete("supermarket1/2024-01-05/data-1.csv")
    shop.advance(minutes=4)
    assert "milk" not in loaded(dsn)["supermarket1/2024-01-05"]
    shop.expect_runs().count(3)


def test_a_delivery_that_comes_twice_is_loaded_twice_only_if_it_differs(
    shop: Scenario, deliver: Deliver, dsn: str
) -> None:
    deliver("supermarket1", **{"1": {"milk": "2.00"}})
    shop.advance(minutes=2)
    deliver("supermarket1", **{"1": {"milk": "2.00"}})
    shop.advance(minutes=2)
    assert query(dsn, "SELECT load_number FROM dedp.promotion_deliveries") == [(1,)], "the same content again"
    deliver("supermarket1", **{"1": {"milk": "2.20"}})
    shop.advance(hours=1)
    assert loaded(dsn) == {"supermarket1/2024-01-05": {"milk": "2.20"}}
    assert query(dsn, "SELECT load_number FROM dedp.promotion_deliveries") == [(2,)]
    shop.expect_runs().count(3)


def test_days_come_in_any_order_and_an_old_day_is_taken_at_once(shop: Scenario, deliver: Deliver, dsn: str) -> None:
    shop.at("2024-01-15 17:00")
    deliver("supermarket1", "2024-01-15")
    shop.advance(minutes=1)
    deliver("supermarket1", "2024-01-09")
    shop.advance(minutes=1)
    deliver("supermarket1", "2024-01-08")
    shop.advance(minutes=1)
    assert set(measured(dsn)) == {f"supermarket1/{day}" for day in ("2024-01-15", "2024-01-09", "2024-01-08")}
    late = query(dsn, "SELECT day::text, is_late FROM dedp.promotion_deliveries ORDER BY day")
    assert late == [("2024-01-08", True), ("2024-01-09", True), ("2024-01-15", False)]


def test_what_arrives_while_a_run_loads_is_loaded_after_it(shop: Scenario, deliver: Deliver, dsn: str) -> None:
    deliver("supermarket1")
    shop.hold(CLEANED, before="dedp_assets.promotions.deliveries.assets.load_delivery")
    shop.advance(minutes=1)
    deliver("supermarket1", **{"1": {"milk": "9.00"}})
    shop.advance(minutes=5)
    shop.expect_runs().count(1)
    shop.release()
    shop.advance(minutes=2)
    assert loaded(dsn) == {"supermarket1/2024-01-05": {"milk": "9.00"}}
    assert measured(dsn) == {"supermarket1/2024-01-05": 1}
    shop.expect_runs().count(2)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("dedp_assets.landing.delivery_copies.write_whole", marks=pytest.mark.slow),
        pytest.param("dedp_assets.promotions.deliveries.assets.load_delivery", marks=pytest.mark.slow),
        "dedp_assets.promotions.deliveries.loading._set_duplicates_aside",
        pytest.param("dedp_assets.promotions.deliveries.assets.measure_delivery", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_leaves_nothing_half_and_its_delivery_is_taken_all_the_same(
    shop: Scenario, deliver: Deliver, dsn: str, own_home: Path, point: str
) -> None:
    deliver("supermarket1", **{"1": {"milk": "2.00", "tea": "3.00"}, "2": {"milk": "1.80"}})
    shop.kill(CLEANED, before=point)
    shop.advance(minutes=10)
    assert loaded(dsn) == {"supermarket1/2024-01-05": {"milk": "1.80", "tea": "3.00"}}
    assert query(dsn, "SELECT lines_read, rows_loaded, rows_quarantined FROM dedp.promotion_deliveries") == [(3, 2, 1)]
    assert query(dsn, "SELECT file, line_number, reason FROM dedp.promotion_quarantine") == [
        ("data-1.csv", 2, "duplicate")
    ]
    assert measured(dsn) == {"supermarket1/2024-01-05": 2}
    shop.expect(METRICS).materialized("supermarket1|2024-01-05")
    (copy,) = (own_home / "internal" / "promotions").glob("*/*")
    assert len(list(copy.glob("*.csv"))) == 2
    shop.expect_runs().count(2)


def test_everything_was_down_for_three_days_and_nothing_is_lost(
    shop: Scenario, deliver: Deliver, dsn: str, own_home: Path
) -> None:
    deliver("supermarket1")
    shop.advance(minutes=2)
    with shop.daemons_down():
        shop.advance(days=3)
        deliver("supermarket1", **{"1": {"milk": "5.00"}})
        for day in ("2024-01-05", "2024-01-06", "2024-01-07"):
            deliver("supermarket2", day)
    shop.advance(minutes=3)
    assert set(measured(dsn)) == {
        "supermarket1/2024-01-05",
        *(f"supermarket2/{day}" for day in ("2024-01-05", "2024-01-06", "2024-01-07")),
    }
    assert loaded(dsn)["supermarket1/2024-01-05"] == {"milk": "5.00"}
    others = ["supermarket3", "supermarket4"]
    assert sorted(told(own_home)) == sorted(
        f"promotions/missing/{supplier}/{day}"
        for day, suppliers in (
            ("2024-01-05", others),
            ("2024-01-06", ["supermarket1", *others]),
            ("2024-01-07", ["supermarket1", *others]),
        )
        for supplier in suppliers
    )


def test_who_does_not_deliver_is_reported_once_when_the_window_closes_and_is_late_when_it_comes(
    shop: Scenario, deliver: Deliver, dsn: str, own_home: Path
) -> None:
    for number in (1, 2, 4):
        deliver(f"supermarket{number}")
    shop.at("2024-01-06 01:59")
    assert told(own_home) == []
    shop.at("2024-01-06 02:01")
    assert told(own_home) == ["promotions/missing/supermarket3/2024-01-05"]
    shop.expect_check(RAW, "every_supplier_delivered").failed(times=1)
    shop.at("2024-01-06 15:00")
    came = shop.mark("supermarket3 comes")
    deliver("supermarket3")
    shop.advance(minutes=2)
    assert told(own_home) == ["promotions/missing/supermarket3/2024-01-05"]
    shop.expect_check(RAW, "every_supplier_delivered").passed(since=came)
    late = query(dsn, "SELECT supplier FROM dedp.promotion_deliveries WHERE is_late")
    assert late == [("supermarket3",)]


def test_three_silent_suppliers_hold_no_slot_for_six_days(
    shop: Scenario, deliver: Deliver, dsn: str, own_home: Path
) -> None:
    """The notes' deadlock: three suppliers are silent, and within six days they hold all 16 slots."""
    for day in range(5, 11):
        shop.at(f"2024-01-{day:02} 20:00")
        deliver("supermarket1", f"2024-01-{day:02}")
        shop.advance(minutes=1)
        assert len(measured(dsn)) == day - 4, "the fourth one is served every day"
    shop.at("2024-01-11 03:00")
    shop.expect_runs().count(6)
    shop.expect_runs().no_slot_held_while_waiting()
    assert len(told(own_home)) == len(set(told(own_home))) == 18


def test_a_notifier_that_is_away_stops_no_delivery_and_people_are_told_later(
    shop: Scenario, deliver: Deliver, dsn: str, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_home / "notifications.jsonl").mkdir()
    for number in (1, 2, 3):
        deliver(f"supermarket{number}")
    shop.at("2024-01-06 02:30")
    deliver("supermarket1", "2024-01-06")
    shop.advance(minutes=1)
    assert "supermarket1/2024-01-06" in measured(dsn)
    (own_home / "notifications.jsonl").rmdir()
    shop.advance(minutes=10)
    assert told(own_home) == ["promotions/missing/supermarket4/2024-01-05"]


def test_a_delivery_without_a_usable_line_keeps_the_earlier_version_and_stops_nobody(
    shop: Scenario, deliver: Deliver, dsn: str
) -> None:
    deliver("supermarket1")
    shop.advance(minutes=2)
    deliver("supermarket1", **{"1": "<html>error</html>"})
    deliver("supermarket2")
    shop.advance(hours=3)
    assert loaded(dsn) == {"supermarket1/2024-01-05": {"milk": "2.00"}, "supermarket2/2024-01-05": {"milk": "2.00"}}
    shop.expect(CLEANED).failed(error="no usable line")
    shop.expect_runs().count(2)
    deliver("supermarket1", **{"1": {"tea": "1.00"}})
    shop.advance(minutes=2)
    assert loaded(dsn)["supermarket1/2024-01-05"] == {"tea": "1.00"}


def test_a_database_that_is_away_stops_no_tick_and_loses_nothing(
    shop: Scenario, deliver: Deliver, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", "postgresql://nobody@127.0.0.1:1/nothing")
    deliver("supermarket1")
    shop.advance(minutes=10)
    shop.expect_sensor(SENSOR).waiting(because="PostgreSQL does not answer")
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    shop.advance(minutes=2)
    assert measured(dsn) == {"supermarket1/2024-01-05": 1}


def test_tables_that_lost_a_delivery_get_it_again_from_our_copy(
    shop: Scenario, deliver: Deliver, dsn: str, own_home: Path
) -> None:
    deliver("supermarket1")
    deliver("supermarket2")
    shop.advance(minutes=2)
    shop.folder(own_home / "landing").delete("promotions")
    query(dsn, "WITH gone AS (DELETE FROM dedp.promotion_deliveries RETURNING 1) SELECT 1")
    shop.advance(minutes=5)
    assert query(dsn, "SELECT count(*) FROM dedp.promotion_deliveries") == [(2,)]


def test_folders_of_nobody_and_of_no_day_are_named_once_and_not_taken(
    shop: Scenario, deliver: Deliver, dsn: str
) -> None:
    deliver("supermarket9")
    deliver("supermarket1", "yesterday")
    deliver("supermarket1", "2024-01-07")
    shop.advance(minutes=10, every_tick=True)
    assert loaded(dsn) == {}
    said = str(shop.timeline)
    assert said.count("supermarket9: not the folder of a known supplier") == 1
    assert said.count("supermarket1/yesterday: expected folders named after a day") == 1
    shop.at("2024-01-07 00:01")
    assert set(loaded(dsn)) == {"supermarket1/2024-01-07"}, "its day has begun"


def test_chosen_deliveries_are_taken_again_in_one_run_from_any_asset_down(
    shop: Scenario, deliver: Deliver, dsn: str
) -> None:
    for supplier in ("supermarket1", "supermarket2"):
        for day in ("2024-01-04", "2024-01-05"):
            deliver(supplier, day)
    shop.advance(minutes=2)
    since = shop.mark("the rule has changed")
    chosen = ["supermarket1|2024-01-04", "supermarket1|2024-01-05", "supermarket2|2024-01-05"]
    shop.backfill(CLEANED, METRICS, partitions=chosen)
    shop.advance(minutes=2)
    shop.expect(METRICS).materialized(*chosen, since=since, in_any_order=True).by_backfill()
    shop.expect(RAW).not_materialized(since=since)
    assert query(dsn, "SELECT max(load_number) FROM dedp.promotion_deliveries") == [(4,)], "nothing has changed"
    config = {"ops": {"promotion_deliveries": {"config": {"again": True}}}}
    shop.materialize(CLEANED, METRICS, partition="supermarket1|2024-01-04", run_config=config)
    shop.advance(minutes=5)
    assert query(dsn, "SELECT max(load_number) FROM dedp.promotion_deliveries") == [(5,)], "asked for"
    assert len(measured(dsn)) == 4
