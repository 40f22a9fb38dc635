"""Promotions: suppliers deliver when they like; one delivers twice, one late, and one forgets its marker."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any

from psycopg2.extensions import connection as Connection

from dedp_assets.demo.timeline import Act, Timeline, checked, headline, results
from dedp_assets.promotions import contract
from dedp_assets.promotions.generator import Offer, corrected, dirty_lines, offers, write_delivery

ASSETS = [
    contract.RAW,
    contract.CLEANED,
    contract.METRICS,
    contract.DIFFERENCES,
    contract.DASHBOARD,
    contract.NOTIFICATION,
]
ROWS = 120
DIRTY = 7

_TOLD = "SELECT count(*) FROM dedp.promotion_notifications"
_DELIVERED = "SELECT count(*) FROM dedp.promotion_deliveries"
_LATE = "SELECT count(*) FROM dedp.promotion_deliveries WHERE is_late"
_QUARANTINED = "SELECT count(*) FROM dedp.promotion_quarantine"
_PRODUCTS = "SELECT count(*) FROM dedp.promotions"
_DIFFERENCES = """
    SELECT count(*)
    FROM dedp.promotion_differences
    JOIN dedp.promotion_comparisons USING (supplier, day, previous_day)
    WHERE supplier = 'supermarket3'
"""


def act(timeline: Timeline, database: Connection) -> Act:
    """Play the act; return whether every checked result is the expected one. Raises DemoFailed."""
    headline(
        "Promotions: four suppliers deliver for today, one of them without its marker. Then one delivers again, and "
        "one for the day before yesterday, whose window is closed."
    )
    today = datetime.now(timezone.utc).date()
    before = today - timedelta(days=2)
    first, second, third, late = (
        offers("supermarket1", today, ROWS),
        offers("supermarket2", today, ROWS),
        offers("supermarket3", today, ROWS),
        offers("supermarket3", before, ROWS),
    )
    _deliver(timeline, "supermarket1", today, [*_lines(first), *dirty_lines(first, DIRTY)])
    _deliver(timeline, "supermarket2", today, _lines(second))
    _deliver(timeline, "supermarket3", today, _lines(third))
    _deliver(timeline, "supermarket4", today, _lines(first), marker=False)
    yield lambda: _count(database, _TOLD) == 3
    _deliver(timeline, "supermarket2", today, _lines(corrected(second)), what="once more")
    _deliver(timeline, "supermarket3", before, _lines(late), what="late")
    yield lambda: _count(database, _TOLD) == 5
    with results("Promotions: each delivery is reported on at once, and nobody waits for another"):
        return all(
            [
                checked("deliveries that are loaded", _count(database, _DELIVERED), 4),
                checked("of them late", _count(database, _LATE), 1),
                checked("products on promotion", _count(database, _PRODUCTS), 4 * ROWS - 1),
                checked("lines in quarantine", _count(database, _QUARANTINED), DIRTY),
                checked("differences from the late delivery", _count(database, _DIFFERENCES), _differ(late, third)),
                checked("messages, one for each version", _count(database, _TOLD), 5),
            ]
        )


def dashboard() -> str:
    """The address of the dashboard, for a browser."""
    return contract.dashboard_file().as_uri()


def _lines(of: Sequence[Offer]) -> list[str]:
    return [offer.line for offer in of]


def _deliver(
    timeline: Timeline, supplier: str, day: date, lines: list[str], *, marker: bool = True, what: str = "delivered"
) -> None:
    folder = contract.landing_folder() / supplier / day.isoformat()
    write_delivery(folder, lines, files=2, marker=marker)
    timeline.tell(f"{what:<15}{folder}{'' if marker else ', without its marker'}")


def _differ(before: Sequence[Offer], after: Sequence[Offer]) -> int:
    """How many products were added, removed or have another price."""
    prices = [{(offer.product_id, float(offer.price)) for offer in offers} for offers in (before, after)]
    return len({product for product, _ in prices[0] ^ prices[1]})


def _count(database: Connection, query: str) -> int:
    with database.cursor() as cursor:
        # The first ticks make the tables; those of the notifications are the last ones.
        cursor.execute("SELECT to_regclass('dedp.promotion_notifications') IS NOT NULL")
        found: list[tuple[Any, ...]] = cursor.fetchall()
        if found != [(True,)]:
            return 0
        cursor.execute(query)
        return int(cursor.fetchall()[0][0])
