"""The user intake: an API that is down and comes up, three pages, one bad user, and a user who moves."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from psycopg2.extensions import connection as Connection

from dedp_assets.demo.commands import by_hand
from dedp_assets.demo.timeline import Act, Timeline, checked, headline, results
from dedp_assets.user_intake import contract
from dedp_assets.user_intake.serving import UsersServer, made_users, serving

USERS = 250
ASSETS = [contract.RAW, contract.USERS]


@contextmanager
def api() -> Iterator[UsersServer]:
    """An API that is down at first. The code location, which is started inside the block, gets its address."""
    with serving(made_users(USERS, bad=1)) as server:
        server.is_up = False
        os.environ["DEDP_USERS_API"] = server.url
        yield server


def act(timeline: Timeline, database: Connection, server: UsersServer) -> Act:
    """Play the act; return whether every checked result is the expected one. Raises DemoFailed."""
    return (yield from _first_fetch(timeline, database, server)) and (yield from _again(timeline, database, server))


def _first_fetch(timeline: Timeline, database: Connection, server: UsersServer) -> Act:
    headline(f"Users, 1 of 2: an API has {USERS} users, and is down. A sensor asks again until it is up.")
    yield lambda: server.asked > 0
    timeline.tell(f"down           {server.url} has answered 503, so no run was requested; now it is up")
    server.is_up = True
    yield lambda: timeline.counts[contract.USERS] > 0
    with results("Users, 1 of 2: fetched, checked and stored"):
        day = timeline.partitions[contract.USERS][0]
        copy = contract.raw_copy(day).read_text(encoding="utf-8")
        quarantined = _query(database, "SELECT reason, detail FROM dedp.users_quarantine")
        good = [
            checked("pages in the raw copy", len({line[:11] for line in copy.splitlines()[1:]}), 3),
            checked("passwords in the raw copy", copy.count("secret"), 0),
            checked("rows in dedp.users", _query(database, "SELECT count(*) FROM dedp.users")[0][0], USERS - 1),
            checked("users in quarantine", len(quarantined), 1),
        ]
        for reason, detail in quarantined:
            click.echo(f"         {reason}: {detail}")
        return all(good)


def _again(timeline: Timeline, database: Connection, server: UsersServer) -> Act:
    day = timeline.partitions[contract.USERS][0]
    command = [
        *("dagster", "asset", "materialize", "-m", "jobs.user_intake"),
        *("--select", "users/raw*", "--partition", day),
    ]
    headline(f"Users, 2 of 2: one user moves, and the day is fetched again:\n   dedp exec {shlex.join(command)}")
    server.users[0]["location"]["country"] = "Iceland"
    yield from by_hand(command)
    yield lambda: timeline.counts[contract.USERS] > 1
    with results("Users, 2 of 2: one user has changed"):
        ((inserted, updated, unchanged),) = _query(
            database, "SELECT inserted, updated, unchanged FROM dedp.users_intakes"
        )
        return all(
            [
                checked("users inserted", inserted, 0),
                checked("users updated", updated, 1),
                checked("users unchanged", unchanged, USERS - 2),
            ]
        )


def _query(database: Connection, sql: str) -> list[tuple[Any, ...]]:
    with database.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()
