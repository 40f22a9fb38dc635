"""`dedp uploads` and `dedp metrics`."""

import json
import re
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result
from prometheus_client.parser import text_string_to_metric_families
from psycopg2.extensions import connection as Connection

from dedp_assets import settings
from dedp_assets.cli import dedp
from tests.dedp_command import run_dedp


@pytest.fixture
def run(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command on the test's own database."""
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    return lambda *arguments: CliRunner().invoke(dedp, arguments, catch_exceptions=False)


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Each value of Prometheus text, by its name and the values of its labels in the order of their names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_uploads_shows_each_directory_and_those_that_need_somebody_first(
    tables: Connection, add_directory: Callable[..., None], set_tick: Callable[[], None], run: Callable[..., Result]
) -> None:
    add_directory("north", waiting=3)
    add_directory("south", "failing", problem="/clients/south can't be read: Permission denied", failures=4)
    set_tick()
    result = run("uploads")
    header, south, north, last = result.output.splitlines()
    assert header.split("  ")[0] == "client"
    assert header.split()[-3:] == ["waiting", "failures", "problem"]
    assert south.split()[:3] == ["south", "/clients/south", "failing"]
    assert south.endswith(" 4  /clients/south can't be read: Permission denied")
    assert north.split()[:3] == ["north", "/clients/north", "healthy"]
    assert north.endswith("  3")
    assert last.startswith("2 directories: 1 healthy, 1 failing. The last tick ended ")
    assert last.endswith(" ago and took 20 ms; 7 complete files waited for a free run.")


def test_uploads_says_what_became_of_the_files_of_the_last_day_and_where_the_reasons_are(
    tables: Connection, add_file: Callable[..., None], add_directory: Callable[..., None], run: Callable[..., Result]
) -> None:
    add_directory("north")
    add_file(lines=1200, quarantined=5)
    add_file(file="old.csv", minutes_ago=25 * 60)
    assert (
        run("uploads")
        .output.splitlines()[-1]
        .startswith("Files of the last day: 1 loaded. Of 1,200 lines, 5 are in quarantine. ")
    )
    add_file(file="bad.csv", state="refused", reason="it has no header")
    assert run("uploads").output.splitlines()[-1].endswith("uploads/report.html says why.")
    assert json.loads(run("uploads", "--json").output)["last_day"]["refused"] == 1


def test_uploads_as_json_has_the_same(
    tables: Connection, add_directory: Callable[..., None], set_tick: Callable[[], None], run: Callable[..., Result]
) -> None:
    add_directory("north", "silent")
    set_tick()
    found = json.loads(run("uploads", "--json").output)
    [directory] = found["directories"]
    assert directory.pop("since").startswith("20")
    assert directory == {
        "client": "north",
        "directory": "/clients/north",
        "state": "silent",
        "waiting": 0,
        "failures": 0,
        "problem": "",
    }
    assert found["states"]["silent"] == 1
    assert found["tick"]["queue_depth"] == 7


def test_no_name_of_a_directory_reaches_the_terminal_as_a_command(
    tables: Connection, add_directory: Callable[..., None], run: Callable[..., Result]
) -> None:
    add_directory("red", "failing", problem="\x1b[2J\x07 does not exist\nred  healthy")
    output = run("uploads").output
    assert "\x1b" not in output
    assert r"\x1b[2J\x07 does not exist\nred  healthy" in output


def test_before_the_first_tick_both_commands_answer_with_nothing(run: Callable[..., Result]) -> None:
    assert run("uploads").output.startswith("No directory has been watched yet")
    assert json.loads(run("uploads", "--json").output)["directories"] == []
    found = samples(run("metrics").output)
    assert found["dedp_uploads_files", "loaded", "30d"] == 0
    assert ("dedp_uploads_wait_mean_seconds", "1h") not in found


def test_metrics_are_text_that_prometheus_reads(
    tables: Connection,
    add_file: Callable[..., None],
    add_directory: Callable[..., None],
    set_tick: Callable[[], None],
    run: Callable[..., Result],
) -> None:
    for number in range(1, 4):
        add_file(file=f"{number}.csv", waited_seconds=number, lines=10, quarantined=2)
    add_file(file="bad.csv", state="refused", waited_seconds=4, minutes_ago=120)
    add_directory("north")
    add_directory('so"uth\\\n', "failing", waiting=5)
    set_tick()
    found = samples(run("metrics").output)
    for name, value in {
        ("dedp_uploads_files", "loaded", "1h"): 3,
        ("dedp_uploads_files", "refused", "1h"): 0,
        ("dedp_uploads_files", "refused", "1d"): 1,
        ("dedp_uploads_lines", "quarantined", "1d"): 6,
        ("dedp_uploads_success_ratio", "1d"): 0.75,
        ("dedp_uploads_wait_mean_seconds", "1h"): 2,
        ("dedp_uploads_wait_seconds", "0.5", "1d"): 2.5,
        ("dedp_uploads_directories", "healthy"): 1,
        ("dedp_uploads_directories", "failing"): 1,
        ("dedp_uploads_files_waiting",): 5,
        ("dedp_uploads_queue_depth",): 7,
        ("dedp_uploads_tick_duration_seconds",): 0.02,
        ("dedp_uploads_timeouts_total",): 2,
    }.items():
        assert found[name] == value, name
    assert ("dedp_uploads_directory_not_healthy_since_seconds", 'so"uth\\\n', "failing") in found


@pytest.mark.parametrize("command", ["uploads", "metrics"])
def test_a_database_that_is_away_is_one_line_without_a_password(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", "postgresql://somebody:secret@127.0.0.1:1/somewhere")
    done = run_dedp(command)
    assert done.returncode == 1
    assert "PostgreSQL" in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stdout + done.stderr


def test_every_metric_is_documented_and_every_documented_metric_is_printed(
    tables: Connection,
    add_file: Callable[..., None],
    add_directory: Callable[..., None],
    set_tick: Callable[[], None],
    run: Callable[..., Result],
) -> None:
    add_file(lines=5)
    add_directory("north", "failing")
    set_tick()
    documented = (settings.REPOSITORY / "docs" / "client_uploads.md").read_text()
    rows = re.findall(r"^\| `(dedp_uploads_\w+)` \|(.*?)\| \S", documented, re.MULTILINE)
    printed = {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(run("metrics").output)
        for sample in family.samples
        if sample.name.startswith("dedp_uploads_")
    }
    assert {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows} == printed
