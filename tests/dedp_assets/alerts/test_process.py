"""The process that looks and tells: while PostgreSQL is away, it tells of that, and goes on afterwards."""

import json
import subprocess
from itertools import islice
from pathlib import Path

import dagster as dg
import pytest

from dedp_assets.alerts.incidents import Problem, decide
from dedp_assets.alerts.judging import Limits
from dedp_assets.alerts.process import Outage, World, look_once, tell_of_outage, with_links
from dedp_assets.notifications.notification import Notification, NotificationNotSent, Notifier
from dedp_assets.notifications.notifiers import FileNotifier
from dedp_assets.resources.postgres import DatabaseUnavailable
from tests.dedp_command import DEDP, run_dedp

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


class Down:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def send(self, notification: Notification) -> None:
        raise self._error


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(NOWHERE, NOWHERE, None, ["a"], lambda _: FileNotifier(tmp_path / "told"), Limits())


def told(tmp_path: Path) -> list[str]:
    file = tmp_path / "told"
    return [json.loads(line)["subject"] for line in file.read_text().splitlines()] if file.exists() else []


def test_a_look_without_a_database_says_that_it_is_away(world: World, instance: dg.DagsterInstance) -> None:
    with pytest.raises(DatabaseUnavailable):
        look_once(world, instance)


def test_a_database_that_is_away_is_told_once_and_its_return_once(world: World, tmp_path: Path) -> None:
    outage = Outage()
    for now in range(0, 600, 15):
        tell_of_outage(world, outage, "PostgreSQL does not answer: refused", now)
    assert told(tmp_path) == ["PostgreSQL does not answer"]
    for now in range(600, 1200, 15):
        tell_of_outage(world, outage, None, now)
    assert told(tmp_path) == ["PostgreSQL does not answer", "Over: PostgreSQL does not answer"]
    over = json.loads((tmp_path / "told").read_text().splitlines()[1])["text"]
    assert "\nPostgreSQL does not answer: refused. It lasted 10 min.\n" in over


def test_a_database_that_was_only_restarted_is_not_told(world: World, tmp_path: Path) -> None:
    outage = Outage()
    for now, error in ((0, "refused"), (15, "refused"), (30, None), (45, None)):
        tell_of_outage(world, outage, error, now)
    assert told(tmp_path) == []


def test_an_outage_is_told_also_to_a_target_that_could_not_be_reached_at_first(tmp_path: Path) -> None:
    notifiers: list[Notifier] = [
        Down(NotificationNotSent("down")),
        Down(UnicodeError()),
        FileNotifier(tmp_path / "told"),
    ]
    world = World(NOWHERE, NOWHERE, None, ["a"], lambda _: notifiers.pop(0), Limits())
    outage = Outage()
    for now in (0, 60, 75, 90, 105):
        tell_of_outage(world, outage, "refused", now)
    assert told(tmp_path) == ["PostgreSQL does not answer"]


def test_a_target_that_does_not_answer_is_tried_once_a_look_and_gets_what_it_missed_in_order(tmp_path: Path) -> None:
    tried: list[str] = []
    notifier: Notifier = Down(NotificationNotSent("down"))

    def notifier_for(target: str) -> Notifier:
        tried.append(target)
        return notifier

    world, outage = World(NOWHERE, NOWHERE, None, ["a"], notifier_for, Limits()), Outage()
    for now in range(0, 600, 15):
        tell_of_outage(world, outage, "refused" if now < 300 else None, now)
    tried.clear()
    tell_of_outage(world, outage, None, 600)
    assert (len(tried), len(outage.waiting)) == (1, 2)
    notifier = FileNotifier(tmp_path / "told")
    tell_of_outage(world, outage, None, 615)
    assert told(tmp_path) == ["PostgreSQL does not answer", "Over: PostgreSQL does not answer"]


def test_messages_have_links_to_the_ui_if_its_address_is_known() -> None:
    problem = Problem("run/a/", "run", "run/a", "a failed", "a failed.", "Read the run in the UI (/runs/1), mend it.")
    decision = decide([problem], {}, 0.0)
    (message,) = with_links(decision, "https://ui.example").messages
    assert "(https://ui.example/runs/1)" in message.text
    assert with_links(decision, "") == decision


def test_a_wrong_target_ends_the_command_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDP_ALERTS", "log pigeon://T0kEn")
    ended = run_dedp("alerts")
    assert ended.returncode == 1
    assert "DEDP_ALERTS is not a place to send notifications to; expected" in ended.stderr
    assert "T0kEn" not in ended.stderr


def test_a_test_message_reaches_every_target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEDP_ALERTS", f"file:{tmp_path}/told file:{tmp_path}/also")
    ended = run_dedp("alerts", "--test")
    assert ended.returncode == 0, ended.stderr
    assert told(tmp_path) == ["This is a test of the alerts"]
    assert (tmp_path / "also").exists()


def test_a_target_that_does_not_take_the_test_message_does_not_keep_it_from_the_next_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dead = "smtp://127.0.0.1:1?from=a@example.org&to=b@example.org"
    monkeypatch.setenv("DEDP_ALERTS", f"{dead} file:{tmp_path}/told")
    ended = run_dedp("alerts", "--test")
    assert ended.returncode == 1
    assert "Not sent to smtp://127.0.0.1: " in ended.stderr
    assert told(tmp_path) == ["This is a test of the alerts"]


@pytest.mark.slow
def test_a_process_that_starts_while_the_database_is_away_and_a_policy_is_wrong_goes_on_looking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", NOWHERE)
    monkeypatch.setenv("DEDP_FRESHNESS", "raw=soon")  # for it, no code location loads: somebody has to tell of that
    process = subprocess.Popen([DEDP, "alerts", "--every", "1"], stderr=subprocess.PIPE, text=True)
    assert process.stderr
    try:
        said = (line for line in process.stderr if "raw=soon" in line or "PostgreSQL does not answer" in line)
        assert ["raw=soon" in line for line in islice(said, 3)] == [True, False, False]
    finally:
        process.terminate()
        process.communicate()
