"""What counts as a problem, and what does not."""

import json

import pytest

from dedp_assets.alerts import judging
from dedp_assets.alerts.judging import Instigator, Limits
from dedp_assets.observability.accounts import Rows
from dedp_assets.observability.dagster_tables import Cell, FailedRun, Heartbeat, RunUnderWay, Tick

LIMITS = Limits()
FAILED, SKIPPED = Tick("FAILURE", 1.0, "ValueError: no"), Tick("SKIPPED", 1.0, "nothing new")
STARTED, GROWING = Tick("SUCCESS", 1.0, ""), Tick("SKIPPED", 1.0, "a.csv is not complete yet")
WRONG = Tick("SKIPPED", 1.0, "error: /landing can't be read: Permission denied; 2 files wait")
HALF_WRONG = WRONG._replace(status="SUCCESS")  # its log has the error


def run(number: int, *cells: Cell, is_done_since: bool = False) -> FailedRun:
    return FailedRun(f"run-{number}", "work", "2024-01-02", 10.0, number, list(cells), is_done_since)


def cell(asset: str = "raw", partition: str | None = "2024-01-02", here: bool = False, since: bool = False) -> Cell:
    return Cell(asset, partition, here, since)


def failed_keys(*runs: FailedRun) -> list[str]:
    return [problem.key for problem in judging.failed(runs, {})]


def test_a_daemon_that_gives_no_sign_of_life_has_stopped() -> None:
    beats = [Heartbeat("SENSOR", 181.0, []), Heartbeat("ASSET", 20.0, []), Heartbeat("OF_AN_OLD_VERSION", 1e6, [])]
    (problem,) = judging.stopped_daemons(beats, ["SENSOR", "ASSET"], LIMITS)
    assert "SENSOR" in problem.what
    assert "ASSET" not in problem.what
    assert list(judging.stopped_daemons(beats, ["ASSET"], LIMITS)) == []


def test_a_daemon_that_has_never_been_seen_may_just_be_starting() -> None:
    (problem,) = judging.stopped_daemons([], ["SENSOR"], LIMITS)
    assert problem.wait > 0


def test_a_daemon_that_reports_errors_is_a_problem_of_its_own() -> None:
    (problem,) = judging.stopped_daemons([Heartbeat("ASSET", 1.0, ["no such asset"])], ["ASSET"], LIMITS)
    assert "no such asset" in problem.what


def test_a_failed_run_is_about_what_it_has_not_done() -> None:
    assert failed_keys(run(1, cell("raw", here=True), cell("totals"))) == ["run/totals/2024-01-02"]


def test_a_partition_that_was_materialized_since_is_all_right() -> None:
    assert failed_keys(run(1, cell("raw", since=True), cell("totals"))) == ["run/totals/2024-01-02"]
    assert failed_keys(run(1, cell("raw", since=True))) == []


def test_a_run_that_failed_after_it_had_done_all_is_about_all() -> None:
    assert failed_keys(run(1, cell("raw", here=True))) == ["run/raw/2024-01-02"]


def test_many_failures_of_a_partition_are_one_problem_which_names_the_latest_run() -> None:
    (problem,) = judging.failed([run(2, cell()), run(1, cell())], {"run-2": "the disk is full", "run-1": "no"})
    assert (problem.run_id, "the disk is full" in problem.what) == ("run-2", True)


def test_a_job_without_assets_is_all_right_when_it_has_succeeded_since() -> None:
    assert failed_keys(run(1)) == ["run/work/2024-01-02"]
    assert failed_keys(run(1, is_done_since=True)) == []


@pytest.mark.parametrize(
    ("status", "age", "is_problem"),
    [
        ("STARTED", 3599.0, False),
        ("STARTED", 3601.0, True),
        ("STARTING", 301.0, True),
        ("CANCELING", 301.0, True),
        ("STARTING", 299.0, False),
        ("QUEUED", 1799.0, False),
        ("QUEUED", 1801.0, True),
    ],
)
def test_a_run_may_execute_start_and_wait_for_so_long(status: str, age: float, is_problem: bool) -> None:
    problems = list(judging.too_long([RunUnderWay("run-1", "work", status, None, age)], LIMITS))
    assert bool(problems) == is_problem


def test_a_long_queue_is_one_problem() -> None:
    queue = [RunUnderWay(f"run-{number}", "work", "QUEUED", None, 2000.0) for number in range(100)]
    assert len(list(judging.too_long(queue, LIMITS))) == 1


@pytest.mark.parametrize(
    ("ticks", "is_problem"),
    [
        ([FAILED] * 3, True),
        ([FAILED] * 2, False),
        ([SKIPPED, FAILED, FAILED], False),
        ([FAILED, FAILED, SKIPPED], False),
        ([FAILED, STARTED, FAILED, STARTED, FAILED], False),  # a schedule that works each second time
    ],
)
def test_a_sensor_whose_last_ticks_have_all_failed_keeps_failing(ticks: list[Tick], is_problem: bool) -> None:
    assert bool(list(judging.failing_ticks([Instigator("jobs.a", "watched", "sensor", ticks)]))) == is_problem


@pytest.mark.parametrize(
    ("ticks", "is_problem"),
    [
        ([WRONG] * 3, True),
        ([WRONG] * 2, False),
        ([SKIPPED, WRONG, WRONG, WRONG], False),
        ([WRONG, SKIPPED, WRONG, WRONG], False),
        ([GROWING] * 3, False),
        ([FAILED, WRONG, FAILED], True),
        # A tick that starts runs has no message. What it starts is of other files, or other folders.
        ([STARTED, WRONG, STARTED, WRONG, WRONG], True),
        ([STARTED] * 3, False),
        ([HALF_WRONG] * 3, True),
        ([HALF_WRONG, STARTED, WRONG, HALF_WRONG], True),
        ([HALF_WRONG, HALF_WRONG, SKIPPED], False),
    ],
)
def test_a_sensor_whose_last_messages_all_name_an_error_is_a_problem(ticks: list[Tick], is_problem: bool) -> None:
    problems = list(judging.failing_ticks([Instigator("jobs.a", "watched", "sensor", ticks)]))
    assert [problem.key for problem in problems] == ["tick/jobs.a/watched"] * is_problem
    if is_problem and FAILED not in ticks:
        assert "/landing can't be read" in problems[0].what
        assert problems[0].wait > 0  # a server that is restarted is nobody's work


@pytest.mark.parametrize(
    ("ages", "is_problem"),
    [
        ((10.0, 40.0, 70.0), True),
        ((5000.0, 5030.0, 5060.0), False),  # it was evaluated every 30 s, and is no longer
        ((80_000.0, 166_400.0, 252_800.0), True),  # a schedule, once a day
        ((180_000.0, 266_400.0, 352_800.0), False),
    ],
)
def test_a_sensor_that_was_removed_from_the_code_is_no_problem(ages: tuple[float, ...], is_problem: bool) -> None:
    ticks = [Tick("FAILURE", age, "no") for age in ages]
    assert bool(list(judging.failing_ticks([Instigator("jobs.a", "watched", "sensor", ticks)]))) == is_problem


def test_reconciliation_keeps_failing_after_its_third_request() -> None:
    waiting = {"2024-01-02": ["v1", 3, 1.0], "2024-01-03": ["v1", 2, 1.0]}
    for cursor in (json.dumps(waiting), json.dumps({"compared": 4, "turn": 1, "waiting": waiting})):
        problems = list(
            judging.reconciled_in_vain([Instigator("jobs.a", "raw_reconciled", "sensor", [SKIPPED], cursor)], LIMITS)
        )
        assert [problem.key for problem in problems] == ["reconciliation/raw_reconciled/2024-01-02"]


@pytest.mark.parametrize("cursor", [None, "", "no JSON", "[]", '{"a": 1}', '{"a": ["v1", "x", 1]}'])
def test_a_cursor_that_is_not_one_of_reconciliation_is_no_problem(cursor: str | None) -> None:
    assert (
        list(judging.reconciled_in_vain([Instigator("jobs.a", "raw_reconciled", "sensor", [SKIPPED], cursor)], LIMITS))
        == []
    )


def test_an_asset_is_out_of_date_by_its_policy() -> None:
    states = {"a": "PASS", "b": "WARN", "c": "FAIL", "d": "UNKNOWN"}
    assert {problem.key: problem.severity for problem in judging.not_fresh(states, LIMITS)} == {
        "freshness/b": "warning",
        "freshness/c": "error",
    }


def test_an_asset_of_the_setting_that_has_no_policy_is_a_problem_and_one_that_was_never_made_is_none() -> None:
    limits = LIMITS._replace(fresh=("tides/flod", "tides/flood", "ebb"))
    (problem,) = judging.not_fresh({"tides/flood": "PASS", "ebb": "UNKNOWN"}, limits)
    assert (problem.key, problem.wait > 60) == ("freshness-setting/tides/flod", True)
    assert "DEDP_FRESHNESS" in problem.headline


def test_a_quarantine_that_moves_around_its_limit_stays_a_problem_until_half_of_it() -> None:
    def is_problem(loaded: int, quarantined: int, *open_keys: str) -> bool:
        return bool(list(judging.quarantined({"uploads": Rows(loaded, quarantined)}, open_keys, LIMITS)))

    assert is_problem(700, 300)
    assert not is_problem(850, 150)
    assert is_problem(850, 150, "quarantine/uploads")
    assert not is_problem(950, 50, "quarantine/uploads")
    assert not is_problem(1, 2)  # of three lines, two are no pattern


def test_text_of_others_can_not_command_a_terminal() -> None:
    (problem,) = judging.failed([run(1, cell(partition="\x1b[2J"))], {"run-1": "\x1b]0;x"})
    assert "\x1b" not in problem.what + problem.headline
