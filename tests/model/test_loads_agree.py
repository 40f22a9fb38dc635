"""Whatever is loaded, in whichever order and however it fails, file, accounts, rows, quarantine and totals agree.

    MODEL_LOADS=2000 python -m pytest tests/model/test_loads_agree.py

plays that many histories (some without it). What a file gives is known from how it was made; nothing reads it but the
code that is tested.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import connection as Connection

from dedp_assets.delimited.header import UnusableFile
from dedp_assets.isolated_sequencer.aggregator import audits
from dedp_assets.isolated_sequencer.aggregator.folding import LoadNotFound, fold
from dedp_assets.isolated_sequencer.aggregator.loading import load_file
from dedp_assets.resources.postgres import DatabaseUnavailable, connect

_HISTORIES = int(os.environ.get("MODEL_LOADS", "20"))

LOADS = ["20240101", "20240102", "20240103"]
HEADER = b"type;full_name;version"
MARK = "\ufeff".encode()

Row = tuple[str, str, str]


class Line(NamedTuple):
    """A line of a file, and the row that it is, if it is one."""

    raw: bytes
    row: Row | None


class File(NamedTuple):
    """A file, and what loading it gives: rows, and lines to set aside by number."""

    content: bytes
    lines: int
    rows: frozenset[Row]
    set_aside: dict[int, bytes]


def file_of(lines: list[Line], line_end: bytes, mark: bytes, header: bytes = HEADER) -> File:
    rows: set[Row] = set()
    set_aside = {}
    for number, line in enumerate(lines, start=2):
        if line.row is None or line.row in rows:
            set_aside[number] = line.raw
        else:
            rows.add(line.row)
    content = mark + line_end.join([header, *(line.raw for line in lines), b""])
    if header != HEADER:
        rows = set()
    return File(content, len(lines), frozenset(rows), set_aside)


# Few devices, so that loads share them.
_rows = st.tuples(st.sampled_from(["phone", "tv"]), st.sampled_from(["Nova", "Lux 漢😀", "a;b"]), st.sampled_from("12"))
_row_lines = st.builds(
    lambda row, mark, quoted: Line(
        mark + ";".join(f'"{value}"' if quoted or ";" in value else value for value in row).encode(), row
    ),
    _rows,
    st.sampled_from([b"", b"", b"", MARK]),
    st.booleans(),
)
_bad_lines = st.sampled_from(
    [
        b"{........",
        b"",
        b"phone;Nova",
        b"phone;;1",
        b"\xff;b;1",
        b"a;\0;1",
        b'a;"b;1',
        b"a;b\rc;1",
        b"a;b" + MARK + b";1",
    ]
    + [HEADER, MARK + HEADER, b'"type";"full_name";"version"', b"x" * 16 + b";b;1"]
).map(lambda raw: Line(raw, None))
_files = st.builds(
    file_of,
    st.lists(st.one_of(_row_lines, _row_lines, _bad_lines), min_size=1, max_size=12),
    st.sampled_from([b"\n", b"\r\n"]),
    st.sampled_from([b"", MARK]),
)
_unusable_files = st.one_of(
    st.builds(file_of, st.lists(_bad_lines, max_size=4), st.just(b"\n"), st.just(b"")),
    st.builds(
        file_of, st.lists(_row_lines, max_size=4), st.just(b"\n"), st.just(b""), st.just(b"type,full_name,version")
    ),
    st.just(File(b"", 0, frozenset(), {})),
)


class Load(NamedTuple):
    """A run of devices_raw. It may be made to fail, or its connection to die, at a step, if it comes to that."""

    load_id: str
    file: File
    fails_at: str = ""
    dies: bool = False


class Fold(NamedTuple):
    """A run of devices_aggregates."""

    load_id: str


class Delete(NamedTuple):
    """A load is deleted by hand, as docs/isolated_sequencer.md has it."""

    load_id: str


STEPS = ["key or partition", "quarantine", "rows gone", "rows come", "account"]

_actions = st.one_of(
    st.builds(Load, st.sampled_from(LOADS), _files, st.just(""), st.just(False)),
    st.builds(Load, st.sampled_from(LOADS), _files, st.just(""), st.just(False)),
    st.builds(Load, st.sampled_from(LOADS), _unusable_files, st.just(""), st.just(False)),
    st.builds(Load, st.sampled_from(LOADS), _files, st.sampled_from(STEPS), st.booleans()),
    st.builds(Fold, st.sampled_from(LOADS)),
    st.builds(Fold, st.sampled_from(LOADS)),
    st.builds(Delete, st.sampled_from(LOADS)),
)

_BREAKING = """
    CREATE TABLE public.breaking (step text, dies boolean);
    CREATE FUNCTION public.break_at(reached text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM public.breaking WHERE step = reached AND dies) THEN
            PERFORM pg_terminate_backend(pg_backend_pid());
        ELSIF EXISTS (SELECT FROM public.breaking WHERE step = reached) THEN
            RAISE 'broken at %', reached;
        END IF;
    END $$;
    CREATE FUNCTION public.break_here() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM public.break_at(TG_ARGV[0]); RETURN NULL; END $$;
    CREATE FUNCTION public.break_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM public.break_at('key or partition'); END $$;
    CREATE EVENT TRIGGER breaking ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION public.break_ddl();
    CREATE TRIGGER z_breaking AFTER INSERT ON dedp.devices_quarantine
        FOR EACH STATEMENT EXECUTE FUNCTION public.break_here('quarantine');
    CREATE TRIGGER z_breaking AFTER DELETE ON dedp.devices_raw
        FOR EACH STATEMENT EXECUTE FUNCTION public.break_here('rows gone');
    CREATE TRIGGER z_breaking_too AFTER INSERT ON dedp.devices_raw
        FOR EACH STATEMENT EXECUTE FUNCTION public.break_here('rows come');
    CREATE TRIGGER z_breaking AFTER UPDATE ON dedp.devices_loads
        FOR EACH STATEMENT EXECUTE FUNCTION public.break_here('account');
"""

_EMPTY = "".join(f"DROP TABLE IF EXISTS dedp_loads.devices_raw_{load_id};" for load_id in LOADS) + (
    "DELETE FROM public.breaking;"
    "TRUNCATE dedp.devices_loads, dedp.devices_quarantine, dedp.devices_folded, dedp.devices_changes;"
)


@dataclass
class History:
    """What has happened so far, to the database and by the model."""

    dsn: str
    folder: Path
    loaded: dict[str, File] = field(default_factory=dict)

    def play(self, action: Load | Fold | Delete) -> None:
        if isinstance(action, Load):
            self._load(action)
        elif isinstance(action, Fold):
            self._fold(action)
        else:
            with closing(psycopg2.connect(self.dsn)) as connection, connection, connection.cursor() as cursor:
                for table in ("devices_raw", "devices_quarantine", "devices_loads"):
                    cursor.execute(f"DELETE FROM dedp.{table} WHERE load_id = %s", [action.load_id])
            self.loaded.pop(action.load_id, None)

    def _load(self, action: Load) -> None:
        path = self.folder / "dataset.csv"
        path.write_bytes(action.file.content)
        if action.fails_at:
            _execute(self.dsn, "INSERT INTO public.breaking VALUES (%s, %s)", action.fails_at, action.dies)
        try:
            with connect(self.dsn) as connection:
                report = load_file(connection, action.load_id, path)
        except UnusableFile:
            assert not action.file.rows
        except (psycopg2.Error, DatabaseUnavailable):
            assert action.fails_at
        else:
            assert action.file.rows
            assert (report.lines_read, report.rows_loaded) == (action.file.lines, len(action.file.rows))
            self.loaded[action.load_id] = action.file
        finally:
            if action.fails_at:
                _execute(self.dsn, "DELETE FROM public.breaking")

    def _fold(self, action: Fold) -> None:
        with connect(self.dsn) as connection:
            try:
                fold(connection, action.load_id)
            except LoadNotFound:
                assert action.load_id not in self.loaded
            else:
                assert action.load_id in self.loaded

    def check(self, reader: Connection) -> None:
        """All that can be read is what was loaded, in one snapshot; and the project's own checks say so, too."""
        with reader, reader.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")

            def rows(query: str) -> list[tuple[Any, ...]]:
                cursor.execute(query)
                return cursor.fetchall()

            assert sorted(
                rows("SELECT load_id, sha256, lines_read, rows_loaded, rows_quarantined FROM dedp.devices_loads")
            ) == [
                (
                    load_id,
                    hashlib.sha256(file.content).hexdigest(),
                    file.lines,
                    len(file.rows),
                    len(file.set_aside),
                )
                for load_id, file in sorted(self.loaded.items())
            ]
            assert sorted(rows("SELECT load_id, type, full_name, version FROM dedp.devices_raw")) == sorted(
                (load_id, *row) for load_id, file in self.loaded.items() for row in file.rows
            )
            quarantined = rows("SELECT load_id, line_number, raw_line FROM dedp.devices_quarantine")
            assert sorted((load_id, number, bytes(raw)) for load_id, number, raw in quarantined) == sorted(
                (load_id, number, raw)
                for load_id, file in self.loaded.items()
                for number, raw in file.set_aside.items()
            )
            totals = rows("SELECT type, full_name, version, all_occurrences FROM dedp.devices_aggregates")
            assert {tuple(device): total for *device, total in totals} == Counter(
                row for file in self.loaded.values() for row in file.rows
            )
            assert len({tuple(device) for *device, _ in totals}) == len(totals)
        for audit in (audits.lines_accounted_for, audits.totals_balance, audits.totals_equal_recount):
            result = audit(reader)
            assert result.passed, result.description


def _execute(dsn: str, statement: str, *parameters: object) -> None:
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)


@pytest.fixture(scope="module")
def reader_of() -> Iterator[dict[str, Connection]]:
    """The connection that looks at a database, made once."""
    readers: dict[str, Connection] = {}
    yield readers
    for reader in readers.values():
        reader.close()


@settings(
    max_examples=_HISTORIES,
    deadline=None,
    # Not Phase.explain: it traces, and psycopg2 runs Python code with an exception set when a connection dies.
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(actions=st.lists(_actions, min_size=1, max_size=15))
def test_after_every_step_of_any_history_all_that_can_be_read_agrees_with_the_files(
    actions: list[Load | Fold | Delete], dsn: str, tmp_path: Path, reader_of: dict[str, Connection]
) -> None:
    if dsn not in reader_of:
        _execute(dsn, _BREAKING)
        reader_of[dsn] = psycopg2.connect(dsn)
    _execute(dsn, _EMPTY)
    history = History(dsn, tmp_path)
    for action in actions:
        history.play(action)
        history.check(reader_of[dsn])
