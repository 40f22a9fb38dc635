"""The late-data integrator on a Spark cluster that loses a worker in the middle of a run."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from dagster_scenario import Scenario

from dedp_assets import settings
from dedp_assets.cli import dedp
from dedp_assets.late_data_integrator import contract, tables
from dedp_assets.resources_from_settings import LakeFromSettings
from tests.cluster.spark_cluster import Cluster

COUNTS = contract.DEVICE_COUNTS.to_user_string()
DAYS = [f"2024-01-0{number}" for number in range(1, 8)]


@pytest.fixture
def scenario_settings() -> Path:
    return settings.REPOSITORY / "docker" / "dagster.yaml"


def commit(scenario: Scenario, *days: str) -> None:
    done = CliRunner().invoke(dedp, ["load-delta", *days], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    scenario.happened(f"dedp load-delta {' '.join(days)}")


def test_late_data_is_counted_although_a_worker_is_killed(scenario: Scenario, cluster: Cluster) -> None:
    scenario.start("2024-01-09 08:00")
    scenario.load("jobs.late_data_integrator")
    commit(scenario, *DAYS)
    scenario.run_until_quiet()
    scenario.expect(COUNTS).materialized(*DAYS[:6], in_any_order=True)

    late = scenario.mark("late data")
    scenario.hold(COUNTS, at="start")
    commit(scenario, "2024-01-02", "2024-01-03")
    scenario.run_until_quiet()
    cluster.kill_worker(cluster.workers[0])
    scenario.happened("a worker of the cluster is killed")
    scenario.release()
    scenario.run_until_quiet()
    scenario.expect(COUNTS).materialized("2024-01-02", "2024-01-03", since=late, in_any_order=True)
    scenario.expect_runs().none_failed()
    assert tables.open_counts(LakeFromSettings()).rows_counted(DAYS[:3]) == {
        "2024-01-01": 100,
        "2024-01-02": 200,
        "2024-01-03": 200,
    }
