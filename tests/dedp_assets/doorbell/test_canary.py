"""What the doorbell takes from Dagster's private modules is still there. If a release moves it, this says what."""

import dagster as dg
import psycopg2
from dagster._core.events.log import EventLogEntry
from dagster_postgres import PostgresEventLogStorage
from dagster_postgres.event_log import event_log

from dedp_assets.doorbell import log
from dedp_assets.doorbell._dagster import moved, waits_otherwise


def test_everything_that_the_doorbell_takes_from_dagster_is_where_it_was_and_takes_what_it_took() -> None:
    assert moved() == []


def test_dagsters_loops_still_wait_for_the_event_and_ask_whether_a_sensor_is_under_its_interval() -> None:
    assert waits_otherwise() == []


def test_a_name_that_is_gone_or_has_changed_is_named() -> None:
    assert moved({("dagster._daemon.sensor", "no_such_name"): ()}) == ["dagster._daemon.sensor.no_such_name is gone"]
    assert moved({("dagster._daemon.sensor", "get_elapsed"): ("sensor",)}) == [
        "dagster._daemon.sensor.get_elapsed takes state"
    ]
    assert waits_otherwise({("dagster._daemon.sensor", "get_elapsed"): "sleep"}) == [
        "dagster._daemon.sensor.get_elapsed has no `sleep`"
    ]


def test_dagster_postgres_still_notifies_of_each_event_on_the_channel_that_the_doorbell_listens_to(
    empty_dsn: str,
) -> None:
    assert event_log.CHANNEL_NAME == log.CHANNEL
    storage = PostgresEventLogStorage(empty_dsn)
    connection = psycopg2.connect(empty_dsn)
    connection.autocommit = True
    with connection.cursor() as sql:
        sql.execute(f"LISTEN {log.CHANNEL}")
        storage.store_event(EventLogEntry(None, 20, "said", "a_run", 0.0))  # type: ignore[no-untyped-call]
        sql.execute("SELECT max(id) FROM event_logs")
        (stored,) = sql.fetchone() or (None,)
    connection.poll()
    assert log.told_ids(notify.payload for notify in connection.notifies) == {stored}
    connection.close()


def test_the_kinds_of_events_that_the_doorbell_waits_for_are_dagsters() -> None:
    known = {kind.value for kind in dg.DagsterEventType}
    assert known >= log.ASSET_EVENTS | log.RUN_EVENTS
