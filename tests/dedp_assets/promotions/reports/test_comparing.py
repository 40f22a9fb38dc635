"""Differences against the previous delivery there is, in whatever order deliveries come."""

import threading
from datetime import date

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dedp_assets.promotions.reports.comparing import Loads, Standing, compare, days_to_compare
from tests.promotion_tables import Deliveries

FIRST, SECOND, THIRD = "2024-01-05", "2024-01-09", "2024-01-12"


def day(text: str) -> date:
    return date.fromisoformat(text)


def compare_days(deliveries: Deliveries, *days: str, supplier: str = "supermarket1") -> list[str]:
    """Compare days; returns those whose differences were written."""
    done = compare(deliveries.connection, supplier, [day(each) for each in days])
    return [each.day.isoformat() for each in done]


def recount(deliveries: Deliveries) -> list[tuple[object, ...]]:
    """What the differences should be, from all deliveries there are."""
    loaded: dict[tuple[str, str], dict[str, float]] = {}
    for supplier, on in deliveries.query("SELECT supplier, day::text FROM dedp.promotion_deliveries"):
        loaded[str(supplier), str(on)] = {}
    for supplier, on, product, price in deliveries.query(
        "SELECT supplier, day::text, product_id, price::float8 FROM dedp.promotions"
    ):
        loaded[str(supplier), str(on)][str(product)] = float(str(price))
    found: list[tuple[object, ...]] = []
    for supplier, on in sorted(loaded):
        earlier = [other for name, other in loaded if name == supplier and other < on]
        if not earlier:
            continue
        before, after = loaded[supplier, max(earlier)], loaded[supplier, on]
        for product in sorted(before.keys() | after.keys()):
            prices = before.get(product), after.get(product)
            if prices[0] != prices[1]:
                change = "added" if prices[0] is None else "removed" if prices[1] is None else "changed"
                found.append((supplier, on, max(earlier), product, change, *prices))
    return found


def test_a_delivery_is_compared_with_the_previous_one_there_is(deliveries: Deliveries) -> None:
    deliveries.load("supermarket1", FIRST, {"a": 1, "b": 2, "c": 3})
    deliveries.load("supermarket2", SECOND, {"a": 100})
    deliveries.load("supermarket1", THIRD, {"b": 2, "c": 4, "d": 5})
    assert compare_days(deliveries, THIRD) == [THIRD]
    assert deliveries.differences() == [
        ("supermarket1", THIRD, FIRST, "a", "removed", 1, None),
        ("supermarket1", THIRD, FIRST, "c", "changed", 3, 4),
        ("supermarket1", THIRD, FIRST, "d", "added", None, 5),
    ]


def test_a_supplier_s_first_delivery_has_no_differences_and_is_recorded_as_compared(deliveries: Deliveries) -> None:
    number = deliveries.load("supermarket1", FIRST, {"a": 1})
    assert compare_days(deliveries, FIRST) == [FIRST]
    assert deliveries.differences() == []
    recorded = deliveries.query(
        "SELECT supplier, day::text, load_number, previous_day, previous_load_number FROM dedp.promotion_comparisons"
    )
    assert recorded == [("supermarket1", FIRST, number, None, None)]


def test_a_late_delivery_also_changes_what_the_one_after_it_is_compared_with(deliveries: Deliveries) -> None:
    deliveries.load("supermarket1", FIRST, {"a": 1})
    deliveries.load("supermarket1", THIRD, {"a": 3})
    compare_days(deliveries, FIRST, THIRD)
    deliveries.load("supermarket1", SECOND, {"a": 2})
    assert compare_days(deliveries, SECOND) == [SECOND, THIRD]
    assert deliveries.differences() == recount(deliveries)


def test_a_new_version_with_fewer_products_leaves_no_differences_of_the_old_one(deliveries: Deliveries) -> None:
    deliveries.load("supermarket1", FIRST, {"a": 1})
    deliveries.load("supermarket1", SECOND, {"a": 2, "b": 1, "c": 1})
    compare_days(deliveries, FIRST, SECOND)
    deliveries.load("supermarket1", SECOND, {"a": 1})
    compare_days(deliveries, SECOND)
    assert deliveries.differences() == []


def test_a_day_whose_delivery_is_gone_loses_its_differences_and_is_nobody_s_previous_one(
    deliveries: Deliveries,
) -> None:
    for on, price in ((FIRST, 1), (SECOND, 2), (THIRD, 3)):
        deliveries.load("supermarket1", on, {"a": price})
    compare_days(deliveries, FIRST, SECOND, THIRD)
    deliveries.execute("DELETE FROM dedp.promotions WHERE day = '2024-01-09'")
    deliveries.execute("DELETE FROM dedp.promotion_deliveries WHERE day = '2024-01-09'")
    assert compare_days(deliveries, SECOND) == [THIRD]
    assert deliveries.differences() == [("supermarket1", THIRD, FIRST, "a", "changed", 1, 3)]


LOADS = Loads(5, date(2024, 1, 1), 3)


@pytest.mark.parametrize(
    ("now", "reflected", "is_asked", "is_compared"),
    [
        (LOADS, LOADS, True, True),  # somebody wants it again: the logic is new
        (LOADS, LOADS, False, False),
        (LOADS, LOADS._replace(previous_load_number=2), False, True),
        (LOADS, None, False, True),
        (None, LOADS, False, True),
        (None, None, False, False),
    ],
)
def test_a_neighbour_is_compared_again_if_its_differences_reflect_other_loads(
    now: Loads | None, reflected: Loads | None, is_asked: bool, is_compared: bool
) -> None:
    the_day = date(2024, 1, 2)
    standing = Standing(the_day, now, reflected)
    assert days_to_compare([the_day] if is_asked else [], [standing]) == ([the_day] if is_compared else [])


PRODUCTS = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 3), max_size=4)
STEPS = st.lists(
    st.tuples(st.sampled_from(["supermarket1", "supermarket2"]), st.integers(1, 6), PRODUCTS), min_size=1, max_size=8
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(loads=STEPS)
def test_after_any_sequence_of_deliveries_the_differences_equal_a_recount(
    deliveries: Deliveries, loads: list[tuple[str, int, dict[str, float]]]
) -> None:
    deliveries.execute(
        "TRUNCATE dedp.promotions, dedp.promotion_deliveries, dedp.promotion_metrics, dedp.promotion_comparisons, "
        "dedp.promotion_differences"
    )
    for supplier, number, products in loads:
        deliveries.load(supplier, f"2024-01-0{number}", products)
        compare_days(deliveries, f"2024-01-0{number}", supplier=supplier)
        assert deliveries.differences() == recount(deliveries)


def test_when_runs_meet_the_differences_are_those_of_the_loads_there_are_at_the_end(deliveries: Deliveries) -> None:
    """Each thread loads and compares its own day; neighbours are compared by several of them at once."""
    days = [f"2024-01-{number:02}" for number in range(1, 9)]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        own = Deliveries(deliveries.dsn, is_new=False)
        try:
            for price in range(3):
                own.load("supermarket1", days[number], {"a": price + 1, f"only {number}": price + 1})
                compare_days(own, days[number])
        except BaseException as error:
            failures.append(error)
        finally:
            own.connection.close()

    threads = [threading.Thread(target=work, args=[number]) for number in (4, 1, 6, 2, 0, 5, 3, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    compared = deliveries.query(
        "SELECT count(*) FROM dedp.promotion_comparisons "
        "JOIN dedp.promotion_deliveries USING (supplier, day, load_number)"
    )
    assert compared == [(len(days),)]
    assert deliveries.differences() == recount(deliveries)


def test_a_load_that_commits_while_its_day_is_compared_is_compared_whole_or_not_at_all(deliveries: Deliveries) -> None:
    deliveries.load("supermarket1", FIRST, {"a": 1})
    deliveries.load("supermarket1", SECOND, {"a": 2})
    other = psycopg2.connect(deliveries.dsn)
    with other.cursor() as cursor:  # a load that has written, and not committed
        cursor.execute("UPDATE dedp.promotions SET price = 9, promotion_price = 9 WHERE day = '2024-01-09'")
        cursor.execute("UPDATE dedp.promotion_deliveries SET load_number = 99 WHERE day = '2024-01-09'")
    compare_days(deliveries, SECOND)
    assert deliveries.differences()[0][-1] == 2
    other.commit()
    other.close()
    compare_days(deliveries, SECOND)
    assert deliveries.differences()[0][-1] == 9
