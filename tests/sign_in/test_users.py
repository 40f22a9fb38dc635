"""The users in a real PostgreSQL, and the commands that make them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from psycopg2.extensions import cursor as Cursor

from dedp_assets.local_stack.environment import in_schema
from dedp_assets.sign_in import audit, cli, passwords, sessions, throttling, users
from dedp_assets.sign_in.attempts import Attempts, TooManyAttempts
from dedp_assets.sign_in.database import Database, connected
from dedp_assets.sign_in.errors import UserError
from dedp_assets.sign_in.roles import Role
from tests.dedp_command import run_dedp


@pytest.fixture
def cursor(empty_dsn: str) -> Iterator[Cursor]:
    with connected(empty_dsn) as connection:
        yield connection


def test_the_user_that_everybody_knows_is_made_when_there_is_none_and_becomes_one_of_many_with_another_password(
    cursor: Cursor,
) -> None:
    assert users.add_local(cursor)
    found = users.find(cursor, "dedp")
    assert found
    assert found[0] == users.User("dedp", Role.admin, is_local=True)
    assert passwords.is_right("dedp", found[1])
    # An installation elsewhere does not count it: its own first user is made nevertheless.
    assert users.add_first(cursor, "from the settings")
    assert not users.add_first(cursor, "from the settings")
    users.set_password(cursor, "dedp", "nobody knows it")
    assert not users.add_local(cursor)
    assert users.find(cursor, "dedp") != found
    assert users.names(cursor) == ["admin", "dedp"]


def test_without_a_password_in_the_settings_nobody_is_made(cursor: Cursor) -> None:
    assert not users.add_first(cursor, None)
    assert users.names(cursor) == []
    with pytest.raises(UserError, match="the password of admin has 4 characters"):
        users.add_first(cursor, "dedp")


@pytest.mark.parametrize("name", ["", " ada", "ada lovelace", "a" * 64, "ada\n", "-ada", "ädä", "a/b", "<b>"])
def test_a_name_is_one_that_can_stand_anywhere(cursor: Cursor, name: str) -> None:
    with pytest.raises(UserError, match="can't be the name of a user"):
        users.add(cursor, name, "a good password", Role.viewer)


def test_what_is_not_there_is_said(cursor: Cursor) -> None:
    users.add(cursor, "ada", "a good password", Role.viewer)
    with pytest.raises(UserError, match="there is a user ada already"):
        users.add(cursor, "ada", "another password", Role.admin)
    for change in (users.remove, lambda c, n: users.set_role(c, n, Role.admin)):
        with pytest.raises(UserError, match="there is no user bob"):
            change(cursor, "bob")
    with pytest.raises(UserError, match="there is no user bob"):
        users.set_password(cursor, "bob", "a good password")


def test_a_hash_with_the_parameters_of_an_earlier_time_is_replaced_at_the_sign_in(
    cursor: Cursor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "_hasher", lambda: PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1))
    users.add(cursor, "ada", "a good password", Role.viewer)
    monkeypatch.undo()
    (before,) = (found[1] for found in [users.find(cursor, "ada")] if found)
    assert Attempts().user_of(cursor, "ada", "a good password", []) == users.User("ada", Role.viewer)
    (after,) = (found[1] for found in [users.find(cursor, "ada")] if found)
    assert passwords.is_outdated(before)
    assert not passwords.is_outdated(after)
    assert passwords.is_right("a good password", after)


def test_a_password_that_was_right_before_is_guessed_no_faster(cursor: Cursor) -> None:
    users.add(cursor, "ada", "a good password", Role.viewer)
    attempts, buckets = Attempts(), throttling.buckets("ada", "10.0.0.1", None)
    for _ in range(50):  # right ones fill nothing
        assert attempts.user_of(cursor, "ada", "a good password", buckets)
    for _ in range(10):
        assert attempts.user_of(cursor, "ada", "wrong", buckets) is None
    with pytest.raises(TooManyAttempts) as refused:
        attempts.user_of(cursor, "ada", "a good password", buckets)
    assert 0 < refused.value.seconds <= 10
    users.set_password(cursor, "ada", "another password")
    cursor.execute("DELETE FROM dedp_sign_in.wrong_passwords")
    assert attempts.user_of(cursor, "ada", "a good password", buckets) is None


def test_what_is_over_goes_by_itself_and_the_rest_stays(cursor: Cursor) -> None:
    users.add(cursor, "ada", "a good password", Role.viewer)
    sessions.start(cursor, "ada", "10.0.0.1")
    sessions.new_api_token(cursor, "ada", 1)
    sessions.remember_browser(cursor, "ada")
    throttling_of("ada", cursor)
    cursor.execute("UPDATE dedp_sign_in.sessions SET used_at = now() - interval '13 hours'")
    cursor.execute("UPDATE dedp_sign_in.api_tokens SET expires_at = now() - interval '1 s'")
    cursor.execute("UPDATE dedp_sign_in.known_browsers SET created_at = now() - interval '181 days'")
    cursor.execute("UPDATE dedp_sign_in.wrong_passwords SET at = now() - interval '2 hours'")
    kept = sessions.start(cursor, "ada", "10.0.0.1"), sessions.new_api_token(cursor, "ada", None)
    throttling_of("bob", cursor)
    before = counts(cursor)
    sessions.forget(cursor)
    assert before == {"sessions": 2, "api_tokens": 2, "known_browsers": 1, "wrong_passwords": 4}
    assert counts(cursor) == {"sessions": 1, "api_tokens": 1, "known_browsers": 0, "wrong_passwords": 2}
    assert sessions.user_of(cursor, kept[0]) == sessions.user_of_api_token(cursor, kept[1])


def throttling_of(name: str, cursor: Cursor) -> None:
    assert Attempts().user_of(cursor, name, "wrong", throttling.buckets(name, f"address of {name}", None)) is None


def counts(cursor: Cursor) -> dict[str, int]:
    found = {}
    for table in ("sessions", "api_tokens", "known_browsers", "wrong_passwords"):
        cursor.execute(f"SELECT count(*) FROM dedp_sign_in.{table}")
        ((found[table],),) = cursor.fetchall()
    return found


def test_a_browser_is_known_for_the_user_who_has_signed_in_with_it_and_not_for_ever(cursor: Cursor) -> None:
    for name in ("ada", "bob"):
        users.add(cursor, name, "a good password", Role.viewer)
    token = sessions.remember_browser(cursor, "ada")
    assert sessions.known_browser(cursor, "ada", token)
    assert not sessions.known_browser(cursor, "bob", token)
    cursor.execute("UPDATE dedp_sign_in.known_browsers SET created_at = now() - interval '181 days'")
    assert not sessions.known_browser(cursor, "ada", token)


def test_a_name_that_differs_in_capitals_alone_is_taken(cursor: Cursor) -> None:
    users.add(cursor, "Ada", "a good password", Role.viewer)
    with pytest.raises(UserError, match="there is a user ada already, perhaps with other capitals"):
        users.add(cursor, "ada", "a good password", Role.admin)
    assert users.names(cursor) == ["Ada"]


def test_the_log_loses_what_is_older_than_somebody_says_and_nothing_else(cursor: Cursor) -> None:
    for days in (400, 364, 0):
        audit.record(cursor, "ada", "admin", "10.0.0.1", f"{days} days ago", {}, "done")
        cursor.execute(
            "UPDATE dedp_sign_in.audit SET at = now() - make_interval(days => %s) WHERE action = %s",
            [days, f"{days} days ago"],
        )
    assert audit.delete_older_than(cursor, 365) == 1
    assert [entry.action for entry in audit.entries(cursor)] == ["0 days ago", "364 days ago"]


def test_who_uses_the_commands_is_in_the_log_also_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as any user."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54_321)
    assert cli._operator() == "uid 54321"


def test_the_web_server_goes_on_when_its_connections_were_lost(empty_dsn: str) -> None:
    database = Database(empty_dsn)
    with database.cursor() as cursor:
        users.add(cursor, "ada", "a good password", Role.viewer)
    with connected(empty_dsn) as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with database.cursor() as cursor:
        assert users.names(cursor) == ["ada"]


@pytest.fixture
def command(empty_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs `dedp` on a database, with a password in a file. Returns its output, or what it says is wrong."""
    monkeypatch.setenv("DEDP_DAGSTER_STORAGE", in_schema(empty_dsn, "dagster"))

    def run(*words: str, password: str | None = None) -> str:
        if password is not None:
            (tmp_path / "password").write_text(f"{password}\n")
            words = (*words, "--password-file", str(tmp_path / "password"))
        done = run_dedp(*words)
        assert done.returncode == (1 if done.stderr else 0), done.stderr
        return done.stderr or done.stdout

    return run


@pytest.mark.slow
def test_the_commands_make_users_and_the_log_says_so(command: Callable[..., str], empty_dsn: str) -> None:
    assert command("users", "list").startswith("There are no users")
    assert (
        command("users", "add", "ada", "--role", "viewer", password="a good password") == "ada may sign in as viewer.\n"
    )
    assert "the password of bob has 3 characters" in command("users", "add", "bob", "--role", "admin", password="bob")
    assert command("users", "role", "ada", "launcher") == "ada is launcher now.\n"
    token = command("users", "token", "ada", "--days", "2").strip()
    with connected(empty_dsn) as cursor:
        assert sessions.user_of_api_token(cursor, token) == users.User("ada", Role.launcher)
    assert command("users", "list").splitlines()[1].split()[:2] == ["ada", "launcher"]
    assert command("users", "token", "ada", "--end-all") == "Ended 1 API token of ada.\n"
    assert "sessions of ada have ended" in command("users", "password", "ada", password="another password")
    assert command("users", "remove", "ada") == "ada is removed.\n"
    assert "there is no user ada" in command("users", "token", "ada")
    entries = [json.loads(line) for line in command("audit", "--json").splitlines()]
    assert [(entry["action"], entry["about"]["user"]) for entry in reversed(entries)] == [
        *(("add user", "ada"), ("set role", "ada"), ("make API token", "ada"), ("end API tokens", "ada")),
        *(("set password", "ada"), ("remove user", "ada")),
    ]
    assert "password" not in {key for entry in entries for key in entry["about"]}
    assert token not in str(entries)


def test_the_log_is_shown_as_a_table(command: Callable[..., str], empty_dsn: str) -> None:
    with connected(empty_dsn) as cursor:
        number = audit.begin(cursor, "ada", "launcher", "10.0.0.1", "launchRun", {"asset": ["a", "b", "c", "d"]})
        audit.end(cursor, number, "LaunchRunSuccess", ["run 1"])
        audit.begin(cursor, "ada", "launcher", "10.0.0.1", "terminateRun", {"runId": "run 1"})
    ended, launched = command("audit", "--run", "run 1", "--user", "ada", "--days", "1").splitlines()[1:]
    assert launched.split("  ")[1:] == ["ada (launcher)", "10.0.0.1", "launchRun", *launched.split("  ")[4:]]
    assert launched.endswith("LaunchRunSuccess  asset=a,b,c,... (4) run 1")
    assert ended.split()[-2:] == ["runId=run", "1"]
    assert " ? " in ended
    assert command("audit", "--user", "bob") == "There are no such entries.\n"
    with connected(empty_dsn) as cursor:
        audit.record(cursor, "eve", "launcher", "10.0.0.1", "launchRun", {"partitionKey": "\x1b]0;\x07\n2024"}, "done")
    told = command("audit", "--user", "eve")
    assert "\x1b" not in told
    assert told.splitlines()[1].endswith(r"partitionKey=\x1b]0;\x07\n2024")
    with connected(empty_dsn) as cursor:
        cursor.execute("UPDATE dedp_sign_in.audit SET at = now() - interval '400 days' WHERE user_name = 'eve'")
    assert "goes with no other option" in usage("audit", "--delete-older-than", "365", "--user", "eve")
    assert "is not in the range" in usage("audit", "--delete-older-than", "7")
    assert command("audit", "--delete-older-than", "365") == "1 entry deleted.\n"
    assert command("audit", "--delete-older-than", "365") == "0 entries deleted.\n"
    latest = [json.loads(line) for line in command("audit", "--json", "--limit", "2").splitlines()]
    assert [entry["about"] for entry in latest] == [{"entries": number, "older_than_days": 365} for number in (0, 1)]


def usage(*words: str) -> str:
    done = run_dedp(*words)
    assert done.returncode == 2
    return done.stderr
