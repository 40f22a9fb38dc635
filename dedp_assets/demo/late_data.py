"""The late-data integrator: each day of a table is processed when it is closed, and again after late data."""

from datetime import date

import click

from dedp_assets.demo.timeline import Act, Timeline, checked, headline, results
from dedp_assets.late_data_integrator import contract, producer, state, tables
from dedp_assets.resources.object_store import read_text, storage_options
from dedp_assets.resources_from_settings import LakeFromSettings

DAYS = [date(2024, 1, day) for day in range(1, 6)]
LATE = [date(2024, 1, 2), date(2024, 1, 3)]
ROWS = 100
ASSETS = [contract.DEVICES, contract.DEVICE_COUNTS, contract.BACKFILLING_CONFIGURATION]


def act(timeline: Timeline) -> Act:
    """Play the act; return whether every checked result is the expected one. Raises DemoFailed."""
    return (yield from _closed_days(timeline)) and (yield from _late_data(timeline))


def _closed_days(timeline: Timeline) -> Act:
    headline(
        "Late data, 1 of 2: somebody else commits five days to a Delta table. "
        "Spark processes the four days that are closed."
    )
    for day in DAYS:
        _commit(timeline, day)
    yield lambda: timeline.counts[contract.BACKFILLING_CONFIGURATION] >= len(DAYS) - 1
    with results("Late data, 1 of 2: closed days"):
        rows = _rows_counted()
        return all(
            [
                checked("days processed", len(rows), len(DAYS) - 1),
                *[checked(f"devices counted in {day}", rows[day], ROWS) for day in sorted(rows)],
            ]
        )


def _late_data(timeline: Timeline) -> Act:
    headline(
        "Late data, 2 of 2: late data is committed to 2024-01-02 and 2024-01-03. "
        "Only these two days are processed again."
    )
    before = len(timeline.partitions[contract.DEVICE_COUNTS])
    for day in LATE:
        _commit(timeline, day)
    yield lambda: timeline.counts[contract.BACKFILLING_CONFIGURATION] >= before + len(LATE)
    again = sorted(timeline.partitions[contract.DEVICE_COUNTS][before:])
    with results("Late data, 2 of 2: the late days, and what others see"):
        rows = _rows_counted()
        processing = _show_what_others_see()
        return all(
            [
                checked("days still being processed", processing, 0),
                checked(f"days processed again: {', '.join(again)}", len(again), len(LATE)),
                *[checked(f"devices counted in {day}", rows[day.isoformat()], 2 * ROWS) for day in LATE],
                *[
                    checked(f"devices counted in {day}", rows[day.isoformat()], ROWS)
                    for day in DAYS[:-1]
                    if day not in LATE
                ],
            ]
        )


def _commit(timeline: Timeline, day: date) -> None:
    loaded = producer.load(contract.uri(contract.DEVICES), day, producer.generated(ROWS))
    timeline.tell(f"committed      {loaded.rows} devices to {loaded.partition}, version {loaded.version}")


def _rows_counted() -> dict[str, int]:
    return tables.open_counts(LakeFromSettings()).rows_counted([day.isoformat() for day in DAYS])


def _show_what_others_see() -> int:
    """Print the state table and the backfilling configurations, which other pipelines read.

    Returns:
        How many days are being processed, according to the table.
    """
    uri = contract.uri(contract.PARTITIONS_STATE)
    click.echo(f"   {uri}\n   {'partition':<24} {'isProcessed':<12} lastProcessedVersion")
    rows = state.read_state(uri, storage_options(uri))
    for row in rows:
        processed = str(row.is_processed).lower()
        click.echo(f"   {row.partition:<24} {processed:<12} {row.last_processed_version}")
    for day in LATE:
        file = f"{contract.uri(contract.BACKFILLING_CONFIGURATION)}_{day}.json"
        click.echo(f"   {file}\n   {read_text(file)}")
    click.echo("")
    return sum(row.is_processed for row in rows)
