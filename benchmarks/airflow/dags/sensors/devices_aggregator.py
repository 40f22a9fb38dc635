"""The aggregating team: waits for the loading team's run of the same day, loads its copy and refreshes the totals."""

import os
from pathlib import Path

import pendulum
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.providers.standard.sensors.external_task import ExternalTaskSensor
from airflow.sdk import DAG

with DAG(
    "devices_aggregator",
    schedule="@daily",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=32,
    max_active_tasks=32,
    template_searchpath=[str(Path(__file__).parent.parent / "sql")],
):
    downstream_trigger_sensor = ExternalTaskSensor(
        task_id="downstream_trigger_sensor",
        external_dag_id="devices_loader",
        external_task_id="trigger_downstream_consumers",
        deferrable=True,
        poke_interval=1,
    )
    load_data_to_table = SQLExecuteQueryOperator(
        task_id="load_data_to_table",
        conn_id="devices",
        sql="load_devices.sql",
        params={"internal": os.environ["DEVICES_INTERNAL"]},
    )
    refresh_aggregates = SQLExecuteQueryOperator(
        task_id="refresh_aggregates", conn_id="devices", sql="refresh_aggregates.sql"
    )

    downstream_trigger_sensor >> load_data_to_table >> refresh_aggregates
