"""What a tick of the conditions costs with many partitions: statements, evaluations, and the cursor, in PostgreSQL.

An asset follows another one (`sensors.automation.on_input_change`), with names as partitions, or with hours. All of
them were made by one run over the whole range. Counts do not depend on the machine, seconds do.

    python benchmarks/sizing_partitions.py --partitions 100 1000 10000
"""

import argparse
import os
import tempfile
import time
from collections import Counter
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg2
import sqlalchemy as sa
from dagster._serdes import serialize_value
from sqlalchemy.engine import Engine

from dedp_assets.partition_runs import AssetResult
from dedp_assets.resources import dagster_storage, embedded_postgres
from sensors.automation import on_input_change

CHANGED = 10
_FIRST = datetime(2020, 1, 1, tzinfo=timezone.utc)


def names(number: int) -> dg.PartitionsDefinition[str]:
    return dg.StaticPartitionsDefinition([f"client{each:06}" for each in range(number)])


def hours(number: int) -> dg.PartitionsDefinition[str]:
    return dg.HourlyPartitionsDefinition(_FIRST, end_date=_FIRST + timedelta(hours=number))


def graph(partitions: dg.PartitionsDefinition[str]) -> list[dg.AssetsDefinition]:
    """An asset, and one that follows it."""

    @dg.asset(partitions_def=partitions, backfill_policy=dg.BackfillPolicy.single_run())
    def source() -> AssetResult:
        return dg.MaterializeResult(data_version=dg.DataVersion("1"))

    @dg.asset(
        partitions_def=partitions,
        deps=[source],
        backfill_policy=dg.BackfillPolicy.single_run(),
        automation_condition=on_input_change(),
    )
    def copy() -> AssetResult:
        return dg.MaterializeResult(data_version=dg.DataVersion("1"))

    return [source, copy]


class Tick:
    """A tick of the conditions: what it requests, and what it cost."""

    def __init__(self, name: str, assets: list[dg.AssetsDefinition], instance: dg.DagsterInstance, cursor: Any) -> None:
        counts: Counter[str] = Counter()

        def executed(*arguments: Any) -> None:
            counts["statements"] += 1

        sa.event.listen(Engine, "before_cursor_execute", executed)
        began = time.perf_counter()
        try:
            result = dg.evaluate_automation_conditions(dg.Definitions(assets=assets), instance, cursor=cursor)
        finally:
            sa.event.remove(Engine, "before_cursor_execute", executed)
        self.seconds, self.cursor = time.perf_counter() - began, result.cursor
        evaluations = [len(serialize_value(each.serializable_evaluation)) for each in result.results]
        print(
            f"  {name:<44}{result.total_requested:>6} requested {counts['statements']:>5} statements "
            f"cursor {len(serialize_value(result.cursor)):>9,} B  evaluations {sum(evaluations):>9,} B  "
            f"{self.seconds:7.2f} s",
            flush=True,
        )


def measure(dsn: str, kind: str, number: int, partitions: dg.PartitionsDefinition[str]) -> None:
    name = f"{kind}_{number}"
    with closing(psycopg2.connect(dsn)) as server:
        server.autocommit = True
        server.cursor().execute(f"CREATE DATABASE {name}")
    url = psycopg2.extensions.parse_dsn(dsn)
    database = f"postgresql://{url['user']}@/{name}?host={url['host']}"
    assets = graph(partitions)
    keys = partitions.get_partition_keys()
    whole = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    storage = {
        "module": dagster_storage.__name__,
        "class": dagster_storage.PooledPostgresStorage.__name__,
        "config": {"postgres_url": database},
    }
    with dg.instance_for_test(overrides={"storage": {"custom": storage}}) as instance:

        def rows() -> int:
            with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM event_logs")
                return int(cursor.fetchall()[0][0])

        for asset in assets:
            dg.materialize([asset], instance=instance, tags=whole)
        print(
            f"{number:,} {kind}: {rows() / 2 / number:.2f} events for each partition, in a run over all of them",
            flush=True,
        )
        first = Tick("the first tick, or one with a lost cursor", assets, instance, None)
        second = Tick("nothing is new", assets, instance, first.cursor)
        for key in keys[:: max(1, number // CHANGED)][:CHANGED]:
            instance.report_runless_asset_event(dg.AssetMaterialization("source", partition=key))
        third = Tick(f"{CHANGED} partitions of the input were updated", assets, instance, second.cursor)
        dg.materialize([assets[0]], instance=instance, tags=whole)
        Tick("all partitions of the input were updated", assets, instance, third.cursor)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--partitions", type=int, nargs="+", default=[100, 1000, 10000])
    given = arguments.parse_args()
    # As `dedp_assets.materializations` does: the events of a run over a range are stored together.
    os.environ["DAGSTER_EVENT_BATCH_SIZE"] = "1000"
    with tempfile.TemporaryDirectory(prefix="dedp-bench-") as folder:
        Path(folder).chmod(0o755)
        with embedded_postgres.server_lease(Path(folder)) as dsn:
            for number in given.partitions:
                measure(dsn, "names", number, names(number))
                measure(dsn, "hours", number, hours(number))


if __name__ == "__main__":
    main()
