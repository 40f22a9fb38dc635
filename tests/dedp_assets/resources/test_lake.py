"""Any pipeline reaches its Delta tables with the resource alone."""

from datetime import date
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from dedp_assets.delta.problems import TableUnreachable
from dedp_assets.errors import SettingError
from dedp_assets.resources.lake import LakeResource
from dedp_assets.resources_from_settings import LakeFromSettings
from sensors.delta_commits.sensor import commit_sensor

TIDES = dg.AssetKey(["harbour", "tides"])
SCHEMA = pa.schema([("day", pa.date32()), ("height", pa.float64())])
DAYS = dg.DailyPartitionsDefinition("2024-01-01")


def test_its_uri_is_that_of_the_settings_unless_it_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDP_DATA_URI", str(tmp_path / "set"))
    assert LakeFromSettings().table_uri(TIDES) == str(tmp_path / "set" / "tides")
    configured = LakeResource(uri=f"file://{tmp_path}/configured/")
    assert configured.table_uri(TIDES) == str(tmp_path / "configured" / "tides")
    assert configured.storage_options() == {}


def test_the_options_are_those_of_the_store_that_it_is_configured_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    lake = LakeResource(uri="s3://bucket/lake/")
    assert lake.table_uri(TIDES) == "s3://bucket/lake/tides"
    assert lake.storage_options()["region"] == "eu-central-1"


def test_a_place_that_deltalake_would_take_for_another_one_is_refused() -> None:
    with pytest.raises(SettingError, match=r"s3://bucket/lake#1, but deltalake can't use that because of the '#'"):
        LakeResource(uri="s3://bucket/lake#1").table_uri(TIDES)


def test_a_table_is_created_once_and_written_with_deltalake(tmp_path: Path) -> None:
    lake = LakeResource(uri=str(tmp_path))
    assert lake.open_table(TIDES) is None
    write_deltalake(lake.open_or_create(TIDES, SCHEMA, ["day"]), rows(1.5), mode="append")
    table = lake.open_or_create(TIDES, SCHEMA, ["day"])
    assert (table.version(), table.metadata().partition_columns) == (1, ["day"])
    opened = lake.open_table(TIDES)
    assert opened is not None
    assert opened.to_pyarrow_table().to_pylist() == [{"day": date(2024, 1, 2), "height": 1.5}]
    assert list(lake.open_log(TIDES, "day").snapshot().files) == ["2024-01-02"]


def test_a_table_that_cannot_be_created_is_named_with_what_to_check(tmp_path: Path) -> None:
    (tmp_path / "tides").write_text("no folder")
    with pytest.raises(TableUnreachable, match=f"{tmp_path}/tides can't be written: .*; check the folder"):
        LakeResource(uri=str(tmp_path)).open_or_create(TIDES, SCHEMA)


def test_an_asset_and_a_sensor_of_another_pipeline_need_nothing_but_the_resource(tmp_path: Path) -> None:
    """The lake is not where the settings say: the run and the tick get it from the resource."""

    @dg.asset(key=TIDES, partitions_def=DAYS)
    def tides(lake: LakeResource) -> None:
        write_deltalake(lake.open_or_create(TIDES, SCHEMA, ["day"]), rows(2.0), mode="append")

    sensor = commit_sensor(
        "tides_committed", TIDES, partitions=DAYS, partition_column="day", pool="tides", writer="the harbour"
    )
    lake = LakeResource(uri=str(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:
        assert dg.materialize([tides], partition_key="2024-01-02", resources={"lake": lake}, instance=instance).success
        assert DeltaTable(str(tmp_path / "tides")).version() == 1
        tick = sensor.evaluate_tick(dg.build_sensor_context(instance, resources={"lake": lake}))
    assert [event.partition for event in tick.asset_events] == ["2024-01-02"]


def rows(height: float) -> pa.Table:
    return pa.table([[date(2024, 1, 2)], [height]], schema=SCHEMA)
