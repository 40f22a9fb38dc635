"""Files, copies and ticks as values, without a folder."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dedp_assets.landing.copies import CopyRecord
from dedp_assets.landing.dated import DatedFolder, Listing
from dedp_assets.landing.versions import FileVersion
from sensors.landed_files.cursor import Cursor
from sensors.landed_files.planning import RunPlan, TickInputs, plan_runs

SETTLE = 2.0
NOW = 1_800_000_000.0
DAYS = ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05"]


def version(number: int, size: int = 1) -> FileVersion:
    """A version of a file. Another number makes another version."""
    return FileVersion(size, modified_ns=number, changed_ns=number, inode=number)


@dataclass
class KnownCopies:
    """What is known of the days' copies.

    Attributes:
        sources: what each copy reflects.
        refused: days whose copy could not be loaded.
        same: days and versions that the day's copy has the content of.
        grown: days and versions of the undated file that begin with the content of the day's copy.
        without_source: days with a copy that does not say what it reflects.
    """

    sources: dict[str, CopyRecord] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    same: set[tuple[str, FileVersion]] = field(default_factory=set)
    grown: set[tuple[str, FileVersion]] = field(default_factory=set)
    without_source: set[str] = field(default_factory=set)

    def record_of(self, day: str) -> CopyRecord | None:
        return self.sources.get(day)

    def exists(self, day: str) -> bool:
        return day in self.sources or day in self.without_source

    def is_refused(self, day: str) -> bool:
        return day in self.refused

    def has_content_of(self, day: str, landed: str, version: FileVersion) -> bool:
        copied = self.sources.get(day)
        return (day, version) in self.same or (copied is not None and copied.version == version)

    def is_beginning_of(self, day: str, version: FileVersion) -> bool:
        return (day, version) in self.grown


def copy_of_own(day: str, number: int) -> CopyRecord:
    return CopyRecord(f"/landing/devices/{day}/dataset.csv", version(number), f"sha {number}")


def copy_of_undated(number: int, size: int = 1) -> CopyRecord:
    return CopyRecord("/landing/devices/dataset.csv", version(number, size), f"sha {number}")


def plan_for(
    files: Mapping[str, FileVersion] | None = None,
    cursor: Cursor | None = None,
    copies: KnownCopies | None = None,
    *,
    now: float = NOW,
    settle: float = 0.0,
    due: Sequence[str] = DAYS,
    undated_due: Sequence[str] | None = None,
    materialized: Collection[str] = (),
    in_progress: Collection[str] | None = None,
    problems: Sequence[str] = (),
    unusable: Collection[str] = (),
    renamed: Collection[str] = (),
) -> RunPlan:
    """What a tick plans that finds these files, this cursor and these copies."""
    return plan_runs(
        Listing(dict(files or {}), list(problems), set(unusable)),
        cursor or Cursor(),
        copies or KnownCopies(),
        TickInputs(
            landing=DatedFolder(Path("/landing/devices"), "dataset.csv"),
            now=now,
            settle_seconds=settle,
            due=due,
            undated_due=due if undated_due is None else undated_due,
            materialized=materialized,
            in_progress=in_progress,
            renamed=renamed,
        ),
    )


def plan_of_comparison(
    cursor: Cursor,
    files: Mapping[str, FileVersion],
    copies: KnownCopies | None = None,
    *,
    minutes: float,
    settle: float = 0.0,
    materialized: Collection[str] = (),
    in_progress: Collection[str] = (),
) -> RunPlan:
    """What a tick plans that compares copies and files, so many minutes after NOW."""
    return plan_for(
        files,
        cursor,
        copies,
        now=NOW + 60 * minutes,
        settle=settle,
        materialized=materialized,
        in_progress=in_progress,
    )


def requested_days(plan: RunPlan) -> list[list[str]]:
    """The days of each run that is requested."""
    return [request.days for request in plan.requests]
