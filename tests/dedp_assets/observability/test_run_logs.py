"""`dedp logs` prints what runs log, once, as JSON with the run, the asset and the partition."""

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
import psycopg2
import pytest

from dedp_assets.observability.dagster_tables import connected_to_dagster
from dedp_assets.observability.run_logs import Place, line_of, read_on
from tests.dagster_in_postgres import dagster_in_postgres
from tests.dedp_command import run_dedp

pytestmark = pytest.mark.slow


@dg.asset(partitions_def=dg.DailyPartitionsDefinition("2024-01-01"))
def tide(context: dg.AssetExecutionContext) -> None:
    context.log.warning("the gauge is at Größe 5")
    if context.partition_key == "2024-01-03":
        raise ValueError("no moon")


@pytest.fixture(scope="module")
def dagster(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dg.DagsterInstance, str]]:
    with dagster_in_postgres(module_dsn, tmp_path_factory.mktemp("instance")) as found:
        yield found


def run(instance: dg.DagsterInstance, day: str) -> str:
    tags = {".dagster/repository": "__repository__@jobs.tides"}
    return dg.materialize([tide], instance=instance, partition_key=day, tags=tags, raise_on_error=False).run_id


def test_what_runs_log_is_printed_with_its_run_asset_and_partition(
    dagster: tuple[dg.DagsterInstance, str], module_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine, failed = (run(dagster[0], day) for day in ("2024-01-02", "2024-01-03"))
    monkeypatch.setenv("DEDP_POSTGRES_DSN", module_dsn)
    ended = run_dedp("logs")
    assert ended.returncode == 0, ended.stderr
    lines: list[dict[str, Any]] = [json.loads(line) for line in ended.stdout.splitlines()]
    said = [line for line in lines if line["event"] == "the gauge is at Größe 5"]
    assert [(line["level"], line["run_id"], line["step"], line["partition"], line["location"]) for line in said] == [
        ("warning", fine, "tide", "2024-01-02", "jobs.tides"),
        ("warning", failed, "tide", "2024-01-03", "jobs.tides"),
    ]
    (made,) = [line for line in lines if line.get("type") == "ASSET_MATERIALIZATION"]
    assert (made["asset"], made["partition"], made["run_id"]) == ("tide", "2024-01-02", fine)
    (error,) = [line for line in lines if line.get("type") == "STEP_FAILURE"]
    assert (error["level"], "no moon" in error["error"]) == ("error", True)
    assert all(line["timestamp"].endswith("+00:00") for line in lines)


def test_each_line_comes_once_also_one_that_another_run_commits_later(dagster: tuple[dg.DagsterInstance, str]) -> None:
    instance, url = dagster
    event = json.dumps({"level": 20, "user_message": "late", "run_id": "x", "timestamp": 1.0})
    insert = "INSERT INTO event_logs (run_id, event, timestamp) VALUES ('x', %s, now() AT TIME ZONE 'UTC')"
    with connected_to_dagster(url) as reading:
        _, place = read_on(reading, Place(1))
        slow = psycopg2.connect(url)
        slow.cursor().execute(insert, [event])  # takes its id, and commits later
        run(instance, "2024-01-04")
        first, place = read_on(reading, place)
        slow.commit()
        slow.close()
        second, place = read_on(reading, place)
        assert any("Größe" in line for line in first)
        assert [json.loads(line)["event"] for line in second] == ["late"]
        assert read_on(reading, place)[0] == []


def test_a_line_has_no_line_break_whatever_the_message_is() -> None:
    line = line_of(
        json.dumps({"level": 20, "user_message": "two\nlines\x1b[2J", "run_id": "x"}), None, None, None, None
    )
    assert "\n" not in line
    assert "\x1b" not in line
