"""What has started a run, as its tags say."""

from collections.abc import Mapping

import dagster as dg
import pytest
from dagster_scenario import Scenario

from dedp_assets.origin import ORIGIN_TAG, origin_of
from dedp_assets.run_processes import in_process_executor
from dedp_assets.runs.cli import latest_runs, table
from sensors.automation import automation_sensor, on_input_change


@pytest.mark.parametrize(
    ("tags", "origin"),
    [
        ({}, "by hand"),
        ({"dagster/from_ui": "true"}, "by hand"),
        ({"dagster/schedule_name": "nightly"}, "schedule"),
        ({"dagster/sensor_name": "landed"}, "sensor"),
        ({"dagster/sensor_name": "follow_inputs", "dagster/from_automation_condition": "true"}, "automation"),
        ({"dagster/backfill": "abc"}, "backfill"),
        ({"dagster/backfill": "abc", "dagster/from_automation_condition": "true"}, "automation"),
        ({"dagster/sensor_name": "uploads_arrived", ORIGIN_TAG: "file"}, "file"),
        ({ORIGIN_TAG: "http"}, "http"),
        # Dagster copies the tags of a run that failed.
        ({"dagster/sensor_name": "s", "dagster/parent_run_id": "1", "dagster/retry_number": "1"}, "sensor"),
        ({"dagster/sensor_name": "s", ORIGIN_TAG: "sensor", "dagster/parent_run_id": "1"}, "by hand"),
    ],
)
def test_the_tags_of_a_run_say_what_has_started_it(tags: Mapping[str, str], origin: str) -> None:
    assert origin_of(tags) == origin


@pytest.fixture
def scenario_settings() -> dict[str, object]:
    return {"run_retries": {"enabled": True, "max_retries": 1}}


def test_every_run_has_its_origin_as_a_tag(scenario: Scenario) -> None:
    @dg.asset
    def source() -> None: ...

    @dg.asset(deps=[source], automation_condition=on_input_change())
    def follower() -> None: ...

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]), backfill_policy=dg.BackfillPolicy.single_run())
    def parts() -> None: ...

    @dg.sensor(target=[source], minimum_interval_seconds=30)
    def looks(context: dg.SensorEvaluationContext) -> dg.RunRequest:
        return dg.RunRequest(run_key="once")

    @dg.schedule(cron_schedule="0 1 * * *", target=[source])
    def nightly() -> dg.RunRequest:
        return dg.RunRequest()

    scenario.load(
        dg.Definitions(
            assets=[source, follower, parts],
            sensors=[looks, automation_sensor()],
            schedules=[nightly],
            executor=in_process_executor,
        )
    )

    def origins() -> list[str]:
        """The origins of the runs that were made since the last call."""
        runs = [run for run in scenario.instance.get_runs()[::-1] if run.run_id not in seen]
        seen.update(run.run_id for run in runs)
        assert [run.tags[ORIGIN_TAG] for run in runs] == [origin_of(run.tags) for run in runs]
        return [run.tags[ORIGIN_TAG] for run in runs]

    seen: set[str] = set()
    scenario.tick()
    scenario.materialize("source")
    scenario.run_until_quiet()
    assert origins() == ["by hand", "automation"]
    scenario.turn_on("looks")
    scenario.run_until_quiet()
    assert origins() == ["sensor", "automation"]
    scenario.turn_off("looks")
    scenario.turn_on("nightly")
    scenario.at("01:00")
    scenario.turn_off("nightly")
    scenario.run_until_quiet()
    assert origins() == ["schedule", "automation"]
    scenario.backfill("parts", partitions=["a", "b"])
    scenario.run_until_quiet()
    assert origins() == ["backfill"]
    shown = list(latest_runs(scenario.instance, [], 20))
    assert [row.origin for row in shown] == [origin_of(run.tags) for run in scenario.instance.get_runs()]
    assert [(row.what, row.status) for row in latest_runs(scenario.instance, ["sensor"], 20)] == [
        ("__anonymous_asset_job_looks", "success")
    ]
    assert [row.partition for row in latest_runs(scenario.instance, ["backfill"], 20)] == ["a...b"]
    assert len(list(latest_runs(scenario.instance, ["automation"], 2))) == 2
    assert table(shown)[0].split() == ["requested", "(UTC)", "origin", "status", "what", "partition", "run"]
    assert table([]) == []
