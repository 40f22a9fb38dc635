"""Loads that stop at one point, until the test lets go of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from psycopg2.extensions import connection as Connection

from tests.dedp_assets.isolated_sequencer.aggregator.loads import connected

_GATE = 20240101  # an advisory lock that the test holds and the load has to wait for

# Each makes the load stop at one point, from within the database, until the test lets go of _GATE.
_WAIT_AT_COMMAND = """
    CREATE FUNCTION wait_at_gate() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF current_query() LIKE '%{0}%' THEN PERFORM pg_advisory_xact_lock({1}); END IF;
    END $$;
    CREATE EVENT TRIGGER gate ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION wait_at_gate();
"""
_WAIT_AT_WRITE = """
    CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_advisory_xact_lock({1}); RETURN NULL; END $$;
    CREATE {0} EXECUTE FUNCTION wait_at_gate();
"""


class Step(NamedTuple):
    """A point in a load at which it can be made to wait."""

    waits: str
    reload: bool
    commits: bool = False


STEPS = {
    "key is built, new": Step(_WAIT_AT_COMMAND.format("ADD PRIMARY KEY", _GATE), reload=False),
    "key is built, again": Step(_WAIT_AT_COMMAND.format("ADD PRIMARY KEY", _GATE), reload=True),
    "partition is attached": Step(_WAIT_AT_COMMAND.format("ATTACH PARTITION", _GATE), reload=False),
    "quarantine is written": Step(
        _WAIT_AT_WRITE.format("TRIGGER gate AFTER INSERT ON dedp.devices_quarantine FOR EACH ROW", _GATE), reload=True
    ),
    "rows are gone": Step(
        _WAIT_AT_WRITE.format("TRIGGER gate AFTER DELETE ON dedp.devices_raw FOR EACH STATEMENT", _GATE), reload=True
    ),
    "rows have come": Step(
        _WAIT_AT_WRITE.format("TRIGGER gate AFTER INSERT ON dedp.devices_raw FOR EACH STATEMENT", _GATE), reload=True
    ),
    "ledger is written, new": Step(
        _WAIT_AT_WRITE.format("TRIGGER gate AFTER UPDATE ON dedp.devices_loads FOR EACH ROW", _GATE), reload=False
    ),
    "ledger is written, again": Step(
        _WAIT_AT_WRITE.format("TRIGGER gate AFTER UPDATE ON dedp.devices_loads FOR EACH ROW", _GATE), reload=True
    ),
    # The server has been told to commit, and nobody is left to hear that it did.
    "commit": Step(
        _WAIT_AT_WRITE.format(
            "CONSTRAINT TRIGGER gate AFTER UPDATE ON dedp.devices_loads DEFERRABLE INITIALLY DEFERRED FOR EACH ROW",
            _GATE,
        ),
        reload=True,
        commits=True,
    ),
}


WAITING_CHILD = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'child' "
    "AND wait_event_type = 'Lock'"
)
NO_CHILD = "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'child'"


@contextmanager
def closed_gate(dsn: str) -> Iterator[Connection]:
    """Hold _GATE until the block ends or the connection given is rolled back."""
    with connected(dsn) as connection:
        connection.cursor().execute("SELECT pg_advisory_xact_lock(%s)", [_GATE])
        yield connection
