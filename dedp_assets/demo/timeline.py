"""What happens on the real system, printed as it happens."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import click
import dagster as dg

from dedp_assets.errors import PermanentError

# Without anything that happens. On a busy machine all of it may take minutes.
_PATIENCE_SECONDS = 120

# An act begins something and yields what it waits for; it returns whether everything was as it should be.
Act = Generator[Callable[[], bool], None, bool]


class DemoFailed(PermanentError):
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

    def tell(self, what: str) -> None:
        """One line, now."""
        click.echo(f"   {time.monotonic() - self._began:5.1f} s  {what}")

    def play(self, acts: Sequence[Act]) -> bool:
        """Play the acts side by side, each at its own pace, and print events; True only if all of them return True.

        Raises DemoFailed if a run fails, or nothing happens for too long.
        """
        with ExitStack() as cleanup:
            for act in acts:
                cleanup.callback(act.close)
            return self._play(acts)

    def _play(self, acts: Sequence[Act]) -> bool:
        waiting = [(act, _begun) for act in acts]
        results: list[bool] = []
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while waiting:
            going_on: list[tuple[Act, Callable[[], bool]]] = []
            happened = self._tell_events()
            for act, done in waiting:
                if not done():
                    going_on.append((act, done))
                    continue
                happened = True
                try:
                    going_on.append((act, next(act)))
                except StopIteration as end:
                    results.append(end.value)
            waiting = going_on
            if happened:
                give_up = time.monotonic() + _PATIENCE_SECONDS
            elif time.monotonic() > give_up:
                raise DemoFailed(f"nothing has happened for {_PATIENCE_SECONDS} s")
            time.sleep(0.3)
        return all(results)

    def _tell_events(self) -> bool:
        lines = [*self._runs(), *self._materializations()]
        for line in lines:
            self.tell(line)
        return bool(lines)

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


@contextmanager
def results(of: str) -> Iterator[None]:
    """Set the checks of the block apart from what goes on beside them."""
    click.echo(f"\n   {of}:")
    yield
    click.echo("")


def _begun() -> bool:
    return True


def headline(text: str) -> None:
    """Begin a chapter."""
    click.echo("\n" + click.style(text, bold=True))


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
