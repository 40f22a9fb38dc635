"""Runs of `users/raw` and `users/users` against a real API and a real database."""

import json
import time
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets.resources.postgres import PostgresResource
from dedp_assets.user_intake import contract
from dedp_assets.user_intake.assets import raw, users
from tests.user_api import PASSWORD, Api, send, user

DAY = "2024-01-05"


@pytest.fixture(autouse=True)
def setting(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API is that of the test, and the pauses between attempts are short."""
    sleep = time.sleep
    monkeypatch.setattr("time.sleep", lambda seconds: sleep(min(seconds, 0.01)))
    monkeypatch.setenv("DEDP_USERS_API", api.url)


def materialize(
    instance: dg.DagsterInstance, dsn: str, *assets: dg.AssetsDefinition, day: str = DAY, **options: Any
) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        list(assets or (raw, users)),
        partition_key=day,
        instance=instance,
        resources={"postgres": PostgresResource(dsn=dsn)},
        raise_on_error=False,
        **options,
    )


def metadata_of(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> dict[str, Any]:
    (event,) = [event for event in result.get_asset_materialization_events() if event.asset_key == key]
    return {name: value.value for name, value in event.materialization.metadata.items()}


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    assert not result.success
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    return str(failures[0].user_failure_data.description)  # type: ignore[union-attr]


def emails(tables: Connection) -> set[str]:
    with tables, tables.cursor() as cursor:
        cursor.execute("SELECT email FROM dedp.users")
        return {email for (email,) in cursor.fetchall()}


def test_an_intake_fetches_checks_and_stores_and_says_what_it_did(
    api: Api, instance: dg.DagsterInstance, dsn: str, tables: Connection
) -> None:
    api.users = [*(user(number) for number in range(249)), user(7, email=None)]
    result = materialize(instance, dsn)
    assert result.success
    found = metadata_of(result, contract.RAW)
    assert {name: found[name] for name in ("users", "pages", "pages_repeated", "attempts_failed")} == {
        "users": 250,
        "pages": 3,
        "pages_repeated": [],
        "attempts_failed": 0,
    }
    found = metadata_of(result, contract.USERS)
    assert {name.removeprefix("users_"): value for name, value in found.items() if name.startswith("users_")} == {
        "received": 250,
        "inserted": 249,
        "updated": 0,
        "unchanged": 0,
        "superseded": 0,
        "quarantined": 1,
        "repeated": 0,
    }
    assert found["quarantine_reasons"] == {"wrong type": 1}
    assert len(emails(tables)) == 249


def test_a_second_run_of_the_day_fetches_again_and_says_what_has_changed(
    api: Api, instance: dg.DagsterInstance, dsn: str, tables: Connection
) -> None:
    api.users = [user(number) for number in range(5)]
    materialize(instance, dsn)
    api.users[3] = user(3, name={"first": "Bea", "last": "Lee"})
    api.users.append(user(5))
    del api.users[0]
    result = materialize(instance, dsn)
    found = metadata_of(result, contract.USERS)
    assert [found[f"users_{what}"] for what in ("inserted", "updated", "unchanged")] == [1, 1, 3]
    assert found["updated_columns"] == {"firstname": 1}
    assert len(emails(tables)) == 6
    copy = contract.raw_copy(DAY).read_text().splitlines()
    assert [json.loads(line)["user"]["login"]["username"] for line in copy[1:]] == [f"ann{n}" for n in range(1, 6)]


def test_a_password_is_nowhere(
    api: Api,
    instance: dg.DagsterInstance,
    dsn: str,
    tables: Connection,
    own_home: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Wherever it stands in the answer, and also if the answer is of no use."""
    api.users = [user(1), user(2, email=None), user(3, login=PASSWORD), PASSWORD, {"password": PASSWORD}]
    api.answers = [send(200, json.dumps({"error": PASSWORD}).encode()), send(500, PASSWORD.encode())]
    assert materialize(instance, dsn).success
    api.always = send(200, json.dumps([PASSWORD]).encode())
    assert not materialize(instance, dsn, raw, day="2024-01-06").success
    with tables, tables.cursor() as cursor:
        stored = ""
        for table in ("users", "users_as_of", "users_quarantine", "users_intakes"):
            cursor.execute(f"SELECT * FROM dedp.{table}")
            stored += str(cursor.fetchall())
    files = [path.read_text() for path in own_home.rglob("*") if path.is_file()]
    runs = [run.run_id for run in instance.get_runs()]
    events = [str(entry) for run in runs for entry in instance.all_logs(run)]
    assert len(runs) == 2
    assert len(events) > 20
    for text in [stored, *files, *events, *capfd.readouterr()]:
        assert PASSWORD not in text


def test_a_failed_fetch_leaves_the_copy_and_the_users_of_the_day(
    api: Api, instance: dg.DagsterInstance, dsn: str, tables: Connection
) -> None:
    api.users = [user(number) for number in range(150)]
    materialize(instance, dsn)
    before = contract.raw_copy(DAY).read_bytes()
    api.answers = [api.page, send(404)]
    assert "page 2 of" in failure_of(materialize(instance, dsn))
    assert contract.raw_copy(DAY).read_bytes() == before
    assert list(contract.raw_copy(DAY).parent.iterdir()) == [contract.raw_copy(DAY)]
    assert len(emails(tables)) == 150


def test_without_the_setting_a_fetch_fails_and_says_what_to_set(
    instance: dg.DagsterInstance, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEDP_USERS_API")
    assert "DEDP_USERS_API is not set; expected the URL" in failure_of(materialize(instance, dsn, raw))


@pytest.mark.parametrize(
    "value", ["localhost:8123", "ftp://x/", "http://?key", "http://[::1", "http://a b/", "http://x:y/"]
)
def test_a_setting_that_is_no_url_is_named_and_not_repeated(
    instance: dg.DagsterInstance, dsn: str, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("DEDP_USERS_API", value)
    said = failure_of(materialize(instance, dsn, raw))
    assert "DEDP_USERS_API is not the URL of an endpoint" in said
    assert value not in said


def test_users_of_a_day_without_a_copy_say_what_to_do_first(instance: dg.DagsterInstance, dsn: str) -> None:
    assert f"{contract.raw_copy(DAY)} does not exist; materialize users/raw" in failure_of(
        materialize(instance, dsn, users)
    )


@pytest.mark.parametrize("damage", [lambda text: text[:-20], lambda text: text.replace("Ann", "Eve"), lambda text: ""])
def test_a_damaged_copy_is_not_stored(  # type: ignore[no-untyped-def]
    api: Api, instance: dg.DagsterInstance, dsn: str, tables: Connection, damage
) -> None:
    api.users = [user(1), user(2)]
    materialize(instance, dsn, raw)
    copy = contract.raw_copy(DAY)
    copy.write_text(damage(copy.read_text()))
    assert "is not as it was written; materialize users/raw" in failure_of(materialize(instance, dsn, users))
    assert emails(tables) == set()


def test_a_range_of_days_is_fetched_once_and_is_each_of_these_days(
    api: Api, instance: dg.DagsterInstance, dsn: str, tables: Connection
) -> None:
    api.users = [user(1)]
    tags = {"dagster/asset_partition_range_start": "2024-01-01", "dagster/asset_partition_range_end": "2024-01-03"}
    result = dg.materialize(
        [raw, users], instance=instance, resources={"postgres": PostgresResource(dsn=dsn)}, tags=tags
    )
    assert result.success
    assert len(api.asked) == 1
    assert sorted(path.name for path in contract.raw_folder().iterdir()) == ["2024-01-01", "2024-01-02", "2024-01-03"]
    assert emails(tables) == {"ann1@example.org"}


def test_a_table_of_somebody_else_with_that_name_is_refused_and_stays(
    api: Api, instance: dg.DagsterInstance, empty_dsn: str
) -> None:
    api.users = [user(1)]
    connection = psycopg2.connect(empty_dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA dedp; CREATE TABLE dedp.users (id int)")
    connection.close()
    assert "0001_user_tables.sql" in failure_of(materialize(instance, empty_dsn))
