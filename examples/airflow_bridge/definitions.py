"""The Dagster side of the bridge: Airflow's DAG `shop` as assets, and the assets that take its tasks over, one by one.

    AIRFLOW_URL=http://127.0.0.1:8080 AIRFLOW_PASSWORD=... dagster dev -f examples/airflow_bridge/definitions.py

It needs `dagster-airlift[core]`, and no Airflow in its own environment: it asks Airflow's REST API.
"""

import os
from collections.abc import Iterator, Sequence

import dagster as dg
from dagster_airlift.constants import AIRFLOW_TASK_INSTANCE_LOGICAL_DATE_METADATA_KEY
from dagster_airlift.core import (
    AirflowBasicAuthBackend,
    AirflowInstance,
    assets_with_task_mappings,
    build_defs_from_airflow_instance,
)
from dagster_airlift.core.airflow_defs_data import AirflowDefinitionsData

DAYS = dg.DailyPartitionsDefinition("2024-01-01")

airflow = AirflowInstance(
    name="airflow",
    auth_backend=AirflowBasicAuthBackend(
        webserver_url=os.environ["AIRFLOW_URL"],
        username=os.environ.get("AIRFLOW_USER", "admin"),
        password=os.environ["AIRFLOW_PASSWORD"],
    ),
)

# Step 1: the tasks are observed. Each run of a task in Airflow is a materialization of its asset here.
raw = dg.AssetSpec("shop_raw", partitions_def=DAYS)
cleaned = dg.AssetSpec("shop_cleaned", deps=[raw], partitions_def=DAYS)


# Step 2: the task `report` says `proxied: true`. Airflow's run of it materializes this asset, and waits for it.
# When all tasks have moved, the DAG goes, and the assets get conditions or a schedule.
@dg.asset(deps=[cleaned], partitions_def=DAYS)
def shop_report(context: dg.AssetExecutionContext) -> None:
    context.log.info(f"reports {context.partition_key} in Dagster")


def by_day(
    context: dg.SensorEvaluationContext, data: AirflowDefinitionsData, seen: Sequence[dg.AssetMaterialization]
) -> Iterator[dg.AssetMaterialization]:
    """The partition is the day of the logical date.

    dagster-airlift's own rule wants midnight. A single run that somebody starts by hand, at 10:17, has another logical
    date. From then on each tick of the sensor fails, and no later run is seen.
    """
    for materialization in seen:
        if data.airflow_mapped_asset_specs[materialization.asset_key].partitions_def is None:
            yield materialization
        else:
            date = materialization.metadata[AIRFLOW_TASK_INSTANCE_LOGICAL_DATE_METADATA_KEY]
            day = DAYS.get_partition_key_for_timestamp(float(str(date.value)))
            yield materialization._replace(partition=day)


defs = build_defs_from_airflow_instance(
    airflow_instance=airflow,
    event_transformer_fn=by_day,
    defs=dg.Definitions(
        assets=assets_with_task_mappings(
            dag_id="shop", task_mappings={"extract": [raw], "transform": [cleaned], "report": [shop_report]}
        )
    ),
)
