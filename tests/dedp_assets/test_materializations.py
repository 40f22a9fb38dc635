"""Many materializations recorded at once, in the storage of a real instance."""

from collections.abc import Iterator

import dagster as dg
import psycopg2
import pytest
from dagster._core.test_utils import instance_for_test

from dedp_assets.local_stack.environment import in_schema
from dedp_assets.materializations import record_materializations

KEY = dg.AssetKey("uploads")
CLIENTS = ["north", "south", "west"]


def made(client: str, key: dg.AssetKey = KEY) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        key, partition=client, metadata={"of": client}, tags={"dagster/data_version": f"v-{client}"}
    )


@dg.multi_asset(specs=[dg.AssetSpec(KEY, skippable=True)], partitions_def=dg.StaticPartitionsDefinition(CLIENTS))
def uploads(context: dg.AssetExecutionContext) -> Iterator[dg.Output[None]]:
    record_materializations(context, [made(client) for client in CLIENTS])
    yield from ()


@pytest.fixture
def postgres_instance(empty_dsn: str) -> Iterator[dg.DagsterInstance]:
    connection = psycopg2.connect(empty_dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA dagster")
    connection.close()
    storage = {"postgres": {"postgres_url": in_schema(empty_dsn, "dagster")}}
    with instance_for_test(overrides={"storage": storage}) as instance:
        yield instance


def test_each_materialization_stands_with_its_partition_metadata_and_data_version(
    postgres_instance: dg.DagsterInstance,
) -> None:
    assert dg.materialize([uploads], instance=postgres_instance, partition_key="north").success
    records = postgres_instance.fetch_materializations(KEY, limit=10).records
    found = [record.asset_materialization for record in reversed(records)]
    assert [
        (each.partition, each.metadata["of"].value, (each.tags or {})["dagster/data_version"]) for each in found if each
    ] == [(client, client, f"v-{client}") for client in CLIENTS]
    assert postgres_instance.get_materialized_partitions(KEY) == set(CLIENTS)
    latest = postgres_instance.get_latest_materialization_event(KEY)
    assert latest is not None
    assert latest.asset_materialization is not None
    assert latest.asset_materialization.partition == "west"


def test_materializations_of_two_assets_are_not_recorded_together(instance: dg.DagsterInstance) -> None:
    @dg.asset
    def mixed(context: dg.AssetExecutionContext) -> None:
        with pytest.raises(ValueError, match="of several assets; expected one asset"):
            record_materializations(context, [made("north"), made("north", dg.AssetKey("other"))])

    assert dg.materialize([mixed], instance=instance).success
