"""What the dashboard shows, read as of one moment. The cost does not depend on how long suppliers have delivered."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from functools import cached_property
from typing import Any, NamedTuple

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from dedp_assets.promotions import contract
from dedp_assets.promotions.reports.tables import has_deliveries

# How many deliveries of each supplier the charts show, and how many days the calendar.
MOST_DELIVERIES = 30
CALENDAR_DAYS = 14
_MOST_PRODUCTS = 5

# A delivery is shown once its metrics are there.
_DELIVERIES = """
    SELECT supplier, latest.*
    FROM unnest(%(suppliers)s::text[]) AS asked (supplier)
    CROSS JOIN LATERAL (
        SELECT
            day, products, mean_discount::float8, max_discount::float8,
            delivery.ready_at, delivery.is_late, delivery.rows_quarantined
        FROM dedp.promotion_metrics AS metrics
        JOIN dedp.promotion_deliveries AS delivery USING (supplier, day)
        WHERE metrics.supplier = asked.supplier
        ORDER BY metrics.day DESC
        LIMIT %(limit)s
    ) AS latest
    ORDER BY day
"""

# What the page shows of these follows from the numbers of their loads, and of the loads that their metrics reflect. One
# row for each supplier: a tick asks for it, and has no use for the deliveries themselves.
_LOADS = """
    SELECT
        supplier,
        max(day),
        bool_or(day = %(today)s),
        md5(string_agg(format('%%s %%s %%s', day, load_number, measured_load), ',' ORDER BY day))
    FROM unnest(%(suppliers)s::text[]) AS asked (supplier)
    CROSS JOIN LATERAL (
        SELECT day, delivery.load_number, metrics.load_number AS measured_load
        FROM dedp.promotion_metrics AS metrics
        JOIN dedp.promotion_deliveries AS delivery USING (supplier, day)
        WHERE metrics.supplier = asked.supplier
        ORDER BY metrics.day DESC
        LIMIT %(limit)s
    ) AS latest
    GROUP BY supplier
    ORDER BY supplier
"""

_COMPARISONS = """
    SELECT supplier, previous_day, load_number, previous_load_number, compared_at AT TIME ZONE 'UTC'
    FROM unnest(%(suppliers)s::text[], %(days)s::date[]) AS latest (supplier, day)
    JOIN dedp.promotion_comparisons USING (supplier, day)
"""

_CHANGES = """
    SELECT
        count(*) FILTER (WHERE change = 'added'),
        count(*) FILTER (WHERE change = 'removed'),
        count(*) FILTER (WHERE change = 'changed')
    FROM dedp.promotion_differences
    WHERE (supplier, day) = (%(supplier)s, %(day)s)
"""

_PRICES = """
    SELECT product_id, product, price_before::float8, price_after::float8
    FROM dedp.promotion_differences
    JOIN dedp.promotions USING (supplier, day, product_id)
    WHERE (supplier, day, change) = (%(supplier)s, %(day)s, 'changed')
    ORDER BY abs(price_after - price_before) / price_before DESC, product_id
    LIMIT %(limit)s
"""

_DISCOUNTS = """
    SELECT product_id, product, price::float8, promotion_price::float8, starts_on, ends_on
    FROM dedp.promotions
    WHERE (supplier, day) = (%(supplier)s, %(day)s)
    ORDER BY (price - promotion_price) / price DESC, price DESC, product_id
    LIMIT %(limit)s
"""


class Delivered(NamedTuple):
    """A delivery. Discounts are in percent. `ready_at`: when it was seen complete, in the version that is loaded."""

    day: date
    products: int
    mean_discount: float
    max_discount: float
    ready_at: datetime
    is_late: bool
    rows_quarantined: int


class Discount(NamedTuple):
    """A product on promotion."""

    product_id: str
    product: str
    price: float
    promotion_price: float
    starts_on: date
    ends_on: date

    @property
    def percent(self) -> float:
        return (self.price - self.promotion_price) / self.price * 100


class PriceChange(NamedTuple):
    """A product whose price differs from that of the previous delivery."""

    product_id: str
    product: str
    before: float
    after: float

    @property
    def percent(self) -> float:
        return (self.after - self.before) / self.before * 100


class Changes(NamedTuple):
    """What has changed since the previous delivery; `previous_day` is None if there is none."""

    previous_day: date | None
    added: int
    removed: int
    changed: int
    prices: tuple[PriceChange, ...]


@dataclass(frozen=True)
class Supplier:
    """What there is of a supplier.

    Attributes:
        name: Its name.
        deliveries: Its last 30 deliveries, oldest first.
        discounts: The products of the latest delivery with the biggest discounts.
        changes: What has changed in the latest delivery. None if it has not been compared yet.
    """

    name: str
    deliveries: tuple[Delivered, ...] = ()
    discounts: tuple[Discount, ...] = ()
    changes: Changes | None = None

    @property
    def latest(self) -> Delivered | None:
        return self.deliveries[-1] if self.deliveries else None

    def on(self, day: date) -> Delivered | None:
        """Its delivery for a day, if it is among the last 30."""
        return self._by_day.get(day)

    @cached_property
    def _by_day(self) -> dict[date, Delivered]:
        return {each.day: each for each in self.deliveries}


@dataclass(frozen=True)
class Figures:
    """All that the dashboard shows.

    Attributes:
        at: The time in UTC.
        version: Changes when anything that is shown does, except by the passing of time within a window.
        day: The day that suppliers deliver for now, or have delivered for last.
        suppliers: All suppliers, in the order of the setting.
    """

    at: datetime
    version: str
    day: date
    suppliers: tuple[Supplier, ...]

    @property
    def calendar(self) -> list[date]:
        """The last days, oldest first."""
        return [self.day - timedelta(days=before) for before in reversed(range(CALENDAR_DAYS))]

    def state(self, supplier: Supplier, day: date) -> str:
        """Whether a supplier has delivered for a day: on time, late, expected, missing, or "none" before its first."""
        delivered = supplier.on(day)
        if delivered:
            return "late" if delivered.is_late else "on time"
        if self.at < closes(day):
            return "expected"
        # Of a supplier that has never delivered, today is missing; the days before are not of interest.
        began = supplier.deliveries[0].day if supplier.deliveries else self.day
        return "missing" if day >= began else "none"


def closes(day: date) -> datetime:
    """When the window of a day closes."""
    return contract.window_closes(day.isoformat()).replace(tzinfo=timezone.utc)


def delivery_day(now: datetime, delivered: Sequence[date]) -> date:
    """The day whose window has opened last.

    Args:
        now: The time in UTC.
        delivered: Days that suppliers have delivered for. If one has already delivered for today, it is today.
    """
    today = now.date()
    opened = today if now.time() >= contract.WINDOW_OPENS else today - timedelta(days=1)
    return today if today in delivered else opened


def read_version(connection: Connection, now: datetime) -> str:
    """Read the version of the figures, without them: a few rows for each supplier. "" without any delivery."""
    with _reading(connection) as cursor:
        return _read_state(cursor, now).version if has_deliveries(cursor) else ""


def read_figures(connection: Connection, now: datetime) -> Figures:
    """Read all that the dashboard shows.

    Args:
        connection: To a database with the tables of the reports. It need not have those of the deliveries yet.
        now: The time in UTC.
    """
    with _reading(connection) as cursor:
        if not has_deliveries(cursor):
            nobody = tuple(Supplier(name) for name in _names())
            return Figures(now, "", delivery_day(now, []), nobody)
        state = _read_state(cursor, now)
        deliveries = _read_deliveries(cursor)
        suppliers = [_supplier(cursor, name, deliveries[name], state.comparisons.get(name)) for name in _names()]
        return Figures(now, state.version, state.day, tuple(suppliers))


@contextmanager
def _reading(connection: Connection) -> Iterator[Cursor]:
    """A transaction that writes nothing, and in which all queries see the same moment."""
    with connection, connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield cursor


def _names() -> list[str]:
    return list(contract.SUPPLIERS.get_partition_keys())


class _State(NamedTuple):
    """The version of the figures, the day that the page is about, and which comparison each latest delivery has."""

    version: str
    day: date
    comparisons: dict[str, tuple[Any, ...]]


def _read_state(cursor: Cursor, now: datetime) -> _State:
    names, today = _names(), now.date()
    cursor.execute(_LOADS, {"suppliers": names, "limit": MOST_DELIVERIES, "today": today})
    loads = cursor.fetchall()
    latest = {supplier: day for supplier, day, _, _ in loads}
    cursor.execute(_COMPARISONS, {"suppliers": list(latest), "days": list(latest.values())})
    comparisons = {supplier: tuple(comparison) for supplier, *comparison in cursor.fetchall()}
    day = delivery_day(now, [today] if any(has_today for _, _, has_today, _ in loads) else [])
    # All that the page shows follows from these, and from the products, which change with the load's number.
    shown = repr((names, day, now < closes(day), loads, sorted(comparisons.items())))
    return _State(hashlib.sha256(shown.encode()).hexdigest()[:16] if loads else "", day, comparisons)


def _read_deliveries(cursor: Cursor) -> dict[str, tuple[Delivered, ...]]:
    """The last deliveries of each supplier, oldest first."""
    found: dict[str, list[Delivered]] = {name: [] for name in _names()}
    cursor.execute(_DELIVERIES, {"suppliers": list(found), "limit": MOST_DELIVERIES})
    for supplier, *delivered in cursor.fetchall():
        found[supplier].append(Delivered(*delivered))
    return {name: tuple(delivered) for name, delivered in found.items()}


def _supplier(
    cursor: Cursor, name: str, deliveries: tuple[Delivered, ...], comparison: tuple[Any, ...] | None
) -> Supplier:
    if not deliveries:
        return Supplier(name)
    latest = {"supplier": name, "day": deliveries[-1].day, "limit": _MOST_PRODUCTS}
    cursor.execute(_DISCOUNTS, latest)
    discounts = tuple(Discount(*row) for row in cursor.fetchall())
    if comparison is None:
        return Supplier(name, deliveries, discounts)
    cursor.execute(_CHANGES, latest)
    ((added, removed, changed),) = cursor.fetchall()
    cursor.execute(_PRICES, latest)
    prices = tuple(PriceChange(*row) for row in cursor.fetchall())
    return Supplier(name, deliveries, discounts, Changes(comparison[0], added, removed, changed, prices))
