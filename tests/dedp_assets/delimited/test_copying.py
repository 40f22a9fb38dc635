"""A delimited file goes into any table line by line, whatever its columns, its delimiter and the table's key are."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from dedp_assets.delimited.copying import CopyReport, copy_lines, opened
from dedp_assets.delimited.format import Column, Format
from dedp_assets.delimited.header import UnusableFile
from dedp_assets.delimited.quarantine import Quarantine, setting_aside
from tests.dedp_assets.delimited.dirty_files import dirty_files, physical_lines, values_of

ORDERS = Format(",", (Column("order_no", 8), Column("Product"), Column("price", 10), Column("note", 20)))
HEADER = b"order_no,Product,price,note\n"

TABLES = """
    CREATE SCHEMA shop;
    CREATE TABLE shop.orders (
        client text, file text, line bigint, order_no varchar(8), "Product" text, price varchar(10), note varchar(20),
        arrived timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (client, file, line)
    );
    CREATE TABLE shop.set_aside (
        client text, file text, line_number bigint, reason text NOT NULL, detail text NOT NULL, line text NOT NULL,
        raw_line bytea NOT NULL, PRIMARY KEY (client, file, line_number)
    );
"""


@pytest.fixture
def shop(empty_dsn: str) -> Iterator[Connection]:
    """A connection to a database that has nothing but tables for ORDERS."""
    connection = psycopg2.connect(empty_dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute(TABLES)
    yield connection
    connection.close()


def replace_file(shop: Connection, client: str, file: str, content: bytes) -> tuple[CopyReport, Quarantine]:
    """Make the rows of one file in shop.orders exactly what `content` holds."""
    key = {"client": client, "file": file}
    with (
        shop,
        shop.cursor() as cursor,
        setting_aside(sql.Identifier("shop", "set_aside"), key) as quarantine,
    ):
        cursor.execute("DELETE FROM shop.orders WHERE (client, file) = (%s, %s)", [client, file])
        table = sql.Identifier("shop", "orders")
        copied = copy_lines(cursor, io.BytesIO(content), ORDERS, table, quarantine, key=key, line_number="line")
        quarantine.replace(cursor)
    return copied, quarantine


def query(connection: Connection, statement: str, parameters: list[str] | None = None) -> list[Any]:
    with connection, connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall()


def rows_of(shop: Connection, client: str, file: str) -> dict[int, tuple[str, ...]]:
    statement = 'SELECT line, order_no, "Product", price, note FROM shop.orders WHERE (client, file) = (%s, %s)'
    return {line: tuple(values) for line, *values in query(shop, statement, [client, file])}


def set_aside_of(shop: Connection, client: str, file: str) -> dict[int, tuple[str, str, bytes]]:
    statement = "SELECT line_number, reason, detail, raw_line FROM shop.set_aside WHERE (client, file) = (%s, %s)"
    return {
        number: (reason, detail, bytes(raw)) for number, reason, detail, raw in query(shop, statement, [client, file])
    }


DIRTY = b"\r\n".join(
    [
        HEADER.rstrip(),
        "1,tea 漢😀,2.50,a;b".encode(),
        b'2,"cups, blue",10,"so-called ""fine"""',
        b"3,tea,2.50",
        b"4,tea,2.50,x,y",
        b"123456789,tea,2.50,x",
        b"6,,2.50,x",
        b"ORDER_NO,product,PRICE,note",
        b"8,t\xe9,2.50,x",
        b"",
        b"\\.",
        b'11,"tea,2.50,x',
        b"12," + b"long " * 1000 + b",2.50,x",
        b"\xef\xbb\xbf13,tea,2.50,x",
        b"14,tea,2.50,x",
    ]
)


def test_every_line_of_a_file_with_other_columns_is_a_row_under_its_number_or_is_set_aside(shop: Connection) -> None:
    copied, quarantine = replace_file(shop, 'Kim, & "Sons"', "new.csv", DIRTY)
    assert rows_of(shop, 'Kim, & "Sons"', "new.csv") == {
        2: ("1", "tea 漢😀", "2.50", "a;b"),
        3: ("2", "cups, blue", "10", 'so-called "fine"'),
        13: ("12", "long " * 1000, "2.50", "x"),
        14: ("13", "tea", "2.50", "x"),
        15: ("14", "tea", "2.50", "x"),
    }
    assert set_aside_of(shop, 'Kim, & "Sons"', "new.csv") == {
        4: ("missing field", "3 of 4 fields", b"3,tea,2.50"),
        5: ("extra field", "5 of 4 fields", b"4,tea,2.50,x,y"),
        6: ("value too long", "order_no: 9 characters, 8 fit", b"123456789,tea,2.50,x"),
        7: ("missing value", "Product", b"6,,2.50,x"),
        8: ("repeated header", "were files joined?", b"ORDER_NO,product,PRICE,note"),
        9: ("not UTF-8", "byte 0xe9 at position 4", b"8,t\xe9,2.50,x"),
        10: ("empty line", "", b""),
        11: ("missing field", "1 of 4 fields", b"\\."),
        12: ("unclosed quote", "one line is one row", b'11,"tea,2.50,x'),
    }
    assert copied == CopyReport(5, hashlib.sha256(DIRTY).hexdigest(), len(DIRTY))
    assert quarantine.lines == 9
    assert quarantine.reasons["missing field"] == 2


def test_a_file_that_comes_again_replaces_its_own_rows_and_quarantine_and_no_others(shop: Connection) -> None:
    replace_file(shop, "one", "a.csv", DIRTY)
    replace_file(shop, "one", "b.csv", HEADER + b"1,tea,1,x\nbad\n")
    replace_file(shop, "two", "a.csv", HEADER + b"bad\n2,tea,2,x\n")
    replace_file(shop, "one", "a.csv", HEADER + b"worse\n3,tea,3,x\n")
    assert rows_of(shop, "one", "a.csv") == {3: ("3", "tea", "3", "x")}
    assert set_aside_of(shop, "one", "a.csv") == {2: ("missing field", "1 of 4 fields", b"worse")}
    assert rows_of(shop, "one", "b.csv") == {2: ("1", "tea", "1", "x")}
    assert set_aside_of(shop, "one", "b.csv") == {3: ("missing field", "1 of 4 fields", b"bad")}
    assert rows_of(shop, "two", "a.csv") == {3: ("2", "tea", "2", "x")}
    assert set_aside_of(shop, "two", "a.csv") == {2: ("missing field", "1 of 4 fields", b"bad")}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "is empty"),
        (HEADER, "has a header and no lines"),
        (HEADER + b"bad\n", "of 1 read (missing field 1), the first is line 2, 'bad': missing field, 1 of 4 fields"),
        (HEADER.replace(b",", b";") + b"1;tea;2;x\n", "is delimited by ';', not by ','"),
        (b"order_no,price,note\n", "the header without Product; expected the header order_no,Product,price,note"),
        (b"PK\x03\x04 xl/workbook.xml", "save its sheet as CSV, in UTF-8 and delimited by ','"),
    ],
)
def test_an_unusable_file_leaves_the_earlier_rows_and_quarantine(shop: Connection, content: bytes, found: str) -> None:
    replace_file(shop, "one", "a.csv", DIRTY)
    before = rows_of(shop, "one", "a.csv"), set_aside_of(shop, "one", "a.csv")
    with pytest.raises(UnusableFile) as raised:
        replace_file(shop, "one", "a.csv", content)
    assert found in str(raised.value)
    assert (rows_of(shop, "one", "a.csv"), set_aside_of(shop, "one", "a.csv")) == before


@pytest.mark.parametrize(
    "name", ["", " ", '"', "a,b.csv", "a\nb.csv", "a\r\nb.csv", "\\.", "a\n\\.\nb", "\\N", "NULL", "漢😀.csv"]
)
def test_a_key_may_have_any_characters(shop: Connection, name: str) -> None:
    replace_file(shop, name, name, HEADER + b"1,tea,1,x\nbad\n2,tea,2,x\n")
    assert rows_of(shop, name, name).keys() == {2, 4}
    assert set_aside_of(shop, name, name).keys() == {3}


def test_rows_that_the_table_drops_silently_are_an_error(shop: Connection) -> None:
    with shop, shop.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION drop_tea() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN IF NEW.\"Product\" = 'tea' THEN RETURN NULL; END IF; RETURN NEW; END $$;"
            "CREATE TRIGGER drop_tea BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION drop_tea()"
        )
    with pytest.raises(AssertionError, match="1 rows of 2 lines"):
        replace_file(shop, "one", "a.csv", HEADER + b"1,tea,1,x\n2,cup,2,x\n")
    assert rows_of(shop, "one", "a.csv") == {}


def test_columns_that_are_the_same_in_every_row_need_no_line_numbers_beside_them(shop: Connection) -> None:
    with shop, shop.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE latest (supplier text, a text, b text)")
        with setting_aside(sql.Identifier("shop", "set_aside"), {"client": "x", "file": "y"}) as quarantine:
            copy_lines(
                cursor,
                io.BytesIO(b"a|b\n1|2\n3|4\n"),
                Format("|", (Column("a"), Column("b"))),
                sql.Identifier("latest"),
                quarantine,
                key={"supplier": 'the "best"|one'},
            )
    assert query(shop, "TABLE latest") == [('the "best"|one', "1", "2"), ('the "best"|one', "3", "4")]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=dirty_files(), delimiter=st.sampled_from(",\t|^]- ."))
def test_the_database_reads_the_values_that_stand_in_the_lines_whatever_delimits_them(
    shop: Connection, body: bytes, delimiter: str
) -> None:
    body = b"a;b;c\n".replace(b";", delimiter.encode()) + body.replace(b";", delimiter.encode())
    format = Format(delimiter, (Column("type", 15), Column("full_name", 50), Column("version", 40)))
    with shop, shop.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE rows (n bigint, type text, full_name text, version text) ON COMMIT DROP")
        with setting_aside(sql.Identifier("shop", "set_aside"), {"client": "x", "file": "y"}) as quarantine:
            stream = io.BytesIO(format.header.encode() + b"\n" + body)
            copied = copy_lines(cursor, stream, format, sql.Identifier("rows"), quarantine, line_number="n")
            quarantine.replace(cursor)
        cursor.execute("TABLE rows")
        rows = {number: tuple(values) for number, *values in cursor.fetchall()}
    expected = physical_lines(body)
    assert rows == {number: values for number, raw in expected.items() if (values := values_of(raw, delimiter))}
    assert copied.lines == len(rows)
    aside = set_aside_of(shop, "x", "y")
    assert {number: raw for number, (*_, raw) in aside.items()} == {
        number: raw for number, raw in expected.items() if number not in rows
    }


def test_a_file_that_can_not_be_opened_is_unusable(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match=r"^does not exist; have it sent again$"):
        opened(tmp_path / "missing.csv", "have it sent again")
    with pytest.raises(UnusableFile, match=r"^can't be read: Is a directory$"):
        opened(tmp_path, "have it sent again")
