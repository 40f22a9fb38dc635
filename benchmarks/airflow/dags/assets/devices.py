"""Both teams with assets, so no run waits: a watcher starts the loader, which reports days; the aggregator follows."""

import os
import shutil
from pathlib import Path

import pendulum
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import DAG, Asset, AssetWatcher, PartitionedAssetTimetable, PartitionedAtRuntime, task
from landed_devices import LandedDevices

LANDING, TAKEN, INTERNAL = (os.environ[f"DEVICES_{place}"] for place in ("LANDING", "TAKEN", "INTERNAL"))
START = pendulum.datetime(2024, 1, 1, tz="UTC")

landed = Asset("devices_landed", watchers=[AssetWatcher(name="landing", trigger=LandedDevices(LANDING, TAKEN))])
internal = Asset("devices_internal")


def is_new(file: Path) -> bool:
    copy = Path(INTERNAL) / file.name
    return not copy.exists() or copy.stat().st_mtime < file.stat().st_mtime


def copy_to_internal(file: Path) -> None:
    copy = Path(INTERNAL) / file.name
    draft = copy.with_suffix(".part")
    shutil.copyfile(file, draft)
    draft.replace(copy)


# An event of a watcher has no partition key, and one run gets the events of several files, or not all of them. So the
# run takes what is there. With two runs at a time, both would.
with DAG("devices_loader", schedule=[landed], start_date=START, catchup=False, max_active_runs=1):

    @task(outlets=[internal])
    def load_new_devices(*, outlet_events) -> None:  # type: ignore[no-untyped-def]
        new = [file for file in sorted(Path(TAKEN).glob("*.csv")) if is_new(file)]
        for file in new:
            copy_to_internal(file)
        outlet_events[internal].add_partitions([file.stem for file in new])

    load_new_devices()

with DAG(
    "devices_aggregator",
    schedule=PartitionedAssetTimetable(assets=internal),
    start_date=START,
    catchup=False,
    max_active_runs=32,
    max_active_tasks=32,
    template_searchpath=[str(Path(__file__).parent.parent / "sql")],
):
    load_data_to_table = SQLExecuteQueryOperator(
        task_id="load_data_to_table", conn_id="devices", sql="load_devices.sql", params={"internal": INTERNAL}
    )
    refresh_aggregates = SQLExecuteQueryOperator(
        task_id="refresh_aggregates", conn_id="devices", sql="refresh_aggregates.sql"
    )
    load_data_to_table >> refresh_aggregates

# The backfill: one run copies the days anew, and each day's totals follow.
with DAG(
    "devices_backfill",
    schedule=PartitionedAtRuntime(),
    start_date=START,
    catchup=False,
    params={"first": "", "last": ""},
):

    @task(outlets=[internal])
    def copy_again(*, params, outlet_events) -> None:  # type: ignore[no-untyped-def]
        wanted = (pendulum.parse(params["last"]) - pendulum.parse(params["first"])).range("days")
        days = [day.to_date_string() for day in wanted]
        for day in days:
            copy_to_internal(Path(TAKEN) / f"{day}.csv")
        outlet_events[internal].add_partitions(days)

    copy_again()
