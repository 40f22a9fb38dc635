"""Prints the runs and materializations of the real system while they happen."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import click
import dagster as dg

from dedp_assets.errors import PermanentError

# The longest time without any event. On a busy machine the whole demo may take minutes.
_PATIENCE_SECONDS = 300

# An act starts something, and yields functions that tell whether it can go on. At its end it returns whether all of its
# results are right.
Act = Generator[Callable[[], bool], None, bool]
# A part of an act, which returns a number to go on with.
Counted = Generator[Callable[[], bool], None, int]


class DemoFailed(PermanentError):
    """A run or a command of the demo failed, or nothing happened for too long."""


def checked(what: str, found: int, expected: int) -> bool:
    """Print a result, and what was expected if that differs. Return whether the two are equal."""
    verdict = click.style("ok", fg="green") if found == expected else click.style(f"expected {expected}", fg="red")
    click.echo(f"   {found:>5} {what:<34} {verdict}")
    return found == expected


class Timeline:
    """Prints the events of an instance while they happen: seconds since the start, the event, and its cause."""

    def __init__(self, instance: dg.DagsterInstance, assets: Sequence[dg.AssetKey]) -> None:
        self._instance, self._assets = instance, assets
        self._began = time.monotonic()
        self._seen_runs = {run.run_id: run.status for run in instance.get_runs()}
        self._last_event = dict.fromkeys(assets, 0)
        self.partitions: dict[dg.AssetKey, list[str]] = {key: [] for key in assets}

    @property
    def counts(self) -> dict[dg.AssetKey, int]:
        """How often each asset has been materialized since the start."""
        return {key: len(partitions) for key, partitions in self.partitions.items()}

    def tell(self, what: str) -> None:
        """Print one line, with the seconds since the start."""
        click.echo(f"   {time.monotonic() - self._began:5.1f} s  {what}")

    def play(self, acts: Sequence[Act]) -> bool:
        """Play the acts side by side, each at its own pace, and print the events.

        Returns:
            Whether all acts return True.

        Raises:
            DemoFailed: a run fails, or nothing happens for too long.
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
            unfinished: list[tuple[Act, Callable[[], bool]]] = []
            happened = self._tell_events()
            for act, done in waiting:
                if not done():
                    unfinished.append((act, done))
                    continue
                happened = True
                try:
                    unfinished.append((act, next(act)))
                except StopIteration as end:
                    results.append(end.value)
            waiting = unfinished
            if happened:
                give_up = time.monotonic() + _PATIENCE_SECONDS
            elif time.monotonic() > give_up:
                raise DemoFailed(
                    f"nothing has happened for {_PATIENCE_SECONDS} s; is the machine very busy? Run the demo again"
                )
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
                tags = run.tags
                cause = tags.get("dagster/sensor_name") or tags.get("dagster/schedule_name") or "the command line"
                yield f"requested      run {run.run_id[:8]} by {cause}: {_assets_of(run)} {_partitions_of(run)}"
            self._seen_runs[run.run_id] = run.status
            if run.status == dg.DagsterRunStatus.FAILURE:
                raise DemoFailed(f"run {run.run_id} of {_assets_of(run)} failed; start `dedp up` and open it in the UI")
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
                yield f"materialized   {key.to_user_string()} {record.partition_key or ''}".rstrip()


@contextmanager
def results(of: str) -> Iterator[None]:
    """Print a heading before the checks of the block, and an empty line after them."""
    click.echo(f"\n   {of}:")
    yield
    click.echo("")


def _begun() -> bool:
    return True


def headline(text: str) -> None:
    """Print the heading of a part of the demo."""
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
