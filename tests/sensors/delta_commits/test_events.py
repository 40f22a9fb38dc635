"""The materialization of a day tells what changed it."""

from dataclasses import replace
from datetime import timedelta

import dagster as dg

from dedp_assets.delta.commits import PartitionChange
from dedp_assets.late_data_integrator import contract
from sensors.delta_commits.events import materialization
from sensors.delta_commits.planning import ChangedDay
from tests.sensors.delta_commits.made_commits import commit
from tests.sensors.delta_commits.world import AT, FIRST


def test_an_event_tells_version_operation_time_rows_and_files() -> None:
    removed = replace(commit(7, FIRST, operation="DELETE"), changes={FIRST: PartitionChange(0, 2, 0, 5)})
    event = materialization(
        contract.DEVICES, ChangedDay(FIRST, 7, (commit(3, FIRST), commit(5, FIRST, rows=4), removed))
    )
    assert (event.asset_key, event.partition) == (contract.DEVICES, FIRST)
    assert event.tags == {"dagster/data_version": "7"}
    assert event.metadata == {
        "version": dg.MetadataValue.int(7),
        "operation": dg.MetadataValue.text("WRITE, DELETE"),
        "committed": dg.MetadataValue.timestamp(AT + timedelta(minutes=7)),
        "files_added": dg.MetadataValue.int(2),
        "files_removed": dg.MetadataValue.int(2),
        "rows_added": dg.MetadataValue.int(5),
        "rows_removed": dg.MetadataValue.int(5),
        "commits": dg.MetadataValue.json([3, 5, 7]),
    }


def test_an_event_leaves_out_what_nobody_knows() -> None:
    unknown = replace(commit(7, FIRST), changes={FIRST: PartitionChange(1, 1, None, None)})
    metadata = materialization(contract.DEVICES, ChangedDay(FIRST, 7, (commit(6, FIRST), unknown))).metadata
    assert "rows_added" not in metadata
    assert "rows_removed" not in metadata
    assert "commits" not in materialization(contract.DEVICES, ChangedDay(FIRST, 7, (unknown,))).metadata
    assert materialization(contract.DEVICES, ChangedDay(FIRST, 7)).metadata == {"version": dg.MetadataValue.int(7)}
    assert materialization(contract.DEVICES, ChangedDay(FIRST, 7, files=3)).metadata["files"] == dg.MetadataValue.int(3)
