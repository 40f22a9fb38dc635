"""A load that does not reflect its file is requested again, whatever events say. One that does is left alone."""

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
from tests.ticks import SensorTicks, Tick

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


@pytest.mark.parametrize(("copies", "loads", "reported", "expected"), CLAIMS.values(), ids=CLAIMS)
def test_the_days_behind_are_just_these(
    copies: dict[str, Copy], loads: dict[str, LoadState], reported: dict[str, str], expected: set[str]
) -> None:
    assert loads_behind(copies, loads, reported).keys() == expected


def test_a_day_that_is_behind_another_file_is_described_differently() -> None:
    first = loads_behind({DAY: Copy("a")}, {}, {})
    assert first != loads_behind({DAY: Copy("b")}, {}, {})
    assert first == loads_behind({DAY: Copy("a")}, {}, {})


def put_copy(day: str, content: str) -> None:
    file = contract.internal_file(day)
    with lock_of(file.parent):
        file.write_text(content)
        write_record(file, CopyRecord(f"/landing/devices/{day}/dataset.csv", FileVersion(1, 2, 3, 4), content))


class Ticks(SensorTicks):
    """Ticks of `devices_raw_reconciled`, for which all that waits is due."""

    def __init__(self, instance: dg.DagsterInstance, dsn: str) -> None:
        super().__init__(
            devices_raw_reconciled,
            instance,
            definitions=devices_aggregator.defs,
            resources={"postgres": PostgresResource(dsn=dsn)},
        )

    def __call__(self) -> Tick:
        self.cursor = to_json({day: each._replace(due=0) for day, each in from_json(self.cursor).items()})
        return super().__call__()


def test_days_that_are_behind_share_a_run_after_they_had_their_chance(instance: dg.DagsterInstance, dsn: str) -> None:
    for day in ("2024-01-02", "2024-01-03", "2024-01-05"):
        put_copy(day, "type;full_name;version\nphone;a;1\n")
    ticks = Ticks(instance, dsn)
    first = ticks()
    assert first.run_requests == []
    assert "3 behind their input" in first.message
    requests = ticks().run_requests
    assert [request.partition_key or request.tags["dagster/asset_partition_range_end"] for request in requests] == [
        "2024-01-03",
        "2024-01-05",
    ]
    assert all("by reconciliation" in request.tags["dedp/cause"] for request in requests)


def test_a_database_that_does_not_answer_is_a_tick_that_says_so_and_forgets_nothing(
    instance: dg.DagsterInstance, dsn: str
) -> None:
    put_copy(DAY, "type;full_name;version\nphone;a;1\n")
    ticks = Ticks(instance, dsn)
    ticks()
    ticks_while_away = Ticks(instance, "postgresql://dedp:secret@127.0.0.1:1/dedp")
    ticks_while_away.cursor = ticks.cursor
    away = ticks_while_away()
    assert away.run_requests == []
    assert "PostgreSQL does not answer" in away.message
    assert "secret" not in away.message
    ticks.cursor = away.cursor
    assert ticks().run_requests


@pytest.mark.parametrize("name", ["source.json", "refused.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"after": 1}'])
def test_a_damaged_record_beside_a_copy_stops_no_tick(
    instance: dg.DagsterInstance, dsn: str, name: str, content: bytes
) -> None:
    put_copy(DAY, "type;full_name;version\nphone;a;1\n")
    put_copy("2024-01-03", "type;full_name;version\nphone;a;1\n")
    contract.internal_file(DAY).with_name(name).write_bytes(content)
    assert "2 behind their input" in Ticks(instance, dsn)().message


def test_a_database_that_cannot_be_used_is_a_tick_that_says_so(instance: dg.DagsterInstance, empty_dsn: str) -> None:
    connection = psycopg2.connect(empty_dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA dedp; CREATE TABLE dedp.devices_raw (mine text)")
    connection.close()
    assert "dedp.devices_raw" in Ticks(instance, empty_dsn)().message
    assert "DEDP_POSTGRES_DSN is" in Ticks(instance, "nonsense")().message


def test_a_copy_that_nobody_may_read_is_not_taken_for_one_that_cannot_be_loaded(
    instance: dg.DagsterInstance, dsn: str
) -> None:
    put_copy(DAY, "type;full_name;version\nphone;a;1\n")
    copy = contract.internal_file(DAY)
    content = copy.read_text()
    copy.unlink()
    copy.mkdir()  # Not even root can read this as a file.
    assert not load(instance, dsn)
    copy.rmdir()
    copy.write_text(content)
    assert read_refusal(copy) is None
    ticks = Ticks(instance, dsn)
    ticks()
    assert ticks().run_requests


def load(instance: dg.DagsterInstance, dsn: str) -> bool:
    resources = {"postgres": PostgresResource(dsn=dsn)}
    selected = [assets.devices_raw, assets.devices_aggregates]
    return dg.materialize(
        [assets.devices_file, *selected],
        instance=instance,
        partition_key=DAY,
        resources=resources,
        raise_on_error=False,
    ).success


def test_a_file_that_cannot_be_loaded_is_not_requested_again_and_is_named(
    instance: dg.DagsterInstance, dsn: str
) -> None:
    put_copy(DAY, "nonsense\n")
    assert not load(instance, dsn)
    refusal = read_refusal(contract.internal_file(DAY))
    assert refusal
    assert "has the first line" in refusal.reason
    ticks = Ticks(instance, dsn)
    ticks()
    result = ticks()
    assert result.run_requests == []
    assert f"can't be loaded until another file arrives: {DAY}" in result.message
    put_copy(DAY, "type;full_name;version\nphone;a;1\n")
    assert load(instance, dsn)
    assert read_refusal(contract.internal_file(DAY)) is None


def test_a_load_that_was_deleted_by_hand_stays_so(instance: dg.DagsterInstance, dsn: str) -> None:
    put_copy(DAY, "type;full_name;version\nphone;a;1\n")
    assert load(instance, dsn)
    # Dagster knows the SHA-256 of the content. Let the record of the copy have the same one.
    with lock_of(contract.internal_file(DAY).parent):
        write_record(contract.internal_file(DAY), reported_copy(instance))
    assert Ticks(instance, dsn)().message == "every day reflects its input"
    connection = psycopg2.connect(dsn)
    with connection, connection.cursor() as cursor:
        for table in ("devices_raw", "devices_quarantine", "devices_loads"):
            cursor.execute(f"DELETE FROM dedp.{table} WHERE load_id = '20240102'")
    connection.close()
    assert Ticks(instance, dsn)().message == "every day reflects its input"


def reported_copy(instance: dg.DagsterInstance) -> CopyRecord:
    (record,) = instance.fetch_materializations(contract.DEVICES_RAW, limit=1).records
    assert record.asset_materialization
    sha256 = str(record.asset_materialization.metadata["file_sha256"].value)
    return CopyRecord(f"/landing/devices/{DAY}/dataset.csv", FileVersion(1, 2, 3, 4), sha256)
