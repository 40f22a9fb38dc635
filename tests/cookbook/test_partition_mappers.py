"""Which partitions a partition needs."""

import dagster as dg
import pytest

from dedp_assets.cookbook import partition_mappers


def inputs_of(asset: str, parent: str, partition: str) -> set[str]:
    graph = partition_mappers.defs.resolve_asset_graph()
    child, above = graph.get(dg.AssetKey(asset)).partitions_def, graph.get(dg.AssetKey(parent)).partitions_def
    assert child is not None
    assert above is not None
    mapping = graph.get_partition_mapping(dg.AssetKey(asset), dg.AssetKey(parent))
    found = mapping.get_upstream_mapped_partitions_result_for_partitions(
        child.subset_with_partition_keys([partition]), child, above
    )
    return set(found.partitions_subset.get_partition_keys())


@pytest.mark.parametrize(
    ("asset", "parent", "partition", "needed"),
    [
        ("takings_of_the_day", "takings", "2024-01-02", {"2024-01-02|ghent", "2024-01-02|lyon"}),
        ("takings_of_the_week", "takings_of_the_day", "2024-01-07", {f"2024-01-{day:02}" for day in range(7, 14)}),
        ("country", "managers", "france", {"lyon"}),
    ],
)
def test_a_partition_needs_these(asset: str, parent: str, partition: str, needed: set[str]) -> None:
    assert inputs_of(asset, parent, partition) == needed
