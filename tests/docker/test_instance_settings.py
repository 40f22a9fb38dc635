"""The two dagster.yaml files: Dagster takes both, and they differ only in numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config
from dagster._core.instance.ref import InstanceRef
from dagster._core.scheduler.instigation import InstigatorType, TickStatus

from dedp_assets import local_stack, settings

EMBEDDED = local_stack.INSTANCE_CONFIG
PRODUCTION = settings.REPOSITORY / "docker" / "dagster.yaml"

both = pytest.mark.parametrize("file", [EMBEDDED, PRODUCTION], ids=["embedded", "production"])


def configured(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text())
    return found


@pytest.fixture
def instance(tmp_path: Path, empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], dg.DagsterInstance]:
    monkeypatch.setenv("DEDP_DAGSTER_STORAGE", empty_dsn)

    def made(file: Path) -> dg.DagsterInstance:
        (tmp_path / "dagster.yaml").write_text(file.read_text())
        dagster_instance_config(str(tmp_path))  # raises for what it does not know
        return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path)))

    return made


@both
def test_dagster_takes_the_file_and_skipped_ticks_of_sensors_and_conditions_go_first(
    file: Path, instance: Callable[[Path], dg.DagsterInstance]
) -> None:
    with instance(file) as made:
        for kind in (InstigatorType.SENSOR, InstigatorType.AUTO_MATERIALIZE):
            days = made.get_tick_retention_settings(kind)
            assert 0 < days[TickStatus.SKIPPED] < days[TickStatus.SUCCESS] <= days[TickStatus.FAILURE] <= 90
        assert made.run_monitoring_enabled
        assert made.run_retries_enabled


@both
def test_a_backfill_leaves_room_for_what_arrives(file: Path) -> None:
    runs = configured(file)["concurrency"]["runs"]
    [limit] = runs.get("tag_concurrency_limits") or [{"key": "dagster/backfill", "limit": 0}]
    assert limit["key"] == "dagster/backfill"
    assert limit["limit"] < runs["max_concurrent_runs"]


def test_storage_launcher_pools_and_retries_are_the_same_in_both() -> None:
    embedded, production = configured(EMBEDDED), configured(PRODUCTION)
    for key in ("storage", "run_launcher", "run_retries", "telemetry", "nux"):
        assert embedded[key] == production[key]
    assert embedded["concurrency"]["pools"] == production["concurrency"]["pools"]


def test_the_page_on_operations_names_every_setting_that_the_files_have() -> None:
    page = (settings.REPOSITORY / "docs" / "operations.md").read_text()
    for file in (EMBEDDED, PRODUCTION):
        for key in configured(file).keys() - {"telemetry", "nux"}:
            assert f"`{key}" in page, key
