"""Rings for events in Dagster's log: PostgreSQL tells of them (LISTEN and NOTIFY).

dagster-postgres sends NOTIFY for each event that it stores. Its source calls that a remnant, and it sends none for
events that it stores in a batch. So the log is also looked at once in a while. If it has grown without a notification,
a trigger of ours notifies from then on.
"""

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing, suppress
from typing import NamedTuple

import psycopg2
from psycopg2.extensions import connection as Connection

from dedp_assets.doorbell.bell import Bell
from dedp_assets.doorbell.due import POLL_SECONDS
from dedp_assets.doorbell.sources import logger
from dedp_assets.doorbell.woken_by import Listener

# dagster-postgres's channel. Its canary test is tests/dedp_assets/doorbell/test_canary.py.
CHANNEL = "run_events"
# Our channel. Nothing in the log tells that a backfill was launched or canceled.
BACKFILLS = "dedp_backfills"

ASSET_EVENTS = frozenset({"ASSET_MATERIALIZATION", "ASSET_OBSERVATION"})
RUN_ENDS = frozenset({"PIPELINE_SUCCESS", "PIPELINE_FAILURE", "PIPELINE_CANCELED"})
ENQUEUED = "PIPELINE_ENQUEUED"
RUN_EVENTS = RUN_ENDS | {ENQUEUED, "PIPELINE_STARTING", "PIPELINE_START", "PIPELINE_CANCELING"}

# Dagster stores an event first, and then what follows from it: the status of the run, the latest event of the asset.
# An event rings once this is stored, too, or after so many seconds.
_EFFECT_SECONDS = 2.0
_EFFECT_PAUSE_SECONDS = 0.01
# The notification of an event follows it within this time.
_NOTIFICATION_SECONDS = 1.0

_EVENTS = """
    SELECT
        event.id,
        event.dagster_event_type,
        event.asset_key,
        split_part(repository.value, '@', 2) AS location,
        CASE
            WHEN event.dagster_event_type = 'PIPELINE_ENQUEUED' THEN run.status <> 'NOT_STARTED'
            WHEN event.dagster_event_type IN ('PIPELINE_SUCCESS', 'PIPELINE_FAILURE', 'PIPELINE_CANCELED')
                THEN run.status IN ('SUCCESS', 'FAILURE', 'CANCELED')
            WHEN event.asset_key IS NOT NULL
                THEN COALESCE(asset.last_materialization_timestamp >= event.timestamp, false)
            ELSE true
        END AS has_effect
    FROM
        event_logs AS event
        LEFT JOIN runs AS run ON run.run_id = event.run_id
        LEFT JOIN run_tags AS repository
            ON repository.run_id = event.run_id AND repository.key = '.dagster/repository'
        LEFT JOIN asset_keys AS asset ON asset.asset_key = event.asset_key
    WHERE
        (event.id > %(after)s OR event.id = ANY(%(told)s))
        AND event.dagster_event_type = ANY(%(kinds)s)
    ORDER BY event.id
"""

# It notifies on the channel that a trigger names. Those of earlier versions name none. Two daemons may start at once.
_FUNCTION = """
    SELECT pg_advisory_xact_lock(hashtext('dedp_doorbell'));
    CREATE OR REPLACE FUNCTION dedp_doorbell() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify(COALESCE(TG_ARGV[0], 'run_events'), '');
        RETURN NULL;
    END
    $$;
"""
_TRIGGER = f"""
    {_FUNCTION}
    CREATE OR REPLACE TRIGGER dedp_doorbell
        AFTER INSERT ON event_logs
        FOR EACH STATEMENT EXECUTE FUNCTION dedp_doorbell('{CHANNEL}');
"""
# Only what somebody asks for. The daemon itself stores the progress of a backfill without another status.
_BACKFILL_TRIGGER = f"""
    {_FUNCTION}
    CREATE OR REPLACE TRIGGER dedp_backfill_changed
        AFTER UPDATE OF status ON bulk_actions
        FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION dedp_doorbell('{BACKFILLS}');
    CREATE OR REPLACE TRIGGER dedp_backfill_launched
        AFTER INSERT ON bulk_actions
        FOR EACH STATEMENT EXECUTE FUNCTION dedp_doorbell('{BACKFILLS}');
"""
_HAS_BACKFILL_TRIGGER = """
    SELECT EXISTS (
        SELECT FROM pg_trigger WHERE tgrelid = 'bulk_actions'::regclass AND tgname = 'dedp_backfill_launched'
    )
"""


class LogEvent(NamedTuple):
    """An event in Dagster's log.

    Attributes:
        id: of the event.
        kind: such as ASSET_MATERIALIZATION.
        asset: the key of its asset, as Dagster stores it; None for events of runs.
        location: the code location of its run; "" if it has none, or if that is not known.
        has_effect: whether Dagster has also stored what follows from it.
    """

    id: int
    kind: str
    asset: str | None = None
    location: str = ""
    has_effect: bool = True


def woken(events: Iterable[LogEvent], listeners: Mapping[str, Listener]) -> set[str]:
    """The ids of the sensors that some of the events should wake."""
    assets, ended, kinds = set(), set(), set()
    for event in events:
        kinds.add(event.kind)
        if event.kind in ASSET_EVENTS and event.asset:
            assets.add(event.asset)
        elif event.kind in RUN_ENDS:
            ended.add(event.location)
    return {
        id
        for id, listener in listeners.items()
        if not assets.isdisjoint(listener.assets)
        or (listener.own_runs and (listener.location in ended or "" in ended))
        or (listener.all_runs and not kinds.isdisjoint(RUN_EVENTS))
    }


def wakes_queue(events: Iterable[LogEvent]) -> bool:
    """Whether a run waits in the queue, or a place may be free."""
    return any(event.kind == ENQUEUED or event.kind in RUN_ENDS for event in events)


def wakes_backfills(events: Iterable[LogEvent]) -> bool:
    """Whether a run has ended: a backfill may wait for it."""
    return any(event.kind in RUN_ENDS for event in events)


def told_ids(payloads: Iterable[str]) -> set[int]:
    """The ids of events in notifications: dagster-postgres sends `<run id>_<event id>`, and our trigger nothing."""
    found = (payload.rpartition("_")[2] for payload in payloads)
    return {int(id) for id in found if id.isdecimal()}


class LogListener:
    """Listens to the log, and rings.

    Args:
        connect: opens a connection to the database of the log, with its schema as the search path.
        bell: to ring.
        stopped: set when the daemon stops.
        net_seconds: how often to look at the log without a notification.
    """

    def __init__(
        self, connect: Callable[[], Connection], bell: Bell, stopped: threading.Event, net_seconds: float
    ) -> None:
        self._connect, self._bell, self._stopped, self._net_seconds = connect, bell, stopped, net_seconds
        self._wake_reader, self._wake_writer = os.pipe()
        self._has_trigger = self._is_mute = False

    @property
    def is_mute(self) -> bool:
        """Whether the database sends no notifications. The log is looked at every 5 s then."""
        return self._is_mute

    def stop(self) -> None:
        """Wake it up, so that it sees that it is stopped."""
        with suppress(OSError):
            os.write(self._wake_writer, b"!")

    def listen(self, say_hearing: Callable[[], None]) -> None:
        """Listen until stopped. Raises psycopg2.Error if the connection is lost."""
        with closing(self._connect()) as connection:
            connection.autocommit = True
            _notice_dead_peer(connection)
            with connection.cursor() as sql:
                sql.execute(f"LISTEN {CHANNEL}; LISTEN {BACKFILLS}")
                sql.execute("SELECT COALESCE(max(id), 0) FROM event_logs")
                (last,) = sql.fetchone() or (0,)
                # A missing table, or a missing privilege, is an error now and not at the first event.
                self._events(connection, last, ())
            self._tell_of_backfills(connection)
            say_hearing()
            # What came while nobody listened.
            listeners = self._bell.listeners
            self._bell.ring(id for id, listener in listeners.items() if listener.listens_to_log)
            self._bell.ring_backfills()
            self._bell.ring_queue()
            self._follow(connection, last)

    def _follow(self, connection: Connection, last: int) -> None:
        looked = time.monotonic()
        while not self._stopped.is_set():
            net_seconds = POLL_SECONDS if self._is_mute else self._net_seconds
            told = self._told(connection, looked + net_seconds - time.monotonic())
            if told is None and time.monotonic() >= looked + net_seconds:
                grown = self._ring_for(connection, last, ())
                if grown > last and not self._is_mute:
                    # The notification follows the event. It may be under way.
                    told = self._told(connection, _NOTIFICATION_SECONDS)
                    if told is None:
                        self._notify_by_trigger(connection)
                last, looked = grown, time.monotonic()
            if told is not None:
                last = self._ring_for(connection, last, told)

    def _told(self, connection: Connection, seconds: float) -> set[int] | None:
        """The ids of the events that were told within so many seconds; None if nothing was."""
        select.select([connection.fileno(), self._wake_reader], [], [], max(0.0, seconds))
        connection.poll()
        told = [notify.payload for notify in connection.notifies if notify.channel == CHANNEL]
        if len(told) < len(connection.notifies):
            self._bell.ring_backfills()
        connection.notifies.clear()
        return told_ids(told) if told else None

    def _ring_for(self, connection: Connection, last: int, told: Collection[int]) -> int:
        """Ring for events; returns the highest id of all."""
        give_up = time.monotonic() + _EFFECT_SECONDS
        events = self._events(connection, last, told)
        while not all(event.has_effect for event in events) and time.monotonic() < give_up:
            self._ring([event for event in events if event.has_effect])
            pending = [event.id for event in events if not event.has_effect]
            last = max([last, *(event.id for event in events)])
            self._stopped.wait(_EFFECT_PAUSE_SECONDS)
            events = self._events(connection, last, pending)
        self._ring(events)
        return max([last, *told, *(event.id for event in events)])

    def _ring(self, events: Collection[LogEvent]) -> None:
        if events:
            self._bell.ring(woken(events, self._bell.listeners))
            if wakes_queue(events):
                self._bell.ring_queue()
            if wakes_backfills(events):
                self._bell.ring_backfills()

    @staticmethod
    def _events(connection: Connection, after: int, told: Collection[int]) -> list[LogEvent]:
        kinds = [*ASSET_EVENTS, *RUN_EVENTS]
        with connection.cursor() as sql:
            sql.execute(_EVENTS, {"after": after, "told": list(told), "kinds": kinds})
            return [
                LogEvent(id, kind, asset, location or "", effect is not False)
                for id, kind, asset, location, effect in sql
            ]

    @staticmethod
    def _tell_of_backfills(connection: Connection) -> None:
        """Have a trigger tell of backfills. Without the privilege for that, they are looked at every 30 s."""
        try:
            with connection.cursor() as sql:
                sql.execute(_HAS_BACKFILL_TRIGGER)
                if sql.fetchone() == (False,):
                    sql.execute(_BACKFILL_TRIGGER)
        except psycopg2.DatabaseError as error:
            if connection.closed:
                raise
            logger.warning("no trigger tells of backfills (%s); they are looked at every 30 s", str(error).strip())

    def _notify_by_trigger(self, connection: Connection) -> None:
        """Have a trigger of ours notify. If that can't be, or does not help, the log is looked at every 5 s."""
        logger.warning("Dagster has stored events without a notification; a trigger on event_logs notifies from now on")
        try:
            if self._has_trigger:
                raise psycopg2.DatabaseError("the notifications of the trigger do not arrive")
            with connection.cursor() as sql:
                sql.execute(_TRIGGER)
            self._has_trigger = True
        except psycopg2.DatabaseError as error:
            if connection.closed:
                raise
            logger.warning("no trigger notifies of events (%s); Dagster's log is read every 5 s", str(error).strip())
            self._is_mute = True


def _notice_dead_peer(connection: Connection) -> None:
    """Have the kernel end a connection over a network whose other end is gone. Nothing else is sent for hours."""
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        if line.family == socket.AF_UNIX:
            return
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, seconds in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
