"""Does the service in this container work? For health checks and probes, which run often: it imports little.

    python docker/healthy.py grpc 4000                  a code server, as it says itself
    python docker/healthy.py http 3000 /healthz         a web server
    python docker/healthy.py daemon                     Dagster's daemons, by the signs of life that they leave
    python docker/healthy.py alerts                     `dedp alerts`, by when it has last looked

Ends with 0 if it works, and with HANGS if it is there and gives no sign of life. Everything else, such as a server that
says no, or does not listen yet, or a database that is away, ends with another code: then it is not healthy, and does
not hang. watchdog.sh tells the two from each other.
"""

import os
import sys
import time
from collections.abc import Callable

HANGS = 2
# So long a server may take to answer.
SECONDS = 5
# Dagster's daemons give a sign of life every 30 s, `dedp alerts` looks every 15 s.
SILENT_SECONDS = 120

# The answer SERVING of the gRPC health-checking protocol to the question after "DagsterApi".
QUESTION = b"\x0a\x0aDagsterApi"
SERVING = b"\x08\x01"

# The longest silence among the daemons of the process that spoke last. Those of another process are of an earlier
# version, or of one that has just been started again. The time in the body is UTC, whatever the server's time zone.
LAST_BEAT = """
    SELECT min((body::json ->> 'timestamp')::double precision)
    FROM daemon_heartbeats
    WHERE daemon_id = (
        SELECT daemon_id FROM daemon_heartbeats ORDER BY (body::json ->> 'timestamp')::double precision DESC LIMIT 1
    )
"""
LAST_LOOK = "SELECT extract(epoch FROM ended_at)::double precision FROM dedp.alert_looks"


class Hangs(Exception):
    """The service is there, and gives no sign of life."""


def grpc_serves(port: str) -> bool:
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            return bool(check(QUESTION, timeout=SECONDS, wait_for_ready=False) == SERVING)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise Hangs(f"no answer on port {port} for {SECONDS} s") from None
            raise


def http_answers(port: str, path: str) -> bool:
    from http.client import HTTPConnection

    connection = HTTPConnection("127.0.0.1", int(port), timeout=SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except TimeoutError:
        raise Hangs(f"no answer on port {port} for {SECONDS} s") from None


def daemon_lives() -> bool:
    from dedp_assets import settings

    return _is_recent(settings.dagster_storage(), "daemon_heartbeats", LAST_BEAT)


def alerts_look() -> bool:
    from dedp_assets import settings

    return _is_recent(settings.postgres_dsn(), "dedp.alert_looks", LAST_LOOK)


def _is_recent(dsn: str | None, table: str, query: str) -> bool:
    """Whether a time in the database is recent. Nobody hangs who has left none yet."""
    from contextlib import closing

    import psycopg2

    with closing(psycopg2.connect(dsn, connect_timeout=5)) as connection, connection.cursor() as cursor:
        # Before its first start there is no table. Asking for it would fill the log of PostgreSQL with errors.
        cursor.execute("SELECT to_regclass(%s)", [table])
        if cursor.fetchone() == (None,):
            return False
        cursor.execute(query)
        (last,) = cursor.fetchone() or (None,)
    if last is not None and time.time() - last > SILENT_SECONDS:
        raise Hangs(f"no sign of life for {time.time() - last:.0f} s")
    return last is not None


CHECKS: dict[str, Callable[..., bool]] = {
    "grpc": grpc_serves,
    "http": http_answers,
    "daemon": daemon_lives,
    "alerts": alerts_look,
}


def main(kind: str, *arguments: str) -> int:
    try:
        return 0 if CHECKS[kind](*arguments) else 1
    except Hangs as hangs:
        print(hangs)
        return HANGS
    except Exception as error:  # what it says may hold an address, and no password
        print(f"{type(error).__name__}: {error}")
        return 1


if __name__ == "__main__":
    # Not sys.exit: threads of gRPC may wait for the server, and so would the end of this process.
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)
