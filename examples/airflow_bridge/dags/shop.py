"""An Airflow DAG of three tasks, which moves to Dagster task by task: see proxied_state/shop.yaml."""

import datetime as dt
from pathlib import Path
from typing import Any

from airflow import DAG
from airflow.operators.python import PythonOperator
from dagster_airlift.in_airflow import proxying_to_dagster
from dagster_airlift.in_airflow.proxied_state import load_proxied_state_from_yaml
from dagster_airlift.in_airflow.task_proxy_operator import DefaultProxyTaskToDagsterOperator


def extract() -> None:
    print("extracted in Airflow")


def transform() -> None:
    print("transformed in Airflow")


def report() -> None:
    print("reported in Airflow")


with DAG("shop", schedule="@daily", start_date=dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc), catchup=False) as dag:
    tasks = [PythonOperator(task_id=task.__name__, python_callable=task) for task in (extract, transform, report)]
    tasks[0] >> tasks[1] >> tasks[2]


class ByDay(DefaultProxyTaskToDagsterOperator):
    """The partition is the day of the logical date. The default fails for a run by hand, which is not at midnight."""

    def get_partition_key(self, context: dict[str, Any], partitioning_info: object) -> str:
        return context["logical_date"].strftime("%Y-%m-%d")


proxying_to_dagster(
    build_from_task_fn=ByDay.build_from_task,
    global_vars=globals(),
    proxied_state=load_proxied_state_from_yaml(Path(__file__).parent / "proxied_state"),
)
