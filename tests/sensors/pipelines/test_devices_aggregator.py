"""A load that does not reflect its file is asked for again, whatever events say; one that does is left alone."""

import dagster as dg
import psycopg2
import pytest

from dedp_assets.isolated_sequencer import contract
from dedp_assets.isolated_sequencer.aggregator import assets
from dedp_assets.isolated_sequencer.aggregator.loading import LoadState
from dedp_assets.landing.copies import CopyRecord, lock_of, read_refusal, write_record
from dedp_assets.landing.versions import FileVersion
from dedp_assets.resources.postgres import PostgresResource
from jobs import devices_aggregator
from sensors.pipelines.devices_aggregator import Copy, devices_raw_reconciled, loads_behind
from sensors.reconciliation import from_json, to_json

DAY = "2024-01-02"

CLAIMS = {
    "a file that was never loaded is": ({DAY: Copy("a")}, {}, {}, {DAY}),
    "a file that was loaded is not": ({DAY: Copy("a")}, {DAY: LoadState("a", True)}, {}, set()),
    "another file than the one that was loaded is": ({DAY: Copy("b")}, {DAY: LoadState("a", True)}, {}, {DAY}),
    "a load without its totals is": ({DAY: Copy("a")}, {DAY: LoadState("a", False)}, {}, {DAY}),
    "a file that can't be loaded is not": ({DAY: Copy("a", is_refused=True)}, {}, {}, set()),
    "a load that somebody deleted is not": ({DAY: Copy("a")}, {}, {DAY: "a"}, set()),
    "a new file for a load that somebody deleted is": ({DAY: Copy("b")}, {}, {DAY: "a"}, {DAY}),
    "a copy that does not say what it is is, if it was never loaded": ({DAY: Copy(None)}, {}, {}, {DAY}),
    "a copy that does not say what it is is not, once it was loaded": (
        {DAY: Copy(None)},
        {DAY: LoadState("a", True)},
        {},
        set(),
    ),
    "a load without a file is not": ({}, {DAY: LoadState("a", True)}, {}, set()),
}


@pytest.mark.parametrize(("copies", "loads", "told", "expected"), CLAIMS.values(), ids=CLAIMS)
def test_behind(copies, loads, told, expected):
    assert loads_behind(copies, loads, told).keys() == expected


def test_what_a_day_is_behind_of_tells_one_file_from_the_next():
    first = loads_behind({DAY: Copy("a")}, {}, {})
    assert first != loads_behind({DAY: Copy("b")}, {}, {})
    assert first == loads_behind({DAY: Copy("a")}, {}, {})


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def put_copy(day, content):
    file = contract.internal_file(day)
    with lock_of(file.parent):
        file.write_text(content)
        write_record(file, CopyRecord(f"/landing/devices/{day}/dataset.csv", FileVersion(1, 2, 3, 4), content))


def tick(instance, cursor=None, dsn=None):
    """A tick to which everything that the tick before noted is due."""
    due = to_json({day: each._replace(due=0) for day, each in from_json(cursor).items()})
    context = dg.build_sensor_context(
        instance=instance,
        cursor=due,
        definitions=devices_aggregator.defs,
        resources={"postgres": PostgresResource(dsn=dsn)},
    )
    return devices_raw_reconciled.evaluate_tick(context)


def test_days_that_are_behind_share_a_run_after_they_had_their_chance(instance, dsn):
    for day in ("2024-01-02", "2024-01-03", "2024-01-05"):
        put_copy(day, "type;full_name;version\nphone;a;1\n")
    first = tick(instance, dsn=dsn)
    assert first.run_requests == []
    assert "3 behind their input" in first.skip_message
    requests = tick(instance, first.cursor, dsn).run_requests
    assert [request.partition_key or request.tags["dagster/asset_partition_range_end"] for request in requests] == [
        "2024-01-03",
        "2024-01-05",
    ]
    assert all("by reconciliation" in request.tags["dedp/cause"] for request in requests)


def test_a_database_that_does_not_answer_is_a_tick_that_says_so_and_forgets_nothing(instance, dsn):
    put_copy(DAY, "type;full_name;version\nphone;a;1\n")
    first = tick(instance, dsn=dsn)
    away = tick(instance, first.cursor, "postgresql://dedp:secret@127.0.0.1:1/dedp")
    assert away.run_requests == []
    assert "PostgreSQL does not answer" in away.skip_message
    assert "secret" not in away.skip_message
    assert tick(instance, away.cursor or first.cursor, dsn).run_requests


@pytest.mark.parametrize("name", ["source.json", "refused.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"after": 1}'])
def test_a_damaged_record_beside_a_copy_stops_no_tick(instance, dsn, name, content):
    put_copy(DAY, "type;full_name;version\nphone;a;1\n")
    put_copy("2024-01-03", "type;full_name;version\nphone;a;1\n")
    contract.internal_file(DAY).with_name(name).write_bytes(content)
    assert "2 behind their input" in tick(instance, dsn=dsn).skip_message


def test_a_database_that_cannot_be_used_is_a_tick_that_says_so(instance, empty_dsn):
    connection = psycopg2.connect(empty_dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA dedp; CREATE TABLE dedp.devices_raw (mine text)")
    connection.close()
    assert "dedp.devices_raw" in tick(instance, dsn=empty_dsn).skip_message
    assert "DEDP_POSTGRES_DSN is" in tick(instance, dsn="nonsense").skip_message


def test_a_copy_that_nobody_may_read_is_not_taken_for_one_that_cannot_be_loaded(instance, dsn):
    put_copy(DAY, "type;full_name;version\nphone;a;1\n")
    copy = contract.internal_file(DAY)
    content = copy.read_text()
    copy.unlink()
    copy.mkdir()  # as good as unreadable, also to root
    assert not load(instance, dsn)
    copy.rmdir()
    copy.write_text(content)
    assert read_refusal(copy) is None
    assert tick(instance, tick(instance, dsn=dsn).cursor, dsn).run_requests


def load(instance, dsn):
    resources = {"postgres": PostgresResource(dsn=dsn)}
    selected = [assets.devices_raw, assets.devices_aggregates]
    return dg.materialize(
        [assets.devices_file, *selected],
        instance=instance,
        partition_key=DAY,
        resources=resources,
        raise_on_error=False,
    ).success


def test_a_file_that_cannot_be_loaded_is_not_asked_for_again_and_is_named(instance, dsn):
    put_copy(DAY, "nonsense\n")
    assert not load(instance, dsn)
    assert "has the first line" in read_refusal(contract.internal_file(DAY)).reason
    result = tick(instance, tick(instance, dsn=dsn).cursor, dsn)
    assert result.run_requests == []
    assert f"can't be loaded, until another file comes: {DAY}" in result.skip_message
    put_copy(DAY, "type;full_name;version\nphone;a;1\n")
    assert load(instance, dsn)
    assert read_refusal(contract.internal_file(DAY)) is None


def test_a_load_that_was_deleted_by_hand_stays_so(instance, dsn):
    put_copy(DAY, "type;full_name;version\nphone;a;1\n")
    assert load(instance, dsn)
    # As its SHA-256 is what Dagster was told, the copy says the true one.
    with lock_of(contract.internal_file(DAY).parent):
        write_record(contract.internal_file(DAY), told_copy(instance))
    assert tick(instance, dsn=dsn).skip_message == "every day reflects its input"
    connection = psycopg2.connect(dsn)
    with connection, connection.cursor() as cursor:
        for table in ("devices_raw", "devices_quarantine", "devices_loads"):
            cursor.execute(f"DELETE FROM dedp.{table} WHERE load_id = '20240102'")
    connection.close()
    assert tick(instance, dsn=dsn).skip_message == "every day reflects its input"


def told_copy(instance):
    (record,) = instance.fetch_materializations(contract.DEVICES_RAW, limit=1).records
    sha256 = record.asset_materialization.metadata["file_sha256"].value
    return CopyRecord(f"/landing/devices/{DAY}/dataset.csv", FileVersion(1, 2, 3, 4), sha256)
