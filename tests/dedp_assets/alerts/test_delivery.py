"""A message reaches every target at least once, in order, whoever is down, killed or changed meanwhile."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets.alerts import store
from dedp_assets.alerts.delivery import deliver
from dedp_assets.alerts.incidents import Decision, Problem, decide
from dedp_assets.notifications.notification import Notification, NotificationNotSent, NotificationRefused, Notifier
from dedp_assets.notifications.notifiers import FileNotifier
from tests.waiting import wait_until

ALL = ["a", "b"]


class Receiver:
    """Takes messages, or has an error for them."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.error: Callable[[Notification], Exception | None] = lambda _: None

    def send(self, notification: Notification) -> None:
        if error := self.error(notification):
            raise error
        self.got.append(notification.key)


@pytest.fixture
def tables(database: Connection) -> Connection:
    store.ensure_tables(database)
    return database


@pytest.fixture
def receivers() -> dict[str, Receiver]:
    return {name: Receiver() for name in "abc"}


def failed(day: int) -> Problem:
    return Problem(f"run/raw/{day}", "run", f"run/raw/{day}", "raw failed", f"Day {day} failed.", "Mend it.")


def look(tables: Connection, problems: list[Problem], now: float = 0.0, targets: list[str] = ALL) -> Decision:
    return store.look(tables, targets, (), lambda incidents: decide(problems, incidents, now))


def keys_of(decision: Decision) -> list[str]:
    return [message.key for message in decision.messages]


def test_each_target_gets_each_message_once(tables: Connection, receivers: dict[str, Receiver]) -> None:
    keys = keys_of(look(tables, [failed(1), failed(2)]))
    for _ in range(3):
        assert deliver(tables, ALL, receivers.__getitem__) == []
    assert receivers["a"].got == receivers["b"].got == keys
    assert len(keys) == 2


def test_another_process_goes_on_with_the_incidents(tables: Connection, dsn: str) -> None:
    assert len(keys_of(look(tables, [failed(1)], 0.0))) == 1
    other = psycopg2.connect(dsn)
    assert keys_of(look(other, [failed(1)], 15.0)) == []
    look(other, [], 30.0)
    other.close()
    assert [message.subject for message in look(tables, [], 90.0).messages] == ["Over: raw failed"]


def test_what_a_target_missed_comes_in_order_when_it_is_up_again(
    tables: Connection, receivers: dict[str, Receiver]
) -> None:
    receivers["a"].error = lambda _: NotificationNotSent("down")
    keys = []
    for number, problems in enumerate([[failed(1)], [], [], [failed(2)]]):
        keys += keys_of(look(tables, problems, number * 100.0))
        assert [str(error) for error in deliver(tables, ALL, receivers.__getitem__)] == ["down"] * bool(keys)
    assert receivers["b"].got == keys
    receivers["a"].error = lambda _: None
    deliver(tables, ALL, receivers.__getitem__)
    assert receivers["a"].got == keys
    assert len(keys) == 3


def test_a_message_that_is_refused_holds_up_no_other_and_is_kept(
    tables: Connection, receivers: dict[str, Receiver]
) -> None:
    first, second = keys_of(look(tables, [failed(1), failed(2)], targets=["a"]))
    receivers["a"].error = lambda message: NotificationRefused("no") if message.key == first else None
    deliver(tables, ["a"], receivers.__getitem__)
    deliver(tables, ["a"], receivers.__getitem__)
    assert receivers["a"].got == [second]
    receivers["a"].error = lambda _: None
    with tables, tables.cursor() as cursor:
        cursor.execute("UPDATE dedp.alert_deliveries SET due_at = now()")
    deliver(tables, ["a"], receivers.__getitem__)
    assert receivers["a"].got == [second, first]


def test_a_message_that_can_not_be_sent_by_a_fault_of_ours_holds_up_no_other_and_shows_no_token(
    tables: Connection, receivers: dict[str, Receiver]
) -> None:
    first, second = keys_of(look(tables, [failed(1), failed(2)], targets=["a"]))
    receivers["a"].error = lambda message: UnicodeError("T0kEn") if message.key == first else None
    assert deliver(tables, ["a"], receivers.__getitem__) == ["the message could not be sent (UnicodeError)"]
    assert receivers["a"].got == [second]
    with tables, tables.cursor() as cursor:
        cursor.execute("SELECT problem FROM dedp.alert_deliveries WHERE sent_at IS NULL")
        assert cursor.fetchall() == [("the message could not be sent (UnicodeError)",)]


def test_a_clock_that_was_set_back_delays_no_message(tables: Connection, receivers: dict[str, Receiver]) -> None:
    keys = keys_of(look(tables, [failed(1)], targets=["a"]))
    with tables, tables.cursor() as cursor:
        cursor.execute("UPDATE dedp.alert_deliveries SET due_at = now() + interval '1 day'")
    deliver(tables, ["a"], receivers.__getitem__)
    assert receivers["a"].got == keys


def test_a_process_with_other_targets_takes_no_message_from_theirs(
    tables: Connection, receivers: dict[str, Receiver]
) -> None:
    keys = keys_of(look(tables, [failed(1)], targets=["a"]))
    receivers["a"].error = lambda _: NotificationNotSent("down")
    deliver(tables, ["a"], receivers.__getitem__)
    # By hand, say. It is the first to see the next failure, and sends all that it can.
    keys += keys_of(look(tables, [failed(1), failed(2)], targets=["b"]))
    deliver(tables, ["b"], receivers.__getitem__)
    assert keys_of(look(tables, [failed(1), failed(2)], targets=["a"])) == []
    receivers["a"].error = lambda _: None
    deliver(tables, ["a"], receivers.__getitem__)
    assert receivers["a"].got == keys
    assert receivers["b"].got == keys  # the first one had reached nobody
    assert len(keys) == 2


def test_what_waits_for_a_target_that_was_replaced_goes_to_the_new_one(
    tables: Connection, receivers: dict[str, Receiver]
) -> None:
    keys = keys_of(look(tables, [failed(1)]))
    receivers["a"].error = lambda _: NotificationNotSent("gone")
    deliver(tables, ALL, receivers.__getitem__)
    for _ in range(2):
        look(tables, [failed(1)], targets=["b", "c"])
        deliver(tables, ["b", "c"], receivers.__getitem__)
    assert (receivers["a"].got, receivers["b"].got, receivers["c"].got) == ([], keys, keys)


def test_a_target_that_no_process_has_had_for_a_week_is_forgotten_with_what_waits_for_it(
    tables: Connection, receivers: dict[str, Receiver]
) -> None:
    look(tables, [failed(1)], targets=["a"])
    with tables, tables.cursor() as cursor:
        cursor.execute("UPDATE dedp.alert_targets SET seen_at = now() - interval '8 days'")
    keys = keys_of(look(tables, [failed(1), failed(2)], targets=["b"]))
    deliver(tables, ["a"], receivers.__getitem__)
    deliver(tables, ["b"], receivers.__getitem__)
    assert receivers["a"].got == []
    assert receivers["b"].got[1:] == keys
    assert len(receivers["b"].got) == 2


def test_a_target_that_was_away_with_its_process_for_weeks_gets_what_waits_for_it(
    tables: Connection, receivers: dict[str, Receiver]
) -> None:
    keys = keys_of(look(tables, [failed(1)], targets=["a"]))
    with tables, tables.cursor() as cursor:
        cursor.execute("UPDATE dedp.alert_targets SET seen_at = now() - interval '30 days'")
    look(tables, [failed(1)], targets=["a"])
    deliver(tables, ["a"], receivers.__getitem__)
    assert receivers["a"].got == keys


def test_a_new_target_does_not_get_what_is_old(tables: Connection, receivers: dict[str, Receiver]) -> None:
    look(tables, [failed(1)], targets=["a"])
    deliver(tables, ["a"], receivers.__getitem__)
    look(tables, [failed(1)], targets=["a", "b"])
    deliver(tables, ["a", "b"], receivers.__getitem__)
    assert receivers["b"].got == []


def in_a_process_that_dies(work: Callable[[], object]) -> None:
    """Do it in a fork, which ends without any clean-up when `os._exit(9)` is called in it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


class DiesAfterSending(FileNotifier):
    def send(self, notification: Notification) -> None:
        super().send(notification)
        os._exit(9)


def test_a_process_that_is_killed_between_sending_and_recording_sends_again_with_the_same_key(
    tables: Connection, dsn: str, tmp_path: Path
) -> None:
    (key,) = keys_of(look(tables, [failed(1)], targets=["a"]))
    file = tmp_path / "received"

    def die() -> None:
        deliver(psycopg2.connect(dsn), ["a"], lambda _: DiesAfterSending(file))

    def has_gone_on() -> bool:
        # PostgreSQL needs a moment to notice that the process is gone. Until then, its target is its own.
        deliver(tables, ["a"], lambda _: FileNotifier(file))
        return len(file.read_text().splitlines()) > 1

    in_a_process_that_dies(die)
    wait_until(has_gone_on)
    has_gone_on()
    assert [key in line for line in file.read_text().splitlines()] == [True, True]


class DiesWhenTheMessageIsWritten(list[str]):
    """The targets of a look. They are asked for after the incidents are written, and before the commit."""

    def __iter__(self) -> NoReturn:
        os._exit(9)


def test_a_process_that_is_killed_while_it_decides_loses_nothing(
    tables: Connection, dsn: str, receivers: dict[str, Receiver]
) -> None:
    def die() -> None:
        look(psycopg2.connect(dsn), [failed(1)], targets=DiesWhenTheMessageIsWritten())

    in_a_process_that_dies(die)
    assert store.read_incidents(tables) == {}
    keys = keys_of(look(tables, [failed(1)], targets=["a"]))
    deliver(tables, ["a"], receivers.__getitem__)
    assert receivers["a"].got == keys


def test_two_processes_that_look_at_once_tell_once(tables: Connection, dsn: str) -> None:
    other = psycopg2.connect(dsn)

    def decide_while_the_other_waits(incidents: object) -> Decision:
        with other.cursor() as cursor:
            cursor.execute("SET lock_timeout = '50ms'")
            with pytest.raises(psycopg2.errors.LockNotAvailable):
                cursor.execute("SELECT pg_advisory_xact_lock(hashtext('dedp alerts: look'))")
        other.rollback()
        return decide([failed(1)], {}, 0.0)

    store.look(tables, ["a"], (), decide_while_the_other_waits)
    assert keys_of(look(other, [failed(1)])) == []
    other.close()


def test_two_processes_do_not_send_the_same_message(
    tables: Connection, dsn: str, receivers: dict[str, Receiver]
) -> None:
    keys = keys_of(look(tables, [failed(1)], targets=["a"]))
    other = psycopg2.connect(dsn)

    def notifier_for(target: str) -> Notifier:
        deliver(other, ["a"], receivers.__getitem__)  # while this process sends
        return receivers[target]

    deliver(tables, ["a"], notifier_for)
    assert receivers["a"].got == keys
    keys += keys_of(look(tables, [failed(1), failed(2)], targets=["a"]))
    deliver(other, ["a"], receivers.__getitem__)  # the first one is done, and still connected
    other.close()
    assert receivers["a"].got == keys
    assert len(keys) == 2


def test_an_old_message_is_forgotten_once_it_has_reached_its_targets(
    tables: Connection, receivers: dict[str, Receiver]
) -> None:
    first, second = keys_of(look(tables, [failed(1), failed(2)], targets=["a"]))
    receivers["a"].error = lambda message: NotificationRefused("no") if message.key == first else None
    deliver(tables, ["a"], receivers.__getitem__)
    with tables, tables.cursor() as cursor:
        cursor.execute("UPDATE dedp.alert_messages SET created_at = created_at - interval '91 days'")
    look(tables, [failed(1), failed(2)], targets=["a"])
    with tables, tables.cursor() as cursor:
        cursor.execute("SELECT key FROM dedp.alert_messages")
        assert cursor.fetchall() == [(first,)]
    assert receivers["a"].got == [second]


def test_a_target_and_its_token_are_in_no_table(tables: Connection) -> None:
    look(tables, [failed(1)], targets=["https://hooks.example/T0kEn"])
    with tables, tables.cursor() as cursor:
        cursor.execute("SELECT target FROM dedp.alert_deliveries")
        assert "T0kEn" not in str(cursor.fetchall())
