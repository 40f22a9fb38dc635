"""What a run tells of its loads, and of a file or a database that it can't use: one line first, and the counts."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import dagster as dg
import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets.isolated_sequencer import contract
from dedp_assets.isolated_sequencer.aggregator.assets import _tables
from dedp_assets.resources.postgres import PostgresResource
from jobs import devices_aggregator
from tests.dedp_assets.isolated_sequencer.fixture_types import QuarantineOf, RowsOf

DAYS = ["2024-01-01", "2024-01-02", "2024-01-03"]
HEADER = "type;full_name;version"


def taken_in(day: str, *lines: str) -> Path:
    """The internal copy of a day's file."""
    path = contract.internal_file(day)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([HEADER, *lines, ""]), encoding="utf-8")
    return path


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def run(instance: dg.DagsterInstance, *days: str) -> dg.ExecuteInProcessResult:
    job = devices_aggregator.defs.resolve_implicit_global_asset_job_def()
    tags = {"dagster/asset_partition_range_start": days[0], "dagster/asset_partition_range_end": days[-1]}
    return job.execute_in_process(
        instance=instance, tags=tags, asset_selection=[contract.DEVICES_RAW], raise_on_error=False
    )


class Failure(NamedTuple):
    """What a failed run shows: the text, the values beside it, and the exceptions behind it."""

    description: str
    shown: dict[str, Any]
    exceptions_behind: list[object]


def failure_of(result: dg.ExecuteInProcessResult) -> Failure:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data, error = event.step_failure_data.user_failure_data, event.step_failure_data.error
    assert data is not None
    assert error is not None
    shown = {name: value.value for name, value in data.metadata.items()}
    return Failure(data.description or "", shown, [each for each in (error.cause, error.context) if each])


@pytest.fixture
def dsn_in_force(dsn: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    return dsn


def test_a_file_without_one_usable_line_is_told_with_its_counts_and_the_earlier_load_stays(
    instance: dg.DagsterInstance, dsn_in_force: str, database: Connection, rows_of: RowsOf, quarantine_of: QuarantineOf
) -> None:
    taken_in(DAYS[0], "a;b;1", "earlier")
    assert run(instance, DAYS[0]).success
    path = taken_in(DAYS[0], "a,b,1", "a,b,2", "")
    failure = failure_of(run(instance, DAYS[0]))
    assert failure.description == (
        f"partition {DAYS[0]}: {path} has a header and no usable line; of 3 read (missing field 2, empty line 1), "
        "the first is line 2, 'a,b,1': missing field, 1 of 3 fields"
    )
    assert failure.shown["lines_read"] == {DAYS[0]: 3}
    assert failure.shown["refused_reasons"] == {DAYS[0]: {"missing field": 2, "empty line": 1}}
    assert [line["line"] for line in failure.shown["refused_lines"][DAYS[0]]] == ["a,b,1", "a,b,2", ""]
    assert rows_of("20240101") == ["a;b;1"]
    assert [line for *_, line, _ in quarantine_of("20240101")] == ["earlier"]


@pytest.fixture
def latin1(postgres_server: str) -> Iterator[str]:
    connection = psycopg2.connect(postgres_server)
    connection.autocommit = True
    connection.cursor().execute(
        "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    yield urlsplit(postgres_server)._replace(path="/latin").geturl()
    connection.cursor().execute("DROP DATABASE latin WITH (FORCE)")
    connection.close()


def test_a_database_with_another_encoding_fails_the_run_at_once_in_one_line(
    instance: dg.DagsterInstance, latin1: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", latin1)
    taken_in(DAYS[0], "a;b;1")
    result = run(instance, DAYS[0])
    failure = failure_of(result)
    assert "database latin has the encoding LATIN1" in failure.description
    assert "\n" not in failure.description
    assert failure.exceptions_behind == []
    assert not [event for event in result.all_events if event.is_step_up_for_retry]


def test_tables_of_a_newer_version_fail_the_run_at_once_in_one_line(
    instance: dg.DagsterInstance, dsn_in_force: str, database: Connection
) -> None:
    with database, database.cursor() as cursor:
        cursor.execute(
            "INSERT INTO dedp.schema_migrations (pipeline, number, name, sha256) "
            "VALUES ('isolated_sequencer', 9999, 'of_tomorrow', 'x')"
        )
    taken_in(DAYS[0], "a;b;1")
    result = run(instance, DAYS[0])
    failure = failure_of(result)
    assert "the database is newer than this version: it has the migration 9999_of_tomorrow.sql" in (failure.description)
    assert not [event for event in result.all_events if event.is_step_up_for_retry]


def test_a_server_that_does_not_answer_is_one_line_and_may_be_asked_again() -> None:
    nobody = PostgresResource(dsn="postgresql://127.0.0.1:1/dedp")
    with pytest.raises(dg.Failure) as raised, _tables(nobody, dg.build_asset_context().log):
        pass
    assert str(raised.value.description).startswith(
        'PostgreSQL does not answer: connection to server at "127.0.0.1", port 1 failed'
    )
    assert "\n" not in str(raised.value.description)
    assert raised.value.allow_retries
    assert raised.value.__suppress_context__


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        (
            "SET TRANSACTION READ ONLY; DELETE FROM dedp.devices_loads",
            "cannot execute DELETE in a read-only transaction",
        ),
        ("SELECT pg_terminate_backend(pg_backend_pid())", "server closed the connection|terminating connection"),
    ],
)
def test_what_may_pass_while_the_database_is_used_is_one_line_and_may_be_tried_again(
    dsn: str, statement: str, found: str
) -> None:
    with (
        pytest.raises(dg.Failure) as raised,
        _tables(PostgresResource(dsn=dsn), dg.build_asset_context().log) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)
    assert re.search(found, str(raised.value.description))
    assert "\n" not in str(raised.value.description)
    assert raised.value.allow_retries


def test_the_command_line_tells_each_loads_counts_in_one_line_and_a_failure_in_one_line_first(
    own_home: Path, dsn_in_force: str, tmp_path: Path
) -> None:
    taken_in(DAYS[0], "a;b;1", "a;b;1", "a;b;2", "bad", "a;;3")
    bad = taken_in(DAYS[1], "x", "y")
    taken_in(DAYS[2], *(f"a;b;{number}" for number in range(1200)))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "dagster", "asset", "materialize", "-m", "jobs.devices_aggregator"),
            *("--select", "dedp/devices_raw", "--partition-range", f"{DAYS[0]}...{DAYS[2]}"),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    output = (done.stdout + done.stderr).splitlines()

    def position(text: str) -> int:
        (found,) = [number for number, line in enumerate(output) if line.endswith(text)]
        return found

    position(" - 2024-01-01: 5 lines read, 2 loaded, 3 quarantined (duplicate 1, missing field 1, missing value 1)")
    position(" - 2024-01-03: 1,200 lines read, 1,200 loaded, 0 quarantined")
    first = position(
        f" - 2024-01-02: {bad} has a header and no usable line; of 2 read (missing field 2), the first is line 2, 'x': "
        "missing field, 1 of 3 fields"
    )
    assert " ERROR " in output[first]
    assert first < min(number for number, line in enumerate(output) if "Stack Trace" in line)
    assert not [line for line in output if "exception was caused by" in line or "exception occurred during" in line]
