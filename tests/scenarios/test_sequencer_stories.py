"""The isolated sequencer, played on a simulated clock: both code locations, a landing folder, real PostgreSQL.

Each test is a story of what happens to a team that runs it.
"""

from pathlib import Path
from typing import Any

import psycopg2
import pytest
from dagster_scenario import Scenario
from dagster_scenario.world.files import Folder

from dedp_assets import settings
from dedp_assets.isolated_sequencer import contract

LOADER, AGGREGATOR = "jobs.devices_loader", "jobs.devices_aggregator"
FILE, RAW, TOTALS = (
    key.to_user_string() for key in (contract.DEVICES_FILE, contract.DEVICES_RAW, contract.DEVICES_AGGREGATES)
)


def devices(*versions: str) -> str:
    """A devices file with a line for each version."""
    return "type;full_name;version\n" + "".join(f"lenovo;Lenovo ThinkPad;{version}\n" for version in versions)


def dataset(day: str) -> str:
    return f"{day}/dataset.csv"


@pytest.fixture
def scenario_settings() -> Path:
    """The deployment's own: its run queue, its monitoring, its retries."""
    return settings.REPOSITORY / "docker" / "dagster.yaml"


@pytest.fixture
def landing(scenario: Scenario, own_home: Path, dsn: str, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """The landing folder, on the morning of the third of January; nothing has arrived yet."""
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    monkeypatch.setenv("DEDP_START", "2024-01-01")
    scenario.start("2024-01-03 08:00")
    return scenario.folder(own_home / "landing" / "devices")


@pytest.fixture
def sequencer(scenario: Scenario, landing: Folder) -> Scenario:
    """Both teams are at work."""
    scenario.load(LOADER, AGGREGATOR)
    scenario.run_until_quiet()
    return scenario


def totals(dsn: str) -> dict[str, int]:
    """The totals by version."""
    connection = psycopg2.connect(dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT version, all_occurrences FROM dedp.devices_aggregates")
        found = dict(cursor.fetchall())
    connection.close()
    return found


def test_a_file_arrives_is_loaded_by_one_team_and_counted_by_the_other(
    sequencer: Scenario, landing: Folder, dsn: str
) -> None:
    sequencer.expect_sensor("devices_landed").waiting(since="2024-01-03 08:00")
    sequencer.at("11:00")
    landing.drop(dataset("2024-01-02"), devices("1", "2"))
    sequencer.advance(minutes=5)
    sequencer.expect(FILE).materialized("2024-01-02").by_sensor("devices_landed")
    sequencer.expect(RAW).materialized("2024-01-02").by_automation("follow_inputs")
    sequencer.expect(TOTALS).materialized("2024-01-02").by_automation("follow_inputs")
    sequencer.expect_runs().none_failed()
    sequencer.expect_runs().no_slot_held_while_waiting()
    assert totals(dsn) == {"1": 1, "2": 1}


def test_a_late_file_reaches_its_own_day_and_no_other(sequencer: Scenario, landing: Folder, dsn: str) -> None:
    for day in ("2024-01-03", "2024-01-04", "2024-01-05"):
        sequencer.at(f"{day} 23:00")
        landing.drop(dataset(day), devices("on time"))
    sequencer.at("2024-01-09 08:00")
    late = sequencer.mark("a file for the second of January, a week late")
    landing.drop(dataset("2024-01-02"), devices("late"))
    sequencer.run_until_quiet()
    sequencer.expect(RAW).materialized("2024-01-02", since=late).by_automation("follow_inputs")
    sequencer.expect(TOTALS).materialized("2024-01-02", since=late)
    assert totals(dsn) == {"on time": 3, "late": 1}


def test_a_missing_day_holds_up_nobody_and_no_slot(sequencer: Scenario, landing: Folder, dsn: str) -> None:
    landing.drop(dataset("2024-01-01"), devices("first"))
    sequencer.at("2024-01-04 08:00")
    landing.drop(dataset("2024-01-03"), devices("third"))
    sequencer.at("2024-01-08 08:00")
    sequencer.expect(RAW).materialized("2024-01-01", "2024-01-03")
    sequencer.expect_runs().none_under_way()
    sequencer.expect_runs().no_slot_held_while_waiting()
    landing.drop(dataset("2024-01-02"), devices("second"))
    sequencer.run_until_quiet()
    sequencer.expect(RAW).materialized("2024-01-01", "2024-01-03", "2024-01-02")
    assert totals(dsn) == {"first": 1, "second": 1, "third": 1}


def test_a_file_that_is_still_being_written_is_not_loaded(
    sequencer: Scenario, landing: Folder, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDP_SETTLE_SECONDS", "60")
    landing.grow(dataset("2024-01-02"), devices("1"))
    sequencer.advance(seconds=30)
    sequencer.expect_sensor("devices_landed").waiting(because="is not complete yet: changed less than 60 s ago")
    landing.grow(dataset("2024-01-02"), "lenovo;Lenovo ThinkPad;2\n")
    sequencer.advance(seconds=30)
    sequencer.expect(FILE).not_materialized()
    sequencer.advance(minutes=5)
    sequencer.expect(FILE).materialized("2024-01-02")
    assert totals(dsn) == {"1": 1, "2": 1}


def test_a_file_is_rewritten_while_it_is_being_loaded(sequencer: Scenario, landing: Folder, dsn: str) -> None:
    sequencer.hold(RAW, at="end")
    landing.drop(dataset("2024-01-02"), devices("old", "older"))
    sequencer.advance(minutes=5)
    sequencer.expect(RAW).running("2024-01-02")
    landing.rewrite(dataset("2024-01-02"), devices("new"))
    sequencer.advance(minutes=5)
    sequencer.expect(FILE).materialized("2024-01-02", "2024-01-02")
    sequencer.release()
    sequencer.advance(minutes=5)
    sequencer.expect(RAW).materialized("2024-01-02", "2024-01-02")
    assert totals(dsn) == {"new": 1}, "counted once, and the later version"


@pytest.mark.parametrize(
    "point",
    [
        pytest.param({"at": "start"}, marks=pytest.mark.slow),
        pytest.param({"before": "dedp_assets.isolated_sequencer.aggregator.loading._attach"}, marks=pytest.mark.slow),
        {"after": "dedp_assets.isolated_sequencer.aggregator.assets.load_file"},
        pytest.param({"at": "end"}, marks=pytest.mark.slow),
    ],
    ids=["start", "within the load", "after the load", "end"],
)
def test_a_crash_is_noticed_the_run_is_retried_and_nothing_is_counted_twice(
    sequencer: Scenario, landing: Folder, dsn: str, point: dict[str, Any]
) -> None:
    sequencer.advance(minutes=3)  # the retry daemon looks at failures from its first look on
    sequencer.kill(RAW, **point)
    landing.drop(dataset("2024-01-02"), devices("1", "2"))
    sequencer.advance(minutes=15)
    killed = [run for run in sequencer.timeline.runs.values() if "process of this run has ended" in run.error]
    assert [run.status for run in killed] == ["failed"]
    sequencer.expect(RAW).materialized("2024-01-02").by_retry()
    sequencer.expect(TOTALS).materialized("2024-01-02")
    assert totals(dsn) == {"1": 1, "2": 1}


def test_the_loaders_daemon_requests_a_file_twice(sequencer: Scenario, landing: Folder, dsn: str) -> None:
    landing.drop(dataset("2024-01-02"), devices("1"))
    sequencer.tick_twice("devices_landed")
    sequencer.run_until_quiet()
    sequencer.expect(FILE).materialized("2024-01-02")
    assert totals(dsn) == {"1": 1}


def test_everything_is_down_for_three_days(sequencer: Scenario, landing: Folder, dsn: str) -> None:
    with sequencer.daemons_down():
        for day in ("2024-01-03", "2024-01-04", "2024-01-05"):
            sequencer.at(f"{day} 23:30")
            landing.drop(dataset(day), devices(day))
        sequencer.at("2024-01-06 08:00")
        sequencer.expect(FILE).not_materialized()
    sequencer.run_until_quiet()
    sequencer.expect(FILE).materialized("2024-01-03", "2024-01-04", "2024-01-05").in_one_run()
    sequencer.expect(TOTALS).materialized("2024-01-03", "2024-01-04", "2024-01-05", in_any_order=True)
    assert totals(dsn) == {"2024-01-03": 1, "2024-01-04": 1, "2024-01-05": 1}


def test_a_consumer_that_is_added_later_catches_up_and_then_follows(
    scenario: Scenario, landing: Folder, dsn: str
) -> None:
    scenario.load(LOADER)
    for day in ("2024-01-01", "2024-01-02"):
        landing.drop(dataset(day), devices(day))
    scenario.run_until_quiet()
    scenario.expect(FILE).materialized("2024-01-01", "2024-01-02")

    scenario.at("2024-01-05 08:00")
    added = scenario.mark("the aggregating team deploys")
    scenario.load(AGGREGATOR)
    scenario.run_until_quiet()
    scenario.expect(RAW).materialized("2024-01-01", "2024-01-02", since=added).by_automation("follow_inputs")
    landing.drop(dataset("2024-01-04"), devices("2024-01-04"))
    scenario.run_until_quiet()
    scenario.expect(TOTALS).materialized("2024-01-01", "2024-01-02", "2024-01-04", since=added)
    scenario.expect(FILE).materialized("2024-01-04", since=added)
    assert totals(dsn) == {"2024-01-01": 1, "2024-01-02": 1, "2024-01-04": 1}


def test_what_changed_between_a_run_by_hand_and_the_daemons_first_look_is_followed(
    scenario: Scenario, landing: Folder, dsn: str
) -> None:
    scenario.load(LOADER, AGGREGATOR)
    scenario.turn_off("devices_landed")
    scenario.stop_daemons("sensors")
    for day in ("2024-01-01", "2024-01-02"):
        landing.drop(dataset(day), devices("1"))
        for assets in ([FILE], [RAW, TOTALS]):
            scenario.materialize(*assets, partition=day)
            scenario.advance(minutes=1)
    landing.rewrite(dataset("2024-01-02"), devices("1", "2"))
    scenario.materialize(FILE, partition="2024-01-02")
    scenario.advance(minutes=1)
    assert totals(dsn) == {"1": 2}
    first_look = scenario.mark("nobody has looked before")
    scenario.start_daemons()
    scenario.run_until_quiet()
    scenario.expect(RAW).materialized("2024-01-02", since=first_look).by_automation("follow_inputs")
    assert totals(dsn) == {"1": 2, "2": 1}


def test_a_disk_that_is_full_for_a_moment_costs_a_retry(sequencer: Scenario, landing: Folder, dsn: str) -> None:
    copying = "dedp_assets.landing.taking_in.copy_when_settled"
    sequencer.fail(FILE, before=copying, error=OSError(28, "No space left on device"))
    landing.drop(dataset("2024-01-02"), devices("1"))
    sequencer.advance(minutes=5)
    sequencer.expect(FILE).materialized("2024-01-02")
    sequencer.expect_runs().none_failed()
    sequencer.expect_runs(job="__ASSET_JOB").count(1)
    assert totals(dsn) == {"1": 1}


def test_a_disk_that_stays_full_is_a_failed_run_and_is_tried_again_when_nobody_does_anything(
    sequencer: Scenario, landing: Folder, dsn: str
) -> None:
    copying = "dedp_assets.landing.taking_in.copy_when_settled"
    sequencer.fail(FILE, times=8, before=copying, error=OSError(28, "No space left on device"))
    landing.drop(dataset("2024-01-02"), devices("1"))
    sequencer.advance(minutes=30)
    sequencer.expect(FILE).failed("2024-01-02", "2024-01-02", error="No space left")
    sequencer.expect(RAW).materialized("2024-01-02")
    assert totals(dsn) == {"1": 1}


def test_a_file_that_cannot_be_loaded_makes_room_for_the_next_version_of_it(
    sequencer: Scenario, landing: Folder, dsn: str
) -> None:
    landing.drop("dataset.csv", "type,full_name,version\nlenovo,Lenovo ThinkPad,1\n")
    sequencer.advance(minutes=10)
    sequencer.expect(RAW).failed(error="is delimited by ','")
    sequencer.expect(RAW).not_materialized()
    landing.rewrite("dataset.csv", devices("1"))
    sequencer.advance(minutes=10)
    sequencer.expect(RAW).materialized("2024-01-01", "2024-01-02")
    assert totals(dsn) == {"1": 2}
    landing.rewrite("dataset.csv", devices("2"))
    sequencer.advance(minutes=10)
    assert totals(dsn) == {"1": 2}, "loaded once, a day keeps what it has"


@pytest.mark.slow
def test_of_a_burst_ten_days_share_a_run_and_one_that_cannot_be_loaded_holds_up_none(
    sequencer: Scenario, landing: Folder, dsn: str
) -> None:
    days = [f"2024-01-{number:02}" for number in range(1, 13)]
    sequencer.at("2024-01-14 08:00")
    burst = sequencer.mark("twelve days at once")
    for day in days:
        landing.drop(dataset(day), devices("1") if day != "2024-01-05" else "type,full_name,version\nphone,x,1\n")
    sequencer.advance(seconds=100)
    assert totals(dsn) == {"1": 11}
    sequencer.expect(RAW).failed(since=burst, error="partition 2024-01-05: ")
    sequencer.expect_runs(since=burst).count(
        3
    )  # one copies all files; ten days are loaded in one run, two in the other
    sequencer.advance(minutes=10)
    good = [day for day in days if day != "2024-01-05"]
    sequencer.expect(TOTALS).materialized(*good, since=burst, in_any_order=True)
    sequencer.expect_runs().none_under_way()


def test_a_writer_that_pauses_within_the_undated_file_is_loaded_whole_in_the_end(
    sequencer: Scenario, landing: Folder, dsn: str
) -> None:
    landing.grow("dataset.csv", devices("1"))
    sequencer.advance(minutes=5)
    assert totals(dsn) == {"1": 2}
    landing.grow("dataset.csv", "lenovo;Lenovo ThinkPad;2\n")
    sequencer.advance(minutes=5)
    assert totals(dsn) == {"1": 2, "2": 2}


def test_a_load_that_somebody_deleted_stays_deleted_until_its_file_changes(
    sequencer: Scenario, landing: Folder, dsn: str
) -> None:
    landing.drop(dataset("2024-01-02"), devices("1"))
    sequencer.run_until_quiet()
    connection = psycopg2.connect(dsn)
    with connection, connection.cursor() as cursor:
        for table in ("devices_raw", "devices_quarantine", "devices_loads"):
            cursor.execute(f"DELETE FROM dedp.{table} WHERE load_id = '20240102'")
    connection.close()
    sequencer.advance(hours=3)
    assert totals(dsn) == {}
    landing.rewrite(dataset("2024-01-02"), devices("2"))
    sequencer.run_until_quiet()
    assert totals(dsn) == {"2": 1}


def test_every_night_both_teams_audits_pass(sequencer: Scenario, landing: Folder) -> None:
    landing.drop(dataset("2024-01-02"), devices("1"))
    sequencer.at("2024-01-06 12:00")
    audits = [event.text for event in sequencer.timeline.events if event.kind == "checked" and event.at.hour == 3]
    assert sorted(set(audits)) == [
        f"all_loads_accounted_for of {RAW} passed",
        f"totals_equal_recount of {TOTALS} passed",
    ]
    assert len(audits) == 6
