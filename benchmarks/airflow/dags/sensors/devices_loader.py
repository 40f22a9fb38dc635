"""The loading team: waits for the day's devices file, copies it to internal storage, and marks who depends on it."""

import os
import shutil
from pathlib import Path

import pendulum
from airflow.providers.standard.sensors.external_task import ExternalTaskMarker
from airflow.providers.standard.sensors.filesystem import FileSensor
from airflow.sdk import DAG, task

LANDING, INTERNAL = os.environ["DEVICES_LANDING"], os.environ["DEVICES_INTERNAL"]

with DAG(
    "devices_loader",
    schedule="@daily",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=32,
    max_active_tasks=32,
):
    input_data_sensor = FileSensor(
        task_id="input_data_sensor", filepath=f"{LANDING}/{{{{ ds }}}}/dataset.csv", deferrable=True, poke_interval=1
    )

    @task
    def load_new_devices_to_internal_storage(ds: str) -> None:
        # A file for each day, renamed into place: one path for all would be read while another day replaces it.
        copy = Path(INTERNAL) / f"{ds}.csv"
        draft = copy.with_suffix(".part")
        shutil.copyfile(f"{LANDING}/{ds}/dataset.csv", draft)
        draft.replace(copy)

    trigger_downstream_consumers = ExternalTaskMarker(
        task_id="trigger_downstream_consumers",
        external_dag_id="devices_aggregator",
        external_task_id="downstream_trigger_sensor",
    )

    input_data_sensor >> load_new_devices_to_internal_storage() >> trigger_downstream_consumers
