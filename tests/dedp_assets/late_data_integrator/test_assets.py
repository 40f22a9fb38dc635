"""What people see of the assets: their columns, and why a run failed."""

from collections.abc import Sequence

import dagster as dg
import pyarrow as pa
import pytest

from dedp_assets.delta.commits import Snapshot
from dedp_assets.late_data_integrator import assets, picture_asset
from dedp_assets.late_data_integrator.counting import CountingFailed
from dedp_assets.resources_from_settings import LakeFromSettings, SparkFromSettings
from tests.dedp_assets.late_data_integrator.device_tables import Lake, count

# Add the location of another pipeline whose tables have descriptions.
RESOURCES = {"lake": LakeFromSettings(), "spark": SparkFromSettings()}
ASSETS = [assets.device_counts, assets.partitions_state, assets.backfilling_configuration, picture_asset.picture]
DAY = "2024-01-01"


def test_a_column_of_two_tables_has_one_description() -> None:
    def descriptions(spec: dg.AssetSpec) -> dict[str, str]:
        return {column.name: column.description for column in spec.metadata["dagster/column_schema"].columns}

    [counts] = assets.device_counts.specs
    assert descriptions(assets.devices).items() <= descriptions(counts).items()


@pytest.mark.parametrize("asset", ASSETS, ids=lambda asset: asset.key.path[-1])
def test_without_an_input_table_a_run_fails_with_a_sentence_and_is_not_retried(asset: dg.AssetsDefinition) -> None:
    partition = DAY if asset.partitions_def else None
    result = dg.materialize([asset], resources=RESOURCES, partition_key=partition, raise_on_error=False)
    [failed] = [event for event in result.all_events if event.is_step_failure]
    failure = failed.step_failure_data.user_failure_data
    assert failure is not None
    assert (failure.description or "").startswith("there is no Delta table at ")
    assert not [event for event in result.all_events if event.is_step_up_for_retry]


def test_a_count_that_may_succeed_later_is_tried_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real Spark that loses a file is in test_counting: here its error is the one that is named there."""
    failures = iter([CountingFailed("Spark could not count: a file is missing")])

    def count_or_fail(_: object, snapshot: Snapshot, days: Sequence[str]) -> pa.Table:
        for failure in failures:
            raise failure
        return count(snapshot, days)

    # The real one would start a server, and nothing here asks it.
    monkeypatch.setattr(SparkFromSettings, "session", None)
    monkeypatch.setattr(assets, "count_devices", count_or_fail)
    lake.append(DAY, "a", "a", "b")
    result = dg.materialize([assets.devices, assets.device_counts], resources=RESOURCES, partition_key=DAY)
    [retry] = [event for event in result.all_events if event.is_step_up_for_retry]
    assert "Spark could not count: a file is missing" in str(retry.step_retry_data.error)
    assert lake.counts(DAY) == {"a": 2, "b": 1}
