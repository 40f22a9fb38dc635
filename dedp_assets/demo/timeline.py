"""What happens on the real system, printed as it happens."""

import time
from collections.abc import Callable, Iterator, Sequence

import click
import dagster as dg

_PATIENCE_SECONDS = 120


class DemoFailed(RuntimeError):
    """The system did not do what the demo says it does."""


def checked(what: str, found: int, expected: int) -> bool:
    """Print a result beside what it should be; whether it is."""
    verdict = click.style("ok", fg="green") if found == expected else click.style(f"expected {expected}", fg="red")
    click.echo(f"   {found:>5} {what:<34} {verdict}")
    return found == expected


class Timeline:
    """Prints what happens on the instance as it happens: seconds since the start, what, and because of what."""

    def __init__(self, instance: dg.DagsterInstance, assets: Sequence[dg.AssetKey]) -> None:
        self._instance, self._assets = instance, assets
        self._began = time.monotonic()
        self._seen_runs = {run.run_id: run.status for run in instance.get_runs()}
        self._last_event = dict.fromkeys(assets, 0)
        self.partitions: dict[dg.AssetKey, list[str]] = {key: [] for key in assets}

    @property
    def counts(self) -> dict[dg.AssetKey, int]:
        """How often each asset has been materialized."""
        return {key: len(partitions) for key, partitions in self.partitions.items()}

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
                yield f"{run.status.value.lower():<14} run {run.run_id[:8]}{_lateness_of(run)}"

    def _materializations(self) -> Iterator[str]:
        for key in self._assets:
            found = self._instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=key, after_storage_id=self._last_event[key]), limit=1000, ascending=True
            )
            for record in found.records:
                self._last_event[key] = record.storage_id
                self.partitions[key].append(record.partition_key or "")
                yield f"materialized   {key.to_user_string()} {record.partition_key}"


def _assets_of(run: dg.DagsterRun) -> str:
    return ", ".join(sorted(key.to_user_string() for key in run.asset_selection or []))


def _partitions_of(run: dg.DagsterRun) -> str:
    first = run.tags.get("dagster/asset_partition_range_start")
    return (
        f"{first}...{run.tags['dagster/asset_partition_range_end']}" if first else run.tags.get("dagster/partition", "")
    )


def _lateness_of(run: dg.DagsterRun) -> str:
    commits = run.tags.get("dedp/late_commits")
    return f": late by {run.tags['dedp/lateness']}, commit {commits}" if commits else ""
