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
        with connection.cursor() as cursor:
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
