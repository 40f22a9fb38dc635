"""What runs and ticks add to Dagster's storage, and who connects to PostgreSQL, on a system that runs.

The system is `dedp up` with the code locations that need no Spark, on a home of its own. It rests for a while, and
then gets files for so many days, clients and deliveries. At the end, everything is made 100 days older, and purged.
These are counts, which do not depend on the machine. `sizing_partitions.py` has what grows with partitions.

    python benchmarks/sizing.py --days 30 --idle 120
"""

import argparse
import os
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import date, timedelta
from pathlib import Path

import psycopg2
import systems
from systems import System

from dedp_assets import settings
from dedp_assets.generator import write_csv
from dedp_assets.isolated_sequencer.loader.landing import landing_folder
from dedp_assets.promotions import contract as promotions
from dedp_assets.promotions import generator
from dedp_assets.retention import purging

LOCATIONS = (
    *("jobs.devices_loader", "jobs.devices_aggregator", "jobs.client_uploads", "jobs.promotions"),
    *("jobs.promotion_reports", "jobs.user_intake", "jobs.cookbook"),
)
TABLES = (
    *("runs", "run_tags", "event_logs", "asset_event_tags", "asset_check_executions", "job_ticks"),
    *("asset_daemon_asset_evaluations", "bulk_actions", "kvs", "instigators", "snapshots", "asset_keys"),
)
FIRST_DAY = date(2024, 1, 1)
_PATIENCE_SECONDS = 1200

# Each statement of Dagster's storage is a transaction of its own.
_TRANSACTIONS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
_TICKS = "SELECT tick_body::json ->> 'job_name', status, count(*) FROM dagster.job_ticks GROUP BY 1, 2"
_RUNS = """
    SELECT coalesce(assets.names, run.pipeline_name) AS what,
           count(*),
           avg(events.rows),
           avg(events.bytes),
           avg(pg_column_size(run.*)),
           avg(tags.rows),
           avg(tags.bytes),
           avg(events.asset_rows)
      FROM dagster.runs AS run
      LEFT JOIN LATERAL (
               SELECT string_agg(DISTINCT asset_key, ' ') AS names
                 FROM dagster.event_logs
                WHERE run_id = run.run_id AND dagster_event_type = 'ASSET_MATERIALIZATION_PLANNED'
           ) AS assets ON TRUE
      LEFT JOIN LATERAL (
               SELECT count(*) AS rows, sum(pg_column_size(event.*)) AS bytes, count(asset_key) AS asset_rows
                 FROM dagster.event_logs AS event
                WHERE run_id = run.run_id
           ) AS events ON TRUE
      LEFT JOIN LATERAL (
               SELECT count(*) AS rows, sum(pg_column_size(tag.*)) AS bytes
                 FROM dagster.run_tags AS tag
                WHERE run_id = run.run_id
           ) AS tags ON TRUE
     GROUP BY 1
     ORDER BY 2 DESC
"""
# One end of a connection, as `ss` prints it: its path, its inode, the inode of the other end, and its process.
_END = re.compile(r'(\S+) (\d+) +\S+ (\d+) +users:\(\("([^"]*)",pid=(\d+)')


class Connections:
    """The most connections at any time of each kind of process, and of all together."""

    def __init__(self) -> None:
        self.most: Counter[str] = Counter()
        self.of_one: Counter[str] = Counter()
        self.together = 0
        self._stop = threading.Event()

    @contextmanager
    def watched(self, socket: str) -> Iterator[None]:
        thread = threading.Thread(target=self._watch, args=[socket], daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _watch(self, socket: str) -> None:
        while not self._stop.wait(0.2):
            found = clients_of(socket)
            kinds: Counter[str] = Counter()
            for (kind, _), number in found.items():
                kinds[kind] += number
                self.of_one[kind] = max(self.of_one[kind], number)
            self.most |= kinds
            self.together = max(self.together, found.total())


def clients_of(socket: str) -> "Counter[tuple[str, int]]":
    """How many connections each process has to a server, by its name and id; ours are left out.

    Args:
        socket: the path of the server's Unix socket.
    """
    listed = subprocess.run(["ss", "-xpH", "state", "connected"], capture_output=True, text=True, check=True).stdout
    ends = _END.findall(listed)
    served = {inode for path, inode, *_ in ends if path == socket}
    return Counter(
        (name, int(process))
        for path, _, peer, name, process in ends
        if path != socket and peer in served and int(process) != os.getpid()
    )


def counted(system: System) -> dict[str, int]:
    """The rows of each table, and how many transactions there were."""
    rows = {table: system.count(f"SELECT count(*) FROM dagster.{table}") for table in TABLES}
    return {**rows, "transactions": system.count(_TRANSACTIONS)}


def ticks(system: System) -> "Counter[tuple[str, str]]":
    with system.database.cursor() as cursor:
        cursor.execute(_TICKS)
        return Counter({(name, status): number for name, status, number in cursor.fetchall()})


def drop(days: int, clients: int) -> None:
    """The files of so many days, a file of each client, and each supplier's deliveries."""
    for number in range(days):
        day = (FIRST_DAY + timedelta(days=number)).isoformat()
        landed = landing_folder().file_of(day)
        landed.parent.mkdir(parents=True, exist_ok=True)
        part = landed.with_name(".part")
        write_csv(part, 20, seed=number)
        os.replace(part, landed)
        for supplier in settings.suppliers():
            folder = promotions.landing_folder() / supplier / day
            lines = [offer.line for offer in generator.offers(supplier, date.fromisoformat(day), 5)]
            generator.write_delivery(folder, lines, files=1)
    for number in range(clients):
        folder = settings.landing() / "clients" / f"client{number:04}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".part").write_text("id,name,value\n1,item,1\n")
        os.replace(folder / ".part", folder / "orders.csv")


def wait_until_quiet(system: System, seconds: float = _PATIENCE_SECONDS) -> None:
    """Until no run was under way, and none came, for 20 s."""
    give_up = time.monotonic() + seconds
    since, runs = time.monotonic(), -1
    while time.monotonic() - since < 20 and time.monotonic() < give_up:
        now = system.count("SELECT count(*) FROM dagster.runs")
        if now != runs or not system.is_quiet():
            since, runs = time.monotonic(), now
        time.sleep(1)


def print_tables(title: str, before: dict[str, int], after: dict[str, int], per: float, unit: str) -> None:
    print(f"\n{title}")
    for table in after:
        if after[table] != before[table]:
            added = after[table] - before[table]
            print(f"  {table:<32}{added:>9,}  {added / per:>10.2f} {unit}")


def print_runs(system: System) -> None:
    print("\nA run, on average: its events and their bytes, its record, its tags, events of assets")
    with system.database.cursor() as cursor:
        cursor.execute(_RUNS)
        for what, number, events, size, record, tags, tag_size, of_assets in cursor.fetchall():
            print(
                f"  {number:>5} of {what[:70]:<70} {events or 0:6.1f} events {float(size or 0):9,.0f} B  "
                f"record {record:6,.0f} B  {tags:4.1f} tags {float(tag_size or 0):6,.0f} B  {of_assets or 0:4.1f}"
            )


def print_sizes(system: System, title: str) -> None:
    """The tables as they are without what was deleted or changed: a table that was purged keeps its size otherwise."""
    print(f"\n{title}")
    with system.database.cursor() as cursor:
        cursor.execute("SET search_path = dagster")
        for table in TABLES:
            cursor.execute(f"VACUUM FULL ANALYZE {table}")
            cursor.execute(
                f"SELECT count(*), avg(pg_column_size(each.*)), pg_total_relation_size('{table}'), "
                f"pg_indexes_size('{table}') FROM {table} AS each"
            )
            [(rows, average, total, indexes)] = cursor.fetchall()
            print(
                f"  {table:<32}{rows:>9,} rows of {float(average or 0):7,.0f} B; with its indexes {total:>12,} B, "
                f"{total / max(rows, 1):8,.0f} B a row, of which indexes {indexes / max(rows, 1):6,.0f} B"
            )


def print_outputs(home: Path) -> None:
    folder = home / "dagster" / "storage"
    files = [each for each in folder.rglob("*") if each.is_file()]
    size, blocks = sum(each.stat().st_size for each in files), sum(each.stat().st_blocks * 512 for each in files)
    print(f"\noutput of runs and ticks: {len(files):,} files, {size:,} B, {blocks:,} B on the disk")


def age_and_purge(system: System) -> None:
    with closing(psycopg2.connect(system.database.dsn, options="-csearch_path=dagster")) as connection:
        with connection, connection.cursor() as cursor:
            for table, columns in (
                ("runs", ("create_timestamp", "update_timestamp")),
                ("event_logs", ("timestamp",)),
                ("job_ticks", ("timestamp",)),
                ("asset_check_executions", ("create_timestamp",)),
                ("asset_daemon_asset_evaluations", ("create_timestamp",)),
            ):
                for column in columns:
                    cursor.execute(f"UPDATE {table} SET {column} = {column} - interval '100 days'")
        purged = purging.purge(connection, timedelta(days=90), system.instance.compute_log_manager)
    print("\npurged:")
    print("\n".join(purging.table(purged)))


def measure(days: int, clients: int, idle: float, locations: Sequence[str]) -> None:
    home = settings.home()
    connections_idle, connections_busy = Connections(), Connections()
    for number in range(clients):
        (settings.landing() / "clients" / f"client{number:04}").mkdir(parents=True)
    with systems.under_dedp_up(locations) as system:
        socket = str(home / "postgres" / "data" / ".s.PGSQL.5432")
        wait_until_quiet(system, 120)
        before, before_ticks, began = counted(system), ticks(system), time.monotonic()
        with connections_idle.watched(socket):
            time.sleep(idle)
        minutes = (time.monotonic() - began) / 60
        print_tables(f"{minutes:.1f} min without work", before, counted(system), minutes, "a minute")
        for (name, status), number in sorted((ticks(system) - before_ticks).items()):
            print(f"    {number / minutes:6.2f} ticks a minute  {status:<8} {name}")
        before, before_ticks = counted(system), ticks(system)
        with connections_busy.watched(socket):
            drop(days, clients)
            wait_until_quiet(system)
        after = counted(system)
        runs = after["runs"] - before["runs"]
        print_tables(f"{days} days, {clients} clients: {runs} runs", before, after, runs, "a run")
        print("\nconnections, the most at any time     idle    busy    of one process")
        for kind in sorted(connections_idle.most | connections_busy.most):
            print(
                f"  {kind:<34}{connections_idle.most[kind]:>6}{connections_busy.most[kind]:>8}"
                f"{max(connections_idle.of_one[kind], connections_busy.of_one[kind]):>12}"
            )
        print(f"  {'together':<34}{connections_idle.together:>6}{connections_busy.together:>8}")
        print_runs(system)
        print_sizes(system, "before the purge")
        print_outputs(home)
        age_and_purge(system)
        print_sizes(system, "after the purge")
        print_outputs(home)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--days", type=int, default=30, help="days of devices, and of deliveries of each supplier")
    arguments.add_argument("--clients", type=int, default=100, help="clients with a file each")
    arguments.add_argument("--idle", type=float, default=120, help="how long to rest before, in s")
    given = arguments.parse_args()
    with systems.interruptible(), systems.fresh_home():
        measure(given.days, given.clients, given.idle, LOCATIONS)


if __name__ == "__main__":
    main()
