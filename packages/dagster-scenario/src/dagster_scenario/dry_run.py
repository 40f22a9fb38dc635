"""A schedule played over a time without requesting anything: when would it tick, and what would it request?"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class PlannedRun:
    """A run that a tick would request."""

    run_key: str | None
    partition: str | None
    tags: dict[str, str]
    config: dict[str, object]

    def __str__(self) -> str:
        return self.partition or self.run_key or "a run"


@dataclass(frozen=True)
class PlannedTick:
    """A tick of a schedule: when it is due, in the schedule's time zone, and what comes of it."""

    at: datetime
    runs: tuple[PlannedRun, ...] = ()
    skipped: str = ""
    error: str = ""


@dataclass(frozen=True)
class DryRun:
    """The ticks of a schedule; `print` it for a table."""

    schedule: str
    ticks: tuple[PlannedTick, ...]

    def __len__(self) -> int:
        return len(self.ticks)

    def __iter__(self) -> Iterator[PlannedTick]:
        return iter(self.ticks)

    def __getitem__(self, position: int) -> PlannedTick:
        return self.ticks[position]

    @property
    def runs(self) -> list[PlannedRun]:
        """All runs that would be requested."""
        return [run for tick in self.ticks for run in tick.runs]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{'tick':<30} {'requests':<30} note"
        before: timedelta | None = None
        for tick in self.ticks:
            notes = [tick.error and f"fails: {tick.error}", tick.skipped and f"skips: {tick.skipped}"]
            offset = tick.at.utcoffset()
            if before is not None and offset is not None and offset != before:
                notes.append(f"clocks went {'forward' if offset > before else 'back'} since the tick before")
            before = offset
            requests = ", ".join(str(run) for run in tick.runs) or "nothing"
            when = f"{tick.at:%a %Y-%m-%d %H:%M:%S} {_offset(offset)}"
            yield f"{when:<30} {requests:<30} {'; '.join(note for note in notes if note)}".rstrip()


def _offset(offset: timedelta | None) -> str:
    minutes = int((offset or timedelta()).total_seconds()) // 60
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
