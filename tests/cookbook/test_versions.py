"""New code for an asset makes it, and what follows it, stale."""

import dagster as dg
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from dedp_assets.cookbook import versions


def is_stale(instance: dg.DagsterInstance, assets: list[dg.AssetsDefinition], key: str) -> bool:
    graph = dg.Definitions(assets).resolve_asset_graph()
    return (
        CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance)).get_status(dg.AssetKey(key))
        == StaleStatus.STALE
    )


def test_an_asset_is_stale_when_its_code_has_a_new_version(instance: dg.DagsterInstance) -> None:
    assets = [versions.cleaned, versions.counted]
    result = dg.materialize(assets, instance=instance)
    (event,) = result.asset_materializations_for_node("cleaned")
    assert event.tags is not None
    assert event.tags["dagster/code_version"] == "2"
    assert not is_stale(instance, assets, "cleaned")

    @dg.asset(name="cleaned", code_version="3")
    def newer() -> int:
        return 3

    assert is_stale(instance, [newer, versions.counted], "cleaned")
