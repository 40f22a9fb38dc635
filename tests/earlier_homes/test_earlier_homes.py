"""What an earlier version of this project wrote is adopted by this version: its database, its files and its cursors.

The fixture beside this file was written by commit c0e3710, which had no migrations, no records beside the copies of
files, and other cursors:

    database.sql                 pg_dump of its PostgreSQL (--inserts --no-owner --no-privileges, schemas dedp and
                                 dedp_loads; without the lines of psql that begin with a backslash)
    landing/, internal/          its landing folder, and its copies, without the empty .lock files
    devices_landed_cursor.json   the cursor that its sensor devices_landed left, with DEDP_START=2026-11-24

How it was made: the code was taken out with `git archive c0e3710`, and run with a new DEDP_HOME and the embedded
PostgreSQL, by its own commands.

1. Two days have a file of their own. 2024-01-01 is clean; 2024-01-02 has CRLF line ends, and four lines to quarantine.
   2024-01-03 takes the undated file. `dagster asset materialize -m jobs.devices_loader --select devices_file` copied
   the three days.
2. `dagster asset materialize -m jobs.devices_aggregator --select 'dedp/devices_raw*'` loaded the first two days and
   refreshed their totals.
3. The file of 2024-01-01 came again, with another device in its second line. The day was copied and loaded again. Its
   totals were not refreshed, so dedp.devices_changes has two rows.
4. 2024-01-03 was loaded, and its totals were not refreshed.
5. Two ticks of devices_landed gave the cursor, and pg_dump of the embedded server the database.
"""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets.isolated_sequencer import contract
from dedp_assets.isolated_sequencer.aggregator import audits
from dedp_assets.isolated_sequencer.aggregator.tables import ensure_tables
from dedp_assets.landing.copies import read_record
from dedp_assets.resources_from_settings import PostgresFromSettings
from jobs import devices_aggregator, devices_loader
from sensors.pipelines.devices_aggregator import devices_raw_reconciled
from sensors.pipelines.devices_loader import devices_landed

HERE = Path(__file__).parent
DAYS = ["2024-01-01", "2024-01-02", "2024-01-03"]
NEXT_DAY = "2024-01-04"

Device = tuple[str, str, str]

TOTALS: dict[Device, int] = {
    ("lamp", "Orb", "3.1"): 1,
    ("lamp", 'Sol; "mini"', "1.0"): 1,
    ("phone", "Nova 1", "Android 14"): 2,
    ("phone", "Nova 3", "Android 15"): 1,
    ("phone", "é漢", "2"): 1,
    ("tv", "Lux", "webOS 6"): 2,
}
QUARANTINE = {3: "duplicate", 4: "missing field", 6: "missing value", 7: "not UTF-8"}


@pytest.fixture
def earlier_home(own_home: Path, empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DEDP_HOME with the files of the earlier version, and a database with its tables."""
    for name in ("landing", "internal"):
        shutil.copytree(HERE / name, own_home / name)
    with closing(psycopg2.connect(empty_dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute((HERE / "database.sql").read_text(encoding="utf-8"))
    monkeypatch.setenv("DEDP_POSTGRES_DSN", empty_dsn)
    monkeypatch.setenv("DEDP_START", "2999-01-01")  # no other day takes the undated file
    return own_home


@pytest.fixture
def earlier_database(earlier_home: Path, empty_dsn: str) -> Iterator[Connection]:
    """A connection to the earlier database."""
    with closing(psycopg2.connect(empty_dsn)) as connection:
        yield connection


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster that knows the three days, as the earlier version recorded them."""
    with dg.DagsterInstance.ephemeral() as ephemeral:
        for key in (contract.DEVICES_FILE, contract.DEVICES_RAW):
            for day in DAYS:
                ephemeral.report_runless_asset_event(dg.AssetMaterialization(key, partition=day))
        yield ephemeral


def totals(database: Connection) -> dict[Device, int]:
    with database, database.cursor() as cursor:
        cursor.execute("SELECT type, full_name, version, all_occurrences FROM dedp.devices_aggregates")
        return {(type_, full_name, version): total for type_, full_name, version, total in cursor.fetchall()}


def quarantine(database: Connection) -> dict[int, str]:
    with database, database.cursor() as cursor:
        cursor.execute("SELECT line_number, reason FROM dedp.devices_quarantine WHERE load_id = '20240102'")
        return dict(cursor.fetchall())


def assert_right(database: Connection) -> None:
    """Every line is accounted for, and every total is what a recount gives."""
    for result in (audits.lines_accounted_for(database), audits.totals_equal_recount(database)):
        assert result.passed, result.description


def materialize(instance: dg.DagsterInstance, day: str) -> None:
    """Copy a day's file, load it and refresh its totals, in both code locations."""
    for location in (devices_loader.defs, devices_aggregator.defs):
        job = location.resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=instance, partition_key=day).success


def land(home: Path, day: str, *lines: str) -> None:
    path = home / "landing" / "devices" / day / "dataset.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["type;full_name;version", *lines, ""]), encoding="utf-8")


def test_the_fixture_is_a_database_before_migrations_with_changes_that_are_not_folded(
    earlier_database: Connection,
) -> None:
    with earlier_database, earlier_database.cursor() as cursor:
        cursor.execute("SELECT to_regclass('dedp.schema_migrations'), count(*) FROM dedp.devices_changes")
        assert cursor.fetchone() == (None, 2)
        cursor.execute("SELECT load_id FROM dedp.devices_loads WHERE NOT folded")
        assert cursor.fetchall() == [("20240103",)]


def test_an_earlier_database_is_adopted_with_every_row_total_and_quarantined_line(earlier_database: Connection) -> None:
    ensure_tables(earlier_database)
    with earlier_database, earlier_database.cursor() as cursor:
        cursor.execute("SELECT pipeline, number, name FROM dedp.schema_migrations")
        assert cursor.fetchall()[0] == ("isolated_sequencer", 1, "devices_tables")
    assert totals(earlier_database) == TOTALS
    assert quarantine(earlier_database) == QUARANTINE
    assert_right(earlier_database)


def test_another_day_is_loaded_into_an_earlier_database(
    earlier_home: Path, earlier_database: Connection, instance: dg.DagsterInstance
) -> None:
    land(earlier_home, NEXT_DAY, "tv;Lux;webOS 6", "watch;Tik;1", "bad")
    materialize(instance, NEXT_DAY)
    assert totals(earlier_database) == {**TOTALS, ("tv", "Lux", "webOS 6"): 3, ("watch", "Tik", "1"): 1}
    assert_right(earlier_database)


@pytest.mark.parametrize("day", DAYS)
def test_a_day_of_an_earlier_database_is_replaced(
    earlier_home: Path, earlier_database: Connection, instance: dg.DagsterInstance, day: str
) -> None:
    old = rows(earlier_database, day)
    land(earlier_home, day, "tv;Lux;webOS 6", "watch;Tik;1")
    materialize(instance, day)
    expected = {device: total - old.count(device) for device, total in TOTALS.items()}
    expected[("tv", "Lux", "webOS 6")] += 1
    expected[("watch", "Tik", "1")] = 1
    assert totals(earlier_database) == {device: total for device, total in expected.items() if total}
    assert quarantine(earlier_database) == ({} if day == "2024-01-02" else QUARANTINE)
    assert_right(earlier_database)


def rows(database: Connection, day: str) -> list[Device]:
    with database, database.cursor() as cursor:
        cursor.execute(
            "SELECT type, full_name, version FROM dedp.devices_raw WHERE load_id = %s", [contract.load_id(day)]
        )
        return cursor.fetchall()


@pytest.mark.parametrize("cursor", [(HERE / "devices_landed_cursor.json").read_text(), None], ids=["its own", "none"])
def test_the_first_ticks_after_the_earlier_version_copy_nothing_again_and_record_where_its_copies_come_from(
    earlier_home: Path, instance: dg.DagsterInstance, cursor: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDP_SETTLE_SECONDS", "0")
    for _ in range(2):
        context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=devices_loader.defs)
        result = devices_landed.evaluate_tick(context)
        assert result.run_requests == []
        cursor = result.cursor
    records = {day: read_record(contract.internal_file(day)) for day in DAYS}
    landing = earlier_home / "landing" / "devices"
    assert {day: record and record.source for day, record in records.items()} == {
        "2024-01-01": str(landing / "2024-01-01" / "dataset.csv"),
        "2024-01-02": str(landing / "2024-01-02" / "dataset.csv"),
        "2024-01-03": None,  # nobody knows which version of the undated file it was
    }


def test_a_new_version_of_a_file_is_copied_after_the_earlier_version(
    earlier_home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDP_SETTLE_SECONDS", "0")
    land(earlier_home, "2024-01-02", "watch;Tik;1")
    cursor = (HERE / "devices_landed_cursor.json").read_text()
    context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=devices_loader.defs)
    (request,) = devices_landed.evaluate_tick(context).run_requests or []
    assert request.partition_key == "2024-01-02"


def test_totals_that_the_earlier_version_had_not_refreshed_are_behind_and_nothing_else_is(
    earlier_home: Path, earlier_database: Connection, instance: dg.DagsterInstance
) -> None:
    context = dg.build_sensor_context(
        instance=instance, definitions=devices_aggregator.defs, resources={"postgres": PostgresFromSettings()}
    )
    assert "2 behind their input" in (devices_raw_reconciled.evaluate_tick(context).skip_message or "")
    for day in ("2024-01-01", "2024-01-03"):
        materialize(instance, day)
    result = devices_raw_reconciled.evaluate_tick(context)
    assert result.skip_message == "every day reflects its input"
    assert totals(earlier_database) == TOTALS
