"""The command `dedp late`, as people and scripts use it."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from dedp_assets import local_stack
from dedp_assets.cli import dedp
from dedp_assets.late_data_integrator import cli, contract
from dedp_assets.late_data_integrator.overview import STATUSES
from dedp_assets.late_data_integrator.processing import lateness
from tests.dedp_assets.late_data_integrator.device_tables import Lake, Run
from tests.dedp_command import run_dedp

D1, D2, D3, D4 = "2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"
NOT_UP = "Dagster is not up (`make up`): which days are running or failed is not known"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def a_late_day(lake: Lake, run: Run) -> datetime:
    """Four days. The first two are counted; the second has changed twice since. Returns when it changed last."""
    for day in (D1, D2, D3, D4):
        lake.append(day, "a")
    run(D1, D2)
    lake.append(D2, "late")
    lake.append(D2, "later")
    return [commit.timestamp for commit in lake.log.commits(-1)][-1]


@pytest.fixture
def instance(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of `make up`, with its database. This process's environment does not name it."""
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    with local_stack.environment() as shared, pytest.MonkeyPatch.context() as patch:
        local_stack.create_instance_schema(shared)
        for name in ("DAGSTER_HOME", "DEDP_DAGSTER_STORAGE"):
            patch.setenv(name, shared[name])
        with dg.DagsterInstance.get() as instance:
            patch.undo()
            yield instance


@pytest.fixture
def is_up(own_home: Path) -> Iterator[None]:
    """The lock that a running `dedp up` holds."""
    with open(own_home / "up.pid", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def late(*arguments: str) -> list[str]:
    result = CliRunner().invoke(dedp, ["late", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def add_run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, day: str) -> None:
    instance.run_storage.add_run(
        dg.DagsterRun(
            job_name="__ASSET_JOB",
            status=status,
            tags={"dagster/partition": day},
            asset_selection={contract.DEVICE_COUNTS},
        )
    )


def test_the_days_that_are_behind_come_in_a_table_of_80_columns_and_the_clean_ones_in_a_number(
    a_late_day: datetime,
) -> None:
    how_late = cli.format_duration(lateness(D2, a_late_day))
    assert late() == [
        "day         status   input  counts  late commits  last one (UTC)    lateness",
        f"2024-01-02  late         5       3             2  {a_late_day:%Y-%m-%d %H:%M}  {how_late}",
        "2024-01-03  waiting      2       -",
        "2024-01-04  open         3       -",
        "4 days at version 5: 1 late, 1 waiting, 1 open, 1 clean (--all shows them)",
        NOT_UP,
    ]
    assert max(len(line) for line in late()) <= 80


def test_all_shows_the_clean_days_at_the_end(a_late_day: datetime) -> None:
    lines = late("--all")
    assert lines[4] == "2024-01-01  clean        0       3"
    assert lines[5] == "4 days at version 5: 1 late, 1 waiting, 1 open, 1 clean"


def test_when_every_day_is_clean_there_is_no_table(lake: Lake, run: Run) -> None:
    lake.append(D1, "a")
    run(D1)
    assert late() == ["1 day at version 0: 1 clean (--all shows them)", NOT_UP]


def test_json_says_the_same_with_the_versions_of_the_late_commits(a_late_day: datetime, lake: Lake) -> None:
    found = json.loads("\n".join(late("--json")))
    assert [day["day"] for day in found.pop("days")] == [D2, D3, D4]
    assert found == {
        "table": lake.devices_uri,
        "version": 5,
        "summary": {"failed": 0, "late": 1, "running": 0, "waiting": 1, "open": 1, "clean": 1},
        "runs_unknown": "Dagster is not up (`make up`)",
        "commits_missing": 0,
        "partitions_left_out": [],
    }
    assert json.loads("\n".join(late("--json", "--all")))["days"][0] == {
        "day": D2,
        "status": "late",
        "input_version": 5,
        "counts_version": 3,
        "late_commits": [4, 5],
        "last_late_commit": a_late_day.isoformat(),
        "lateness_seconds": lateness(D2, a_late_day).total_seconds(),
        "gone": False,
        "of_another_table": False,
    }


def test_what_the_table_cannot_say_is_said_below_it(lake: Lake, run: Run) -> None:
    lake.append(D1, "a")
    lake.append(D2, "a")
    run(D1)
    lake.devices.delete(f"event_time = '{D1}'")
    lake.append("2023-12-31", "a")
    assert late()[-3:-1] == [
        f"Gone from the input: {D1}",
        "Left out, because there are no such days (yet): '2023-12-31'",
    ]
    shutil.rmtree(lake.devices_uri)
    lake.append(D1, "b")
    assert late()[-2] == f"Counted from an earlier table at the same place: {D1}"


def test_a_version_that_is_gone_from_the_log_is_a_question_mark_with_a_reason(lake: Lake) -> None:
    lake.append(D1, "a")
    lake.append(D2, "a")
    lake.devices.create_checkpoint()
    (Path(lake.devices_uri) / "_delta_log" / f"{0:020}.json").unlink()
    lines = late()
    assert lines[1] == "2024-01-01  waiting      ?       -"
    assert lines[-2] == "1 commit not read, or gone from the log: hence ? for a version"


def test_without_a_table_it_says_what_makes_one(lake: Lake) -> None:
    result = CliRunner().invoke(dedp, ["late"])
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: there is no Delta table at {lake.devices_uri}; `dedp load-delta 2024-01-02` writes one\n"
    )


def test_a_table_that_cannot_be_read_is_an_error_of_one_line(lake: Lake) -> None:
    lake.append(D1, "a")
    (Path(lake.devices_uri) / "_delta_log" / f"{0:020}.json").write_text("rubbish\n", encoding="utf-8")
    result = CliRunner().invoke(dedp, ["late"])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {lake.devices_uri}: deltalake can't read the table's log")
    assert result.stderr.count("\n") == 1


def test_the_picture_is_written_beside_the_table_and_does_not_disturb_the_json(
    a_late_day: datetime, tmp_path: Path
) -> None:
    file = tmp_path / "late.png"
    result = CliRunner().invoke(dedp, ["late", "--json", "--picture", str(file)])
    assert (result.exit_code, result.stderr) == (0, f"The picture is in {file}\n")
    assert json.loads(result.stdout)["version"] == 5
    assert file.read_bytes().startswith(PNG)


def test_a_picture_that_cannot_be_written_is_an_error_of_one_line(a_late_day: datetime, tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "late.png"
    result = CliRunner().invoke(dedp, ["late", "--picture", str(file)])
    assert result.exit_code == 1
    assert result.stderr == f"Error: {file} can't be written: No such file or directory\n"


def test_of_the_system_that_is_up_it_shows_which_days_are_running_and_which_have_failed(
    a_late_day: datetime, instance: dg.DagsterInstance, is_up: None
) -> None:
    add_run(instance, dg.DagsterRunStatus.FAILURE, D2)
    add_run(instance, dg.DagsterRunStatus.NOT_STARTED, D3)
    lines = late()
    assert [line.split()[:2] for line in lines[1:4]] == [[D2, "failed"], [D3, "running"], [D4, "open"]]
    assert lines[4] == "4 days at version 5: 1 failed, 1 running, 1 open, 1 clean (--all shows them)"
    assert len(lines) == 5
    assert "DEDP_DAGSTER_STORAGE" not in os.environ


def test_within_dedp_exec_or_a_container_it_takes_the_instance_of_the_environment(
    a_late_day: datetime, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_run(instance, dg.DagsterRunStatus.STARTED, D2)
    with local_stack.environment() as shared:
        monkeypatch.setenv("DAGSTER_HOME", shared["DAGSTER_HOME"])
        monkeypatch.setenv("DEDP_DAGSTER_STORAGE", shared["DEDP_DAGSTER_STORAGE"])
        lines = late()
    assert lines[1].split()[:2] == [D2, "running"]
    assert NOT_UP not in lines


@pytest.mark.slow
def test_a_database_that_does_not_answer_costs_only_what_dagster_knows(
    a_late_day: datetime, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local_stack.environment() as shared:
        monkeypatch.setenv("DAGSTER_HOME", shared["DAGSTER_HOME"])
    monkeypatch.setenv("DEDP_DAGSTER_STORAGE", "postgresql://somebody:secret@127.0.0.1:1/somewhere")
    result = CliRunner().invoke(dedp, ["late"])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == (
        "Dagster's database does not answer: which days are running or failed is not known"
    )
    assert "secret" not in result.output


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEDP_DAGSTER_STORAGE", "nonsense"),
        ("DEDP_DAGSTER_STORAGE", "postgresql://somebody:secret@127.0.0.1:port/somewhere"),
        ("DAGSTER_HOME", "/not/there"),
        ("DAGSTER_HOME", "relative"),
    ],
)
def test_an_instance_that_cannot_be_opened_costs_only_what_dagster_knows(
    a_late_day: datetime, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with local_stack.environment() as shared:
        for variable in ("DAGSTER_HOME", "DEDP_DAGSTER_STORAGE"):
            monkeypatch.setenv(variable, shared[variable])
    monkeypatch.setenv(name, value)
    result = CliRunner().invoke(dedp, ["late"])
    assert result.exit_code == 0, result.exception
    assert "which days are running or failed is not known" in result.stdout.splitlines()[-1]
    assert "secret" not in result.output


def test_a_store_that_cannot_be_reached_is_an_error_of_one_line_without_its_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "DEDP_DATA_URI": "s3://bucket/lake",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(dedp, ["late"])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "s3://bucket/lake" in result.stderr
    assert "Connection refused" in result.stderr
    assert "secret" not in result.output


def test_with_nothing_up_nothing_is_started_and_nothing_is_made(
    lake: Lake, run: Run, own_home: Path, left_running: Callable[[Path], list[str]]
) -> None:
    lake.append(D1, "a")
    before = sorted(own_home.rglob("*"))
    done = run_dedp("late")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1] == "2024-01-01  open        0       -"
    assert sorted(own_home.rglob("*")) == before
    assert left_running(own_home) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (40, "40 s"),
        (60, "1 min"),
        (3 * 3600 + 299, "3 h 4 min"),
        (58 * 3600, "2 d 10 h"),
        (-90, "-1 min"),
        (0, "0 s"),
    ],
)
def test_a_lateness_is_told_in_its_two_largest_units(seconds: int, words: str) -> None:
    assert cli.format_duration(timedelta(seconds=seconds)) == words


def test_the_help_explains_every_status_as_the_code_does() -> None:
    output = " ".join(CliRunner().invoke(dedp, ["late", "--help"]).output.split())
    for status, meaning in STATUSES.items():
        assert status == "clean" or f"{status} {meaning}" in output
