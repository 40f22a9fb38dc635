"""A real, persistent Dagster instance in the scenario's folder, set up by a dagster.yaml like any other."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from dagster_scenario import _dagster as dagster_
from dagster_scenario.errors import ScenarioError
from dagster_scenario.storage import ScenarioStorage

# Where Dagster stores things, and what launches its runs, is the scenario's own. All other settings are the project's.
_REPLACED = (
    "storage",
    "run_storage",
    "event_log_storage",
    "schedule_storage",
    "local_artifact_storage",
    "defs_state_storage",
    "run_launcher",
    "compute_logs",
)


class _Ref(dagster_.InstanceRef):
    """Remembers what it has made. Dagster makes an instance from it for every look of a sensor."""

    @cached_property
    def local_artifact_storage(self) -> Any:
        return super().local_artifact_storage

    @cached_property
    def storage(self) -> Any:
        return super().storage

    @cached_property
    def scheduler(self) -> Any:
        return super().scheduler


def make_instance(folder: Path, settings: Mapping[str, Any] | str | Path | None) -> dg.DagsterInstance:
    """The instance of a scenario.

    folder: becomes its DAGSTER_HOME. settings: what the project's dagster.yaml says, or a path to it, so that its run
    queue, limits, monitoring and retries are those of the deployment.
    """
    config = {key: value for key, value in _read(settings).items() if key not in _REPLACED}
    module, base = ScenarioStorage.__module__, str(folder)
    config["storage"] = {"custom": {"module": module, "class": "ScenarioStorage", "config": {"base_dir": base}}}
    config["run_launcher"] = {"module": module, "class": "ScenarioLauncher", "config": {"base_dir": base}}
    config["compute_logs"] = {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
    monitoring = config.get("run_monitoring")
    if isinstance(monitoring, Mapping):
        # The project's launcher may be able to resume a run in another container. Here a run ends with its process.
        config["run_monitoring"] = {
            name: value for name, value in monitoring.items() if name != "max_resume_run_attempts"
        }
    config["telemetry"] = {"enabled": False}
    # Looking for old ticks to delete would be a tenth of every tick.
    config["retention"] = {kind: {"purge_after_days": -1} for kind in ("schedule", "sensor", "auto_materialize")}
    # One thing at a time, in the same order every time.
    for daemon in ("sensors", "schedules", "auto_materialize", "backfills"):
        config[daemon] = {**config.get(daemon, {}), "use_threads": False}
    if "run_coordinator" in config:
        coordinator = config["run_coordinator"]
        if coordinator.get("class") == "QueuedRunCoordinator":
            coordinator = {**coordinator, "config": {**coordinator.get("config", {}), "dequeue_use_threads": False}}
        config["run_coordinator"] = coordinator
    else:
        config["run_queue"] = {**config.get("run_queue", {}), "dequeue_use_threads": False}
    (folder / "dagster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    try:
        return dg.DagsterInstance.from_ref(_Ref._make(dagster_.InstanceRef.from_dir(str(folder))))
    except dg.DagsterInvalidConfigError as error:
        raise ScenarioError(f"the settings of the scenario's instance are not a dagster.yaml:\n{error}") from None


def _read(settings: Mapping[str, Any] | str | Path | None) -> dict[str, Any]:
    if settings is None:
        return {}
    if isinstance(settings, Mapping):
        return dict(settings)
    try:
        return yaml.safe_load(Path(settings).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ScenarioError(f"{settings}: can't be read as a dagster.yaml: {error.strerror}") from None
