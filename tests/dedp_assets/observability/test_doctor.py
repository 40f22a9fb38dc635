"""`dedp doctor` finds what is broken, and says what to do: each test breaks the thing."""

import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets import settings
from dedp_assets.alerts import store
from dedp_assets.alerts.incidents import Problem, decide
from dedp_assets.inotify import Inotify
from dedp_assets.later_releases import MIGRATIONS
from dedp_assets.observability import doctor
from dedp_assets.observability.cli import _READ, _alerting, _known_settings
from dedp_assets.observability.dagster_tables import Heartbeat
from dedp_assets.observability.doctor import Finding
from tests.dedp_command import run_dedp

NOBODY = 65534


def statuses(findings: Iterable[Finding]) -> list[str]:
    found = list(findings)
    # Whoever reads a finding learns what to do.
    assert all(finding.next_step for finding in found if finding.status != "ok")
    return [finding.status for finding in found]


def in_a_fork(check: Callable[[], Iterable[Finding]], change: Callable[[], object]) -> list[str]:
    """The findings of a check in a process that has been changed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            change()
            os.write(writing, "\n".join(f"{each.status} {each.what}" for each in check()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as said:
        lines = said.read().splitlines()
    os.waitpid(child, 0)
    return lines


def test_an_old_python_is_broken() -> None:
    assert statuses(doctor.python_version((3, 9, 18))) == ["broken"]
    assert statuses(doctor.python_version()) == ["ok"]


def test_packages_that_are_missing_or_in_other_versions_are_broken() -> None:
    found = list(doctor.packages(["dagster<1", "click", "no-such-package-here", "pytest-xdist ; extra == 'dev'"]))
    assert statuses(found) == ["broken", "broken", "ok"]
    assert "dagster 1." in found[0].what
    assert "no-such-package-here is not installed" in found[1].what


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEDP_SPARK_CORES", "many"),
        ("DEDP_NOTIFY", "pigeon"),
        ("DEDP_ALERTS", "log pigeon"),
        ("DEDP_ALERTS_RUN_SECONDS", "soon"),
        ("DEDP_SMTP_USER", "without a password"),
        ("DEDP_START", "yesterday"),
        ("DEDP_LOG_FORMAT", "xml"),
        ("DEDP_UI_URL", "dagster"),
        ("DEDP_FRESHNESS", "raw=soon"),
    ],
)
def test_a_setting_that_can_not_be_used_is_broken(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    (finding,) = doctor.settings_of(_READ, {name: value}, _known_settings())
    assert (finding.status, name in finding.what) == ("broken", True)


def test_a_misspelt_setting_is_found_and_a_setting_of_somebody_else_is_not() -> None:
    found = list(doctor.settings_of({}, {"DEDP_SETLE_SECONDS": "1", "DEDP_OTHER": "1"}, _known_settings()))
    assert [(each.status, each.next_step) for each in found] == [("warning", "did you mean DEDP_SETTLE_SECONDS?")]


def test_every_setting_of_the_table_that_can_be_wrong_is_read() -> None:
    # These may have any value, or are checked as folders.
    free = {"DEDP_HOME", "DEDP_LANDING", "DEDP_INTERNAL", "DEDP_DATA_URI", "DEDP_DAGSTER_STORAGE", "DEDP_UPLOADS"}
    free |= {"DEDP_SMTP_PASSWORD", "DEDP_SMTP_PASSWORD_FILE"}
    assert _known_settings() >= _READ.keys()
    assert {name for name in _known_settings() - _READ.keys() - free if hasattr(settings, name[5:].lower())} == set()


def test_a_file_where_a_folder_should_be_is_broken(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    assert statuses(doctor.folder("DEDP_HOME", tmp_path / "home", is_written=True)) == ["broken"]
    assert statuses(doctor.folder("DEDP_HOME", tmp_path / "home" / "below", is_written=True)) == ["broken"]


def test_a_folder_that_does_not_exist_yet_is_no_problem(tmp_path: Path) -> None:
    assert statuses(doctor.folder("DEDP_HOME", tmp_path / "a" / "b", is_written=True, few=1, least=0)) == ["ok"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(
    ("mode", "is_written", "status"), [(0o755, True, "broken"), (0o700, False, "broken"), (0o755, False, "ok")]
)
def test_a_folder_that_this_user_can_not_use_is_broken(mode: int, is_written: bool, status: str) -> None:
    folder = Path(os.path.realpath("/tmp")) / f"dedp-doctor-{os.getpid()}"
    folder.mkdir()
    try:
        folder.chmod(mode)
        found = in_a_fork(
            lambda: doctor.folder("DEDP_LANDING", folder, is_written=is_written, few=1, least=0),
            lambda: os.setuid(NOBODY),
        )
    finally:
        folder.rmdir()
    assert [line.split()[0] for line in found] == [status]


def test_a_disk_that_is_nearly_full_is_found_before_it_is_full(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    for least, few, status in ((free * 2, free * 3, "broken"), (0, free * 2, "warning"), (0, 1, "ok")):
        assert statuses(doctor.folder("DEDP_HOME", tmp_path, is_written=True, least=least, few=few)) == [status]


def test_a_kernel_that_tells_of_no_files_is_found(tmp_path: Path) -> None:
    limit = tmp_path / "max_user_watches"
    limit.write_text("8191\n")
    assert statuses(doctor.file_notifications(lambda: Inotify().close(), limit)) == ["warning"]
    limit.write_text("65536\n")
    assert statuses(doctor.file_notifications(lambda: Inotify().close(), limit)) == ["ok"]
    # No more open files: the kernel gives this process no inotify instance.
    (found,) = in_a_fork(
        lambda: doctor.file_notifications(Inotify, limit), lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    )
    assert found.startswith("warning the kernel gives no notifications of files")


def test_connections_that_are_nearly_used_up_are_found(database: Connection) -> None:
    assert statuses(doctor.server(database)) == ["ok"]
    assert statuses(doctor.server(database, most_used=0.0)) == ["ok", "warning"]


def test_sessions_that_hold_locks_or_wait_for_them_are_found(database: Connection, dsn: str) -> None:
    holder, waiter = psycopg2.connect(dsn, application_name="holder"), psycopg2.connect(dsn, application_name="waiter")
    holder.cursor().execute("SELECT pg_advisory_xact_lock(1)")
    waiting = threading.Thread(target=waiter.cursor().execute, args=("SELECT pg_advisory_xact_lock(1)",))
    waiting.start()
    give_up = time.monotonic() + 300
    found = list(doctor.long_transactions(database, 0.0))
    # It has a transaction before it waits.
    while not any("waiting for a lock" in each.what for each in found) and time.monotonic() < give_up:
        found = list(doctor.long_transactions(database, 0.0))
    assert [("holder" in each.what, "waiting for a lock" in each.what) for each in found] == [
        (True, False),
        (False, True),
    ]
    assert str(holder.info.backend_pid) in found[0].next_step
    assert list(doctor.long_transactions(database)) == []
    holder.close()
    waiting.join()
    waiter.close()


@pytest.mark.parametrize(("seconds", "status"), [(90.0, "broken"), (-90.0, "broken"), (5.0, "warning"), (0.0, "ok")])
def test_a_clock_that_is_wrong_is_found(database: Connection, seconds: float, status: str) -> None:
    assert statuses(doctor.clock(database, lambda: time.time() + seconds)) == [status]


def test_tables_of_a_later_version_are_broken(database: Connection) -> None:
    store.ensure_tables(database)
    assert statuses(doctor.schema_versions(database)) == ["ok"]
    with database, database.cursor() as cursor:
        cursor.execute("INSERT INTO dedp.schema_migrations VALUES ('alerts', 99, 'of_the_future', repeat('0', 64))")
    (finding,) = doctor.schema_versions(database)
    assert (finding.status, "0099_of_the_future.sql" in finding.what) == ("broken", True)


def test_the_doctor_knows_the_migrations_of_every_pipeline() -> None:
    there = {path.parent.relative_to(doctor.PACKAGE).as_posix() for path in doctor.PACKAGE.rglob("migrations")}
    assert there == set(MIGRATIONS.values())


def test_dagsters_tables_of_another_version_are_broken() -> None:
    assert statuses(doctor.dagster_schema("29b539ebc72a", "29b539ebc72a")) == ["ok"]
    assert statuses(doctor.dagster_schema("aaaaaaaaaaaa", "29b539ebc72a")) == ["broken"]


def test_daemons_that_are_silent_are_broken_while_the_system_is_up() -> None:
    beats = [Heartbeat("SENSOR", 500.0, []), Heartbeat("ASSET", 5.0, []), Heartbeat("OF_ANOTHER_VERSION", 5e6, [])]
    required = ["SENSOR", "ASSET"]
    found = list(doctor.daemons(beats, required, should_run=True, limit=180))
    assert statuses(found) == ["broken"]
    assert "ASSET" not in found[0].what
    assert statuses(doctor.daemons(beats, required, should_run=False, limit=180)) == ["warning"]
    assert statuses(doctor.daemons(beats, ["ASSET"], should_run=True, limit=180)) == ["ok"]
    wrong = [Heartbeat("ASSET", 5.0, ["no such table"])]
    assert statuses(doctor.daemons(wrong, ["ASSET"], should_run=True, limit=180)) == ["ok", "broken"]


def test_a_code_location_that_can_not_be_imported_is_broken(tmp_path: Path) -> None:
    (tmp_path / "wrecked.py").write_text("import no_such_package_here")
    (tmp_path / "fine.py").write_text("defs = 1")
    found = list(doctor.modules(["wrecked", "fine"], {**os.environ, "PYTHONPATH": str(tmp_path)}))
    assert statuses(found) == ["broken", "ok"]
    assert "wrecked" in found[0].what
    assert "no_such_package_here" in found[0].what


def test_a_port_that_somebody_uses_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert statuses(doctor.port_is_free("127.0.0.1", port)) == ["warning"]
    assert statuses(doctor.port_is_free("127.0.0.1", port)) == ["ok"]


def test_a_java_that_does_not_run_is_broken(tmp_path: Path) -> None:
    assert statuses(doctor.java(tmp_path / "java")) == ["broken"]
    (tmp_path / "java").write_text("#!/bin/sh\necho 'cannot open shared object' >&2\nexit 127\n")
    (tmp_path / "java").chmod(0o755)
    (finding,) = doctor.java(tmp_path / "java")
    assert (finding.status, "cannot open shared object" in finding.what) == ("broken", True)


def test_a_spark_server_that_is_down_is_broken_and_its_token_is_not_shown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"sc://127.0.0.1:{server.getsockname()[1]}/;token=T0kEn"
    (finding,) = doctor.spark_server(url)
    assert (finding.status, "T0kEn" in str(finding)) == ("broken", False)


@pytest.mark.parametrize(("says", "found"), [(b"", "within 0.5 s"), (b"HTTP/1.1 200 OK\r\n\r\nhello", "UNAVAILABLE")])
def test_what_takes_connections_and_does_no_work_for_spark_is_broken(says: bytes, found: str) -> None:
    def answer(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                connection.sendall(says)
                connections.append(connection)

    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        (finding,) = doctor.spark_server(f"sc://127.0.0.1:{server.getsockname()[1]}", seconds=0.5)
        server.shutdown(socket.SHUT_RDWR)
    for connection in connections:
        connection.close()
    assert (finding.status, found in finding.what) == ("broken", True), finding


@pytest.mark.slow
def test_a_spark_server_that_answers_a_query_is_in_order(spark_remote: str) -> None:
    assert statuses(doctor.spark_server(spark_remote)) == ["ok"]


@pytest.mark.parametrize(
    ("last_look", "undelivered", "problem", "is_wanted", "found"),
    [
        (5.0, 0, "", True, ["ok"]),
        (5.0, 2, "answered 404", True, ["broken"]),
        (5.0, 2, "", True, ["warning"]),
        (600.0, 0, "", True, ["warning"]),
        (None, 0, "", True, ["warning"]),
        (None, 0, "", False, ["warning"]),
    ],
)
def test_alerts_that_reach_nobody_are_found(
    last_look: float | None, undelivered: int, problem: str, is_wanted: bool, found: list[str]
) -> None:
    assert statuses(doctor.alerting(last_look, undelivered, problem, is_wanted=is_wanted)) == found


def test_an_alert_that_waits_is_found_once_though_it_waits_for_a_target_that_was_replaced_too(
    database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDP_ALERTS", "log")
    store.ensure_tables(database)
    with database, database.cursor() as cursor:
        cursor.execute("INSERT INTO dedp.alert_targets VALUES ('replaced', now() - interval '1 h')")
    problem = Problem("run/a/", "run", "run/a", "a failed", "a failed.", "Mend it.")
    store.look(database, ["log"], (), lambda incidents: decide([problem], incidents, 0.0))
    (finding,) = _alerting(database)
    assert finding.what.startswith("1 alert could not be delivered yet")


@pytest.mark.slow
def test_the_command_says_all_that_it_finds_and_ends_with_1(
    postgres_server: str, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = psycopg2.connect(postgres_server)
    connection.autocommit = True
    name = f"latin_{os.getpid()}"
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    monkeypatch.setenv("DEDP_POSTGRES_DSN", postgres_server.replace("/dedp?", f"/{name}?"))
    monkeypatch.setenv("DEDP_SPARK_REMOTE", "sc://127.0.0.1:1")
    monkeypatch.setenv("DEDP_SPARK_CORES", "many")
    ended = run_dedp("doctor")
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {name}")
    connection.close()
    assert ended.returncode == 1
    broken = [line for line in ended.stdout.splitlines() if line.startswith("broken")]
    assert [
        next(word for word in ("DEDP_SPARK_CORES", "127.0.0.1:1", "LATIN1") if word in line) for line in broken
    ] == [
        "DEDP_SPARK_CORES",
        "127.0.0.1:1",
        "LATIN1",
    ]
    assert ended.stdout.count("-> ") >= len(broken)


@pytest.mark.slow
def test_a_home_that_cannot_be_used_is_a_finding_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DEDP_HOME", str(tmp_path / "file"))
    ended = run_dedp("doctor")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert f"{tmp_path}/file" in ended.stdout
    assert "code locations can be loaded" in ended.stdout
    assert ended.stdout.splitlines()[-1].endswith("in order.")


def test_no_command_waits_for_dagster_because_of_these() -> None:
    code = (
        "import sys, dedp_assets.cli; "
        "print({'dagster', 'deltalake', 'opentelemetry', 'prometheus_client', 'pyarrow'} & {*sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
