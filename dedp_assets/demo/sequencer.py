"""The isolated sequencer: a file lands, one team copies it, and the other team loads and counts it.

As in the original, one file of 50 devices is loaded for three days. Then the first asset is materialized again, and all
assets downstream follow, also in the other code location.
"""

import shlex
from datetime import datetime, timezone
from typing import Any

from psycopg2.extensions import connection as Connection

from dedp_assets import settings
from dedp_assets.demo.commands import by_hand
from dedp_assets.demo.timeline import Act, Timeline, checked, headline, results
from dedp_assets.generator import write_csv
from dedp_assets.isolated_sequencer import contract
from dedp_assets.isolated_sequencer.loader.landing import landing_folder
from dedp_assets.landing.dated import UNDATED

ROWS = 50
DAYS = 3
ASSETS = [contract.DEVICES_FILE, contract.DEVICES_RAW, contract.DEVICES_AGGREGATES]


def act(timeline: Timeline, database: Connection) -> Act:
    """Play the act; return whether every checked result is the expected one. Raises DemoFailed."""
    return (yield from _three_daily_loads(timeline, database)) and (yield from _once_more(timeline, database))


def _three_daily_loads(timeline: Timeline, database: Connection) -> Act:
    headline(f"Sequencer, 1 of 2: a file of {ROWS} devices lands. That is all that is done by hand.")
    write_csv(landing_folder().file_of(UNDATED), ROWS, seed=1)
    timeline.tell(f"landed         {landing_folder().file_of(UNDATED)}")
    yield lambda: all(timeline.counts[key] >= DAYS for key in ASSETS)
    totals = _totals(database)
    occurrences = {row[-1] for row in totals}
    with results("Sequencer, 1 of 2: three daily loads of one file"):
        return all(
            [
                checked("rows in dedp.devices_raw", _raw_rows(database), ROWS * DAYS),
                checked("rows in dedp.devices_aggregates", len(totals), ROWS),
                *[checked("all_occurrences of each", value, DAYS) for value in occurrences],
            ]
        )


def _once_more(timeline: Timeline, database: Connection) -> Act:
    days = contract.due_days(datetime.now(timezone.utc), settings.start())
    command = [
        *("dagster", "asset", "materialize", "-m", "jobs.devices_loader", "--select", "devices_file"),
        *("--partition-range", f"{days[0]}...{days[-1]}"),
    ]
    headline(
        "Sequencer, 2 of 2: the first asset again, for all days (the recursive clear):\n"
        f"   dedp exec {shlex.join(command)}"
    )
    totals, counts = _totals(database), timeline.counts
    yield from by_hand(command)
    yield lambda: all(timeline.counts[key] >= counts[key] + len(days) for key in ASSETS)
    changed = len(set(_totals(database)) ^ set(totals))
    with results("Sequencer, 2 of 2: the same results again"):
        return all(
            [
                checked("rows in dedp.devices_raw", _raw_rows(database), ROWS * DAYS),
                checked("totals that have changed", changed, 0),
            ]
        )


def _raw_rows(database: Connection) -> int:
    with database.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM dedp.devices_raw")
        return int(cursor.fetchall()[0][0])


def _totals(database: Connection) -> list[tuple[Any, ...]]:
    with database.cursor() as cursor:
        cursor.execute("SELECT * FROM dedp.devices_aggregates")
        return cursor.fetchall()
