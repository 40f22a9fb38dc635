"""A delivery in the tables: whole or not at all, with an account of every line."""

import re
import threading
from datetime import datetime

import psycopg2
import pytest

from dedp_assets.landing.delivery_copies import DamagedCopy
from dedp_assets.promotions.contract import Delivery
from dedp_assets.promotions.deliveries.audits import lines_accounted_for, missing_deliveries
from dedp_assets.promotions.deliveries.loading import RefusedDelivery, load_delivery
from dedp_assets.promotions.deliveries.measuring import NotLoaded, measure_delivery
from dedp_assets.promotions.deliveries.tables import loaded_versions, loads_since
from tests.dedp_assets.promotions.deliveries.shop import HEADER, NORTH, Shop, line, text

SOUTH = Delivery("supermarket2", "2024-01-05")


def test_every_line_is_a_row_or_in_quarantine_with_its_reason_and_its_bytes(shop: Shop) -> None:
    load = shop.load(
        a=text(line("milk"), line("tea", "0"), "short,line", line("oil")).encode()
        + b"\xff,x,1,1,2024-01-05,2024-01-05",
        b=text('bread,"a, b",3,2,2024-01-05,2024-01-05', line("rice", "1", "2")),
    )
    assert load[:6] == (load.version, 1, 2, 7, 3, 4)
    assert shop.products() == {"bread": "2", "milk": "1.50", "oil": "1.50"}
    assert shop.quarantine() == [
        ("data-a.csv", 3, "price not above zero"),
        ("data-a.csv", 4, "missing field"),
        ("data-a.csv", 6, "not UTF-8"),
        ("data-b.csv", 3, "promotion above price"),
    ]
    assert shop.quarantine("raw_line")[2][0].tobytes().startswith(b"\xff,x")
    assert lines_accounted_for(shop.connection, [NORTH]).passed


def test_of_a_product_that_stands_several_times_the_last_line_by_file_and_number_counts(shop: Shop) -> None:
    files = {
        "10": text(line("milk", promotion="1"), line("milk", promotion="2"), line("tea", promotion="1")),
        "2": text(line("milk", promotion="0"), line("oil"), line("milk", promotion="0.4"), "\ufeff" + line("oil")),
        "1": text(line("tea", promotion="0.5")),
    }
    load = shop.load(NORTH, again=False, **files)
    assert shop.products() == {"milk": "0.4", "oil": "1.50", "tea": "1"}, "data-2 comes after data-10"
    assert shop.quarantine() == [
        *(("data-1.csv", 2, "duplicate"), ("data-10.csv", 2, "duplicate"), ("data-10.csv", 3, "duplicate")),
        *(("data-2.csv", 2, "duplicate"), ("data-2.csv", 3, "duplicate")),
    ]
    assert load.reasons == {"duplicate": 5}
    assert shop.quarantine("line")[1][0] == line("milk", promotion="1")
    assert lines_accounted_for(shop.connection, [NORTH]).passed


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"", [(1, "unusable file", "")]),
        (HEADER.encode() + b"\n", [(1, "unusable file", HEADER)]),
        (b"id;name\r\n1;2\r\n", [(1, "unusable file", "id;name"), (2, "unusable file", "1;2")]),
        (text("short").encode(), [(2, "missing field", "short")]),
        (b"PK\x03\x04\x00binary", [(1, "unusable file", "PK\x03\x04\\x00binary")]),
    ],
)
def test_a_file_that_is_none_of_promotions_is_set_aside_and_the_others_load(
    shop: Shop, content: bytes, rows: list[tuple[int, str, str]]
) -> None:
    load = shop.load(a=content, b=text(line("milk")))
    assert shop.products() == {"milk": "1.50"}
    assert shop.quarantine("line_number, reason, line") == rows
    assert (load.lines_read, load.rows_loaded, load.rows_quarantined) == (1 + len(rows), 1, len(rows))
    assert lines_accounted_for(shop.connection, [NORTH]).passed


def test_a_delivery_without_a_usable_line_is_refused_with_its_counts_and_the_earlier_version_stays(
    shop: Shop,
) -> None:
    first = shop.load(a=text(line("milk"), "bad"))
    with pytest.raises(RefusedDelivery, match=r"no usable line; of 3 read .* before stays") as refused:
        shop.load(a=text("bad", line("tea", "x")), b="<html>")
    assert refused.value.reasons == {"missing field": 1, "not a number": 1, "unusable file": 1}
    assert len(refused.value.first_lines) == 3
    assert shop.products() == {"milk": "1.50"}
    assert shop.quarantine() == [("data-a.csv", 3, "missing field")]
    assert loaded_versions(shop.connection, [NORTH, SOUTH]) == {NORTH: first.version}
    assert refused.value.version != first.version


def test_another_version_takes_the_place_of_the_old_one_under_a_higher_number(shop: Shop) -> None:
    shop.load(a=text(line("milk"), "bad"), b=text(line("tea")))
    second = shop.load(b=text(line("oil")))
    assert shop.products() == {"oil": "1.50"}
    assert shop.quarantine() == []
    assert (second.load_number, second.is_new) == (2, True)


def test_the_same_version_again_changes_nothing_unless_it_is_asked_for(shop: Shop) -> None:
    first = shop.load(a=text(line("milk"), "bad"))
    second = shop.load(a=text(line("milk"), "bad"))
    assert second == first._replace(is_new=False, reasons={})
    third = shop.load(again=True)
    assert third == first._replace(load_number=2)
    assert shop.products() == {"milk": "1.50"}


def test_a_file_and_a_product_of_one_supplier_have_nothing_to_do_with_those_of_another(shop: Shop) -> None:
    shop.load(NORTH, a=text(line("milk")))
    shop.load(SOUTH, a=text(line("milk", promotion="1")))
    shop.load(NORTH, a=text(line("tea")))
    assert shop.query("SELECT supplier, product_id FROM dedp.promotions ORDER BY 1") == [
        ("supermarket1", "tea"),
        ("supermarket2", "milk"),
    ]


def test_a_copy_that_is_missing_or_damaged_is_named_and_what_is_loaded_stays(shop: Shop) -> None:
    with pytest.raises(DamagedCopy, match=r"there is no copy of supermarket1/2024-01-05 .*materialize promotions/raw"):
        shop.load()
    shop.load(a=text(line("milk")))
    folder = shop.deliver(a=text(line("tea")))
    (content,) = folder.glob("*.csv")
    whole = content.read_text()
    content.write_text(whole + line("more") + "\n")
    with pytest.raises(DamagedCopy, match="has another content than its name says"):
        shop.load()
    content.unlink()
    with pytest.raises(DamagedCopy, match="is damaged: a content does not exist"):
        shop.load()
    assert shop.products() == {"milk": "1.50"}


def test_two_runs_of_a_delivery_take_turns_and_the_second_finds_it_loaded(shop: Shop, dsn: str) -> None:
    folder = shop.deliver(a=text(*(line(f"product {number}") for number in range(2000))))
    loads = []

    def load() -> None:
        connection = psycopg2.connect(dsn)
        loads.append(load_delivery(connection, NORTH, folder))
        connection.close()

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(load.is_new for load in loads) == [False, False, True]
    assert {load.load_number for load in loads} == {1}
    assert shop.query("SELECT count(*) FROM dedp.promotions") == [(2000,)]


def test_numbers_of_loads_become_visible_in_their_order(shop: Shop, dsn: str) -> None:
    """A reader that has seen a number has seen all below it: the next load waits for the number until the commit."""
    deliveries = [Delivery("supermarket1", f"2024-01-{day:02}") for day in range(1, 13)]
    folders = [shop.deliver(delivery, a=text(line())) for delivery in deliveries]
    seen: list[list[int]] = []
    done = threading.Event()

    def read() -> None:
        connection = psycopg2.connect(dsn)
        while not done.is_set():
            with connection, connection.cursor() as cursor:
                cursor.execute("SELECT load_number FROM dedp.promotion_deliveries ORDER BY 1")
                seen.append([number for (number,) in cursor.fetchall()])
        connection.close()

    def load(mine: slice) -> None:
        connection = psycopg2.connect(dsn)
        for delivery, folder in zip(deliveries[mine], folders[mine], strict=True):
            load_delivery(connection, delivery, folder)
        connection.close()

    reader = threading.Thread(target=read)
    loaders = [threading.Thread(target=load, args=[slice(begin, None, 4)]) for begin in range(4)]
    reader.start()
    for thread in loaders:
        thread.start()
    for thread in loaders:
        thread.join()
    done.set()
    reader.join()
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in seen)


def test_metrics_are_those_of_the_load_that_is_there(shop: Shop) -> None:
    with pytest.raises(NotLoaded, match=re.escape("materialize promotions/cleaned first")):
        measure_delivery(shop.connection, NORTH)
    shop.load(a=text(line("a", "3", "2"), line("b", "3", "3"), line("c", "4", "0")))
    metrics = measure_delivery(shop.connection, NORTH)
    assert (metrics.load_number, metrics.products) == (1, 3)
    assert (str(metrics.mean_discount), str(metrics.max_discount)) == ("44.44", "100.00")
    assert measure_delivery(shop.connection, NORTH) == metrics
    shop.load(a=text(line("a", "4", "3")))
    (behind,) = loads_since(shop.connection, 1)
    assert (behind.load_number, behind.is_measured) == (2, False)
    assert str(measure_delivery(shop.connection, NORTH).mean_discount) == "25.00"
    assert loads_since(shop.connection, 2) == []
    assert len(loads_since(shop.connection, 7)) == 1, "of a database that was restored"


def test_the_check_finds_rows_that_somebody_deleted(shop: Shop) -> None:
    shop.load(a=text(line("milk"), line("tea")))
    shop.query("WITH gone AS (DELETE FROM dedp.promotions WHERE product_id = 'tea' RETURNING 1) SELECT 1")
    assert not lines_accounted_for(shop.connection, [NORTH]).passed


def test_missing_deliveries_are_those_of_closed_windows_since_the_first_one(shop: Shop) -> None:
    def at(time: str) -> datetime:
        return datetime.fromisoformat(time)

    suppliers = ["supermarket1", "supermarket2"]
    assert missing_deliveries(shop.connection, suppliers, at("2024-01-07 03:00")) == []
    shop.load(NORTH, a=text(line()))
    assert missing_deliveries(shop.connection, suppliers, at("2024-01-06 01:00")) == []
    assert missing_deliveries(shop.connection, suppliers, at("2024-01-07 03:00")) == [
        SOUTH,
        Delivery("supermarket1", "2024-01-06"),
        Delivery("supermarket2", "2024-01-06"),
    ]
