"""`dedp demo`: the isolated sequencer on the real system, with its result checked.

Three daily loads of one file of 50 devices, as in the original; then the first asset is materialized again and
everything downstream, in the other code location, follows.
"""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

import click
import dagster as dg
import psycopg2
from psycopg2.extensions import connection as Connection

from dedp_assets import local_stack, settings
from dedp_assets.generator import write_csv
from dedp_assets.isolated_sequencer import contract
from dedp_assets.isolated_sequencer.loader import landing

ROWS = 50
DAYS = 3
_PATIENCE_SECONDS = 120

_ASSETS = [contract.DEVICES_FILE, contract.DEVICES_RAW, contract.DEVICES_AGGREGATES]


class DemoFailed(RuntimeError):
    """The system did not do what the demo says it does."""


def run_demo() -> bool:
    """Run it and print it; True only if everything was as it should be."""
    began = time.monotonic()
    _use_own_home()
    click.echo(f"Starting PostgreSQL, Dagster's daemon and both code locations (state: {settings.home()}) ...")
    with local_stack.running(local_stack.free_port()) as stack:
        os.environ.update(stack.environment)
        with (
            dg.DagsterInstance.get() as instance,
            closing(psycopg2.connect(stack.environment["DEDP_POSTGRES_DSN"])) as database,
        ):
            database.autocommit = True
            timeline = Timeline(instance)
            try:
                passed = _three_daily_loads(timeline, database) and _once_more(timeline, database)
            except DemoFailed as error:
                click.echo(f"\n{error}\n{local_stack.log_tail(stack.log)}", err=True)
                passed = False
    outcome = click.style("all as it should be", fg="green") if passed else click.style("NOT as it should be", fg="red")
    click.echo(f"\nDone in {time.monotonic() - began:.0f} s, {outcome}; everything is stopped again.")
    if passed:
        click.echo("Next: `make up` for the UI with these runs in it, README.md for what to try.")
    return passed


def _three_daily_loads(timeline: "Timeline", database: Connection) -> bool:
    timeline.start(f"1. A file of {ROWS} devices lands. Nothing else is done by hand.")
    write_csv(landing.undated_file(), ROWS, seed=1)
    timeline.tell(f"landed         {landing.undated_file()}")
    timeline.watch_until(lambda counts: all(counts[key] >= DAYS for key in _ASSETS))
    totals = _totals(database)
    occurrences = {row[-1] for row in totals}
    click.echo("")
    return all(
        [
            _checked("rows in dedp.devices_raw", _raw_rows(database), ROWS * DAYS),
            _checked("rows in dedp.devices_aggregates", len(totals), ROWS),
            *[_checked("all_occurrences of each", value, DAYS) for value in occurrences],
        ]
    )


def _once_more(timeline: "Timeline", database: Connection) -> bool:
    days = contract.due_days(datetime.now(timezone.utc), settings.start())
    command = [
        *("dagster", "asset", "materialize", "-m", "jobs.devices_loader", "--select", "devices_file"),
        *("--partition-range", f"{days[0]}...{days[-1]}"),
    ]
    timeline.start(f"2. The first asset again, for all days (the recursive clear):\n   dedp exec {shlex.join(command)}")
    totals, counts = _totals(database), timeline.counts.copy()
    done = subprocess.run([sys.executable, "-m", *command], cwd=settings.REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        raise DemoFailed(f"that command failed:\n{done.stderr[-2000:]}")
    timeline.watch_until(lambda now: all(now[key] >= counts[key] + len(days) for key in _ASSETS))
    changed = len(set(_totals(database)) ^ set(totals))
    click.echo("")
    return all(
        [
            _checked("rows in dedp.devices_raw", _raw_rows(database), ROWS * DAYS),
            _checked("totals that have changed", changed, 0),
        ]
    )


def _raw_rows(database: Connection) -> int:
    with database.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM dedp.devices_raw")
        return cursor.fetchall()[0][0]


def _totals(database: Connection) -> list[tuple]:
    with database.cursor() as cursor:
        cursor.execute("SELECT * FROM dedp.devices_aggregates")
        return cursor.fetchall()


def _checked(what: str, found: int, expected: int) -> bool:
    verdict = click.style("ok", fg="green") if found == expected else click.style(f"expected {expected}", fg="red")
    click.echo(f"   {found:>5} {what:<34} {verdict}")
    return found == expected


def _use_own_home() -> None:
    """Make DEDP_HOME a fresh one, without touching anybody's data: neither there nor wherever DEDP_* points to."""
    home = _demo_home(settings.home())
    for name in [name for name in os.environ if name.startswith("DEDP_")] + ["DAGSTER_HOME"]:
        os.environ.pop(name, None)
    os.environ["DEDP_HOME"] = str(home)
    if local_stack.running_pid() is not None:
        raise local_stack.StackError(f"the system of {home} is running; stop it first: make down")
    shutil.rmtree(home, ignore_errors=True)
    settings.make_home()
    (home / settings.DEMO_MARK).touch()


def _demo_home(home: Path) -> Path:
    """The home itself if a demo made it or nobody has; a folder inside it if it is somebody's."""
    ours = (home / settings.DEMO_MARK).is_file() or not home.exists() or not any(home.iterdir())
    return home if ours else _demo_home(home / "demo_home")


class Timeline:
    """Prints what happens on the instance as it happens: seconds since the start, what, and because of what."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._began = time.monotonic()
        self._seen_runs: dict[str, dg.DagsterRunStatus] = {}
        self._last_event = dict.fromkeys(_ASSETS, 0)
        self.counts = dict.fromkeys(_ASSETS, 0)

    def start(self, headline: str) -> None:
        """Begin a chapter: its seconds count from here."""
        self._began = time.monotonic()
        click.echo("\n" + click.style(headline, bold=True))

    def tell(self, what: str) -> None:
        """One line, now."""
        click.echo(f"   {time.monotonic() - self._began:5.1f} s  {what}")

    def watch_until(self, done: Callable[[dict[dg.AssetKey, int]], bool]) -> None:
        """Print events until `done` says so of the number of materializations per asset.

        Raises DemoFailed if a run fails, or nothing comes of it in time.
        """
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while not done(self.counts):
            for line in [*self._runs(), *self._materializations()]:
                self.tell(line)
            if time.monotonic() > give_up:
                raise DemoFailed(f"not done after {_PATIENCE_SECONDS} s")
            time.sleep(0.3)
        for line in self._runs():
            self.tell(line)

    def _runs(self) -> Iterator[str]:
        for run in reversed(self._instance.get_runs(limit=100)):
            if self._seen_runs.get(run.run_id) == run.status:
                continue
            if run.run_id not in self._seen_runs:
                cause = run.tags.get("dagster/sensor_name", "the command line")
                yield f"requested      run {run.run_id[:8]} by {cause}: {_assets_of(run)} {_partitions_of(run)}"
            self._seen_runs[run.run_id] = run.status
            if run.status == dg.DagsterRunStatus.FAILURE:
                raise DemoFailed(f"run {run.run_id} of {_assets_of(run)} failed; `dedp up` shows it in the UI")
            if run.status in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.SUCCESS):
                yield f"{run.status.value.lower():<14} run {run.run_id[:8]}"

    def _materializations(self) -> Iterator[str]:
        for key in _ASSETS:
            found = self._instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=key, after_storage_id=self._last_event[key]), limit=1000, ascending=True
            )
            for record in found.records:
                self._last_event[key] = record.storage_id
                self.counts[key] += 1
                yield f"materialized   {key.to_user_string()} {record.partition_key}"


def _assets_of(run: dg.DagsterRun) -> str:
    return ", ".join(sorted(key.to_user_string() for key in run.asset_selection or []))


def _partitions_of(run: dg.DagsterRun) -> str:
    first = run.tags.get("dagster/asset_partition_range_start")
    return (
        f"{first}...{run.tags['dagster/asset_partition_range_end']}" if first else run.tags.get("dagster/partition", "")
    )
