"""Refreshing the totals for one load, with many earlier loads compared with few: the cost depends on the load alone.

Two databases differ only in the number of loads. In each round both get one new load. The time is that of folding this
load into the totals.
"""

import argparse
import sys
import tempfile
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

import psycopg2
from measuring import compare, seconds
from psycopg2.extensions import connection as Connection

from dedp_assets.generator import write_csv
from dedp_assets.isolated_sequencer.aggregator.folding import fold
from dedp_assets.isolated_sequencer.aggregator.loading import load_file
from dedp_assets.isolated_sequencer.aggregator.tables import ensure_tables
from dedp_assets.resources.embedded_postgres import server_lease


def load_id(number: int) -> str:
    return f"{date(2020, 1, 1) + timedelta(days=number):%Y%m%d}"


def main() -> bool:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=10_000, help="of each load")
    arguments.add_argument("--many", type=int, default=1_000)
    arguments.add_argument("--few", type=int, default=10)
    arguments.add_argument("--rounds", type=int, default=15)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "dataset.csv"
        write_csv(file, options.rows, seed=1)
        with server_lease(Path(folder) / "postgres") as dsn:
            many, few = (_with_loads(dsn, name, number, file) for name, number in _databases(options))
            with closing(many), closing(few):

                def refresh(connection: Connection, present: int, number: int) -> float:
                    load_file(connection, load_id(present + number), file)
                    return seconds(lambda: fold(connection, load_id(present + number)))

                return compare(
                    (f"with {options.many} loads present", f"with {options.few} loads present"),
                    (lambda n: refresh(many, options.many, n), lambda n: refresh(few, options.few, n)),
                    rounds=options.rounds,
                    at_most=1.3,
                )


def _databases(options: argparse.Namespace) -> list[tuple[str, int]]:
    return [("many", options.many), ("few", options.few)]


def _with_loads(dsn: str, name: str, number: int, file: Path) -> Connection:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {name}")
    connection = psycopg2.connect(dsn, dbname=name)
    ensure_tables(connection)
    for position in range(number):
        load_file(connection, load_id(position), file)
        fold(connection, load_id(position))
        if (position + 1) % 100 == 0:
            print(f"preparing: {position + 1} of {number} loads", flush=True, file=sys.stderr)
    connection.autocommit = True
    connection.cursor().execute("VACUUM ANALYZE")
    connection.autocommit = False
    return connection


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
