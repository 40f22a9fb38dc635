"""A session is ours, whatever server, role and environment say; what can't be had is refused in one line."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets.isolated_sequencer.aggregator.folding import fold
from dedp_assets.isolated_sequencer.aggregator.loading import load_file
from dedp_assets.isolated_sequencer.aggregator.tables import ensure_tables
from dedp_assets.resources.postgres import SESSION_SETTINGS, DatabaseUnavailable, UnusableDatabase, connect

LOAD = "20240101"


def administer(dsn: str, *statements: str) -> None:
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()


def devices_file(folder: Path, *lines: str) -> Path:
    path = folder / "dataset.csv"
    path.write_text("\n".join(["type;full_name;version", *lines, ""]), encoding="utf-8")
    return path


def name_of(dsn: str) -> str:
    return urlsplit(dsn).path.removeprefix("/")


@pytest.fixture
def other_encoding(postgres_server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"other_{request.param.lower()}"
    administer(
        postgres_server,
        f"CREATE DATABASE {name} ENCODING '{request.param}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
    )
    yield urlsplit(postgres_server)._replace(path=f"/{name}").geturl()
    administer(postgres_server, f"DROP DATABASE {name}")


@pytest.mark.parametrize("other_encoding", ["SQL_ASCII", "LATIN1", "WIN1252", "EUC_JP"], indirect=True)
def test_a_database_that_cannot_hold_every_name_is_refused_with_what_to_do(other_encoding: str) -> None:
    name = name_of(other_encoding)
    with pytest.raises(UnusableDatabase) as raised, connect(other_encoding):
        pass
    message = str(raised.value)
    assert f"database {name} has the encoding {name.removeprefix('other_').upper()}" in message
    assert "expected UTF8" in message
    assert f"CREATE DATABASE {name}_utf8 ENCODING 'UTF8' TEMPLATE template0" in message
    assert "DEDP_POSTGRES_DSN" in message
    assert "\n" not in message


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
@pytest.mark.parametrize("by", ["environment", "dsn", "options", "database"])
def test_the_clients_encoding_is_ours(
    dsn: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoding: str, by: str
) -> None:
    if by == "environment":
        monkeypatch.setenv("PGCLIENTENCODING", encoding)
    elif by == "dsn":
        dsn = f"{dsn}&client_encoding={encoding}"
    elif by == "options":
        dsn = f"{dsn}&options=-c%20client_encoding%3D{encoding}"
    else:
        administer(dsn, f"ALTER DATABASE {name_of(dsn)} SET client_encoding = '{encoding}'")
    file = devices_file(tmp_path, "phone;é漢😀;1", "phone;é漢😀")
    with connect(dsn) as connection:
        load_file(connection, LOAD, file)
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT full_name, line FROM dedp.devices_raw JOIN dedp.devices_quarantine USING (load_id)")
            assert cursor.fetchall() == [("é漢😀", "phone;é漢😀")]


HOSTILE = {
    "search_path": "hostile, pg_catalog",
    "default_transaction_isolation": "serializable",
    "statement_timeout": "200",
    "lock_timeout": "1",
    "transaction_timeout": "200",
    "idle_in_transaction_session_timeout": "1",
    "exit_on_error": "on",
    "standard_conforming_strings": "off",
    "synchronous_commit": "off",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "TimeZone": "Asia/Kathmandu",
    "transform_null_equals": "on",
    "client_min_messages": "error",
    "quote_all_identifiers": "on",
}


@pytest.fixture
def hostile_dsn(empty_dsn: str) -> str:
    """A database whose settings are all unlike the usual ones, with functions that stand in for PostgreSQL's own."""
    name = name_of(empty_dsn)
    connection = psycopg2.connect(empty_dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE SCHEMA hostile; CREATE FUNCTION hostile.hashtext(text) RETURNS int LANGUAGE sql AS 'SELECT 1/0';"
            "CREATE TABLE hostile.duplicates (mine text); CREATE TABLE hostile.pg_class (mine text)"
        )
        cursor.execute("SELECT name FROM pg_settings WHERE name = ANY(%s)", [list(HOSTILE)])
        for (known,) in cursor.fetchall():
            value = HOSTILE[known]
            cursor.execute(f"ALTER DATABASE {name} SET {known} = {value if known == 'search_path' else repr(value)}")
    connection.close()
    return empty_dsn


def test_a_load_is_right_whatever_the_database_has_set(hostile_dsn: str, tmp_path: Path) -> None:
    with connect(hostile_dsn) as connection:
        ensure_tables(connection)
        rows = [f"phone;back\\slash {n};'{n}" for n in range(20_000)]
        report = load_file(connection, LOAD, devices_file(tmp_path, *rows, "bad", rows[0]))
        assert (report.rows_loaded, report.reasons) == (20_000, {"missing field": 1, "duplicate": 1})
        fold(connection, LOAD)
        load_file(connection, LOAD, devices_file(tmp_path, *rows[:10], rows[0], "bad\\"))
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM dedp.devices_aggregates")
            assert cursor.fetchone() == (10,)
            cursor.execute("SELECT line, raw_line FROM dedp.devices_quarantine ORDER BY line_number")
            assert [(line, bytes(raw)) for line, raw in cursor.fetchall()] == [
                (rows[0], rows[0].encode()),
                ("bad\\", b"bad\\"),
            ]


def test_the_session_has_our_settings_after_a_rollback_too(hostile_dsn: str) -> None:
    with connect(hostile_dsn) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        connection.rollback()
        cursor.execute(
            "SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY(%s)", [list(SESSION_SETTINGS)]
        )
        found = dict(cursor.fetchall())
        assert found == {name: value for name, value in SESSION_SETTINGS.items() if name in found}
        assert found.keys() >= SESSION_SETTINGS.keys() - {"transaction_timeout"}
        cursor.execute("SHOW transaction_isolation")
        assert cursor.fetchone() == ("read committed",)
        cursor.execute("SHOW synchronous_commit")
        assert cursor.fetchone() == ("on",)


@pytest.mark.parametrize("promise", ["remote_apply", "local", "on"])
def test_a_stronger_promise_of_what_a_commit_means_stays(dsn: str, promise: str) -> None:
    administer(dsn, f"ALTER DATABASE {name_of(dsn)} SET synchronous_commit = '{promise}'")
    with connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        assert cursor.fetchone() == (promise,)


def test_a_session_without_triggers_is_refused(dsn: str) -> None:
    administer(dsn, f"ALTER DATABASE {name_of(dsn)} SET session_replication_role = 'replica'")
    with (
        pytest.raises(UnusableDatabase, match="runs no triggers, because session_replication_role is 'replica'"),
        connect(dsn),
    ):
        pass


@pytest.mark.parametrize(
    "malformed", ["host", "postgresql://[::1/x", "postgresql://a@b/c?nonsense=1", "host=a nonsense=1"]
)
def test_a_malformed_dsn_is_one_line_with_what_is_expected(malformed: str) -> None:
    with pytest.raises(UnusableDatabase) as raised, connect(malformed):
        pass
    assert str(raised.value).startswith("DEDP_POSTGRES_DSN is malformed: ")
    assert "expected postgresql://user@host:port/database" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_server_that_does_not_answer_may_answer_later_and_is_one_line_without_the_password() -> None:
    with pytest.raises(DatabaseUnavailable) as raised, connect("postgresql://dedp:secret@127.0.0.1:1/dedp"):
        pass
    assert str(raised.value).startswith("PostgreSQL does not answer: ")
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


BREAKS = {
    "the server ends the connection": (
        "SELECT pg_terminate_backend(pg_backend_pid())",
        "PostgreSQL does not answer: (server closed the connection|terminating connection)",
    ),
    "the server takes no changes": (
        "SET TRANSACTION READ ONLY; CREATE TABLE public.t ()",
        "accepts no changes at the moment: cannot execute CREATE TABLE .* is DEDP_POSTGRES_DSN the primary server",
    ),
    "the query is cancelled": (
        "SELECT pg_cancel_backend(pg_backend_pid())",
        "PostgreSQL could not do its work: canceling statement",
    ),
}


@pytest.mark.parametrize(("statement", "told"), BREAKS.values(), ids=BREAKS)
@pytest.mark.parametrize("in_transaction", [True, False])
def test_what_may_pass_in_the_middle_of_work_is_one_error_of_ours(
    dsn: str, statement: str, told: str, in_transaction: bool
) -> None:
    with (
        pytest.raises(DatabaseUnavailable, match=told) as raised,
        connect(dsn) as connection,
        connection if in_transaction else nullcontext(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)
    assert "\n" not in str(raised.value)


def test_a_connection_that_was_lost_before_is_one_error_of_ours(dsn: str) -> None:
    def use_after_its_end(connection: Connection) -> None:
        connection.close()
        connection.cursor()

    with pytest.raises(DatabaseUnavailable, match="connection already closed"), connect(dsn) as connection:
        use_after_its_end(connection)


def test_wrong_sql_is_a_fault_of_ours_and_keeps_its_traceback(dsn: str) -> None:
    with pytest.raises(psycopg2.ProgrammingError), connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT nonsense")


def test_our_settings_cost_one_query(dsn: str, database: Connection) -> None:
    with connect(dsn) as connection, database, database.cursor() as cursor:
        cursor.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", [connection.info.backend_pid])
        ((last,),) = cursor.fetchall()
    assert "current_database" in last
