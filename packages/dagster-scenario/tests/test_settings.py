"""The project's dagster.yaml: what is taken from it stays in the scenario's folder."""

from pathlib import Path

import dagster as dg
import pytest
from dagster_scenario import Scenario


@pytest.mark.parametrize(
    "settings",
    [
        {
            "local_artifact_storage": {
                "module": "dagster.core.storage.root",
                "class": "LocalArtifactStorage",
                "config": {"base_dir": "ELSEWHERE"},
            }
        },
        {
            "defs_state_storage": {
                "module": "dagster._core.storage.defs_state.blob_storage_state_storage",
                "class": "UPathDefsStateStorage",
                "config": {"base_path": "ELSEWHERE"},
            }
        },
        {
            "compute_logs": {
                "module": "dagster.core.storage.local_compute_log_manager",
                "class": "LocalComputeLogManager",
                "config": {"base_dir": "ELSEWHERE"},
            }
        },
        {
            "scheduler": {"module": "dagster.core.scheduler", "class": "DagsterDaemonScheduler"},
            "storage": {"sqlite": {"base_dir": "ELSEWHERE"}},
        },
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_nothing_is_written_outside_of_the_scenarios_folder(tmp_path: Path, settings: dict[str, object]) -> None:
    elsewhere = tmp_path / "elsewhere"

    @dg.asset
    def stored() -> int:
        return 1

    with Scenario(settings=_there(settings, elsewhere), folder=tmp_path / "scenario") as scenario:
        scenario.load(dg.Definitions(assets=[stored]))
        scenario.materialize("stored")
        scenario.tick()
        scenario.expect("stored").materialized(times=1)
        assert scenario.instance.storage_directory().startswith(str(tmp_path / "scenario"))
    assert not elsewhere.exists()


def _there(settings: object, folder: Path) -> dict[str, object]:
    if isinstance(settings, dict):
        return {key: _there(value, folder) for key, value in settings.items()}
    return str(folder) if settings == "ELSEWHERE" else settings  # type: ignore[return-value]


def test_settings_of_a_launcher_that_can_resume_runs_are_taken() -> None:
    settings = {
        "run_launcher": {"module": "dagster_docker", "class": "DockerRunLauncher"},
        "run_monitoring": {"enabled": True, "max_resume_run_attempts": 3},
    }
    with Scenario(settings=settings) as scenario:
        assert scenario.instance.run_monitoring_enabled
