"""Loading clean rows as one new load, compared with the bare limit: COPY into a new table plus its primary key.

Our load also checks every line, could put lines into quarantine, keeps the accounts and makes the table a partition.
"""

import argparse
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import psycopg2
from measuring import compare, seconds

from dedp_assets.generator import write_csv
from dedp_assets.isolated_sequencer.aggregator.loading import load_file
from dedp_assets.isolated_sequencer.aggregator.tables import ensure_tables
from dedp_assets.resources.embedded_postgres import server_lease

BARE = """
    DROP TABLE IF EXISTS bare;
    CREATE TABLE bare (
        type varchar(15) NOT NULL, full_name varchar(50) NOT NULL, version varchar(40) NOT NULL,
        load_id char(8) NOT NULL DEFAULT '20240101'
    );
"""
COPY = "COPY bare (type, full_name, version) FROM STDIN (FORMAT csv, DELIMITER ';', HEADER)"
KEY = "ALTER TABLE bare ADD PRIMARY KEY (type, full_name, version, load_id)"


def main() -> bool:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "dataset.csv"
        write_csv(file, options.rows, seed=1)
        with server_lease(Path(folder) / "postgres") as dsn, closing(psycopg2.connect(dsn)) as connection:
            ensure_tables(connection)

            def ours(number: int) -> float:
                return seconds(lambda: load_file(connection, f"{20240101 + number}", file))

            def bare(number: int) -> float:
                def copy_and_index() -> None:
                    with connection, connection.cursor() as cursor, open(file, "rb") as stream:
                        cursor.execute(BARE)
                        cursor.copy_expert(COPY, stream, size=1 << 20)
                        cursor.execute(KEY)

                return seconds(copy_and_index)

            print(f"{options.rows:,} clean rows, {file.stat().st_size / 1e6:.0f} MB")
            return compare(
                ("a new load, whole", "COPY + primary key"), (ours, bare), rounds=options.rounds, at_most=1.5
            )


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
