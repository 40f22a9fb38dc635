"""`dedp late`: which days are behind their input, in the terminal, as JSON, and as a picture."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from dedp_assets import local_stack, settings
from dedp_assets.errors import DedpError
from dedp_assets.text_tables import text_table
from dedp_assets.wording import counted

if TYPE_CHECKING:
    from dedp_assets.late_data_integrator.overview import Row

_HEADER = ("day", "status", "input", "counts", "late commits", "last one (UTC)", "lateness")
_TO_THE_RIGHT = {"input", "counts", "late commits"}
_COLOURS = {"failed": "red", "late": "yellow", "running": "cyan", "clean": "green"}
# A line below the table names at most this many days.
_MOST_NAMES = 5


@click.command()
@click.option("--all", "everything", is_flag=True, help="Also the days whose counts reflect their input.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON, with the versions of the late commits.")
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.png",
    help="Also draw when each day changed, and which of these commits the counts reflect.",
)
def late(everything: bool, as_json: bool, picture: Path | None) -> None:
    """Show the days of lake/devices whose counts in lake/device_counts are missing or out of date.

    \b
    failed   its latest run failed, and its counts don't reflect its input
    late     counted before; changed since, or gone
    running  a run of it is queued or under way
    waiting  closed (the next day has appeared), and not counted yet
    open     not counted yet; the next day has not appeared

    input: the version of the table that last changed the day. counts: the version that its counts reflect. lateness:
    the time from the end of the day to the last commit that its counts don't reflect. This command starts nothing and
    writes to no table.
    """
    from dedp_assets.delta.problems import TableMissing
    from dedp_assets.late_data_integrator import overview, tables
    from dedp_assets.resources_from_settings import LakeFromSettings

    lake, runs = LakeFromSettings(), _ask_for_runs()
    log = tables.open_devices_log(lake)
    try:
        progress = tables.observe_progress(lake, runs.in_progress)
        history = overview.read_history(log, progress.snapshot.version)
    except TableMissing as problem:
        raise click.ClickException(f"{problem}; `dedp load-delta 2024-01-02` writes one") from problem
    except DedpError as problem:
        raise click.ClickException(str(problem)) from problem
    known = overview.known_days(datetime.now(timezone.utc))
    rows = overview.day_rows(progress, history, known, runs.failed)
    shown = [row for row in rows if everything or row.status != "clean"]
    left_out = sorted(progress.snapshot.files.keys() - known)

    if as_json:
        found = {
            "table": log.uri,
            "version": progress.snapshot.version,
            "days": [_as_json(row) for row in shown],
            "summary": _summary(rows),
            "runs_unknown": runs.unknown,
            "commits_missing": history.missing,
            "partitions_left_out": left_out,
        }
        click.echo(json.dumps(found, indent=2))
    else:
        notes = _notes(rows, history.missing, runs.unknown, left_out)
        for line in [*_table(shown), _in_short(rows, progress.snapshot.version, len(rows) - len(shown)), *notes]:
            click.echo(line)
    if picture:
        from dedp_assets.late_data_integrator.picture import late_data_picture, timelines

        _write(picture, late_data_picture(timelines(progress, history, known), history.missing))


class _Runs(NamedTuple):
    """What Dagster knows about the runs that count days.

    Attributes:
        in_progress: the days with a queued or running run.
        failed: the days whose latest run failed.
        unknown: why Dagster can't be asked, or None.
    """

    in_progress: set[str]
    failed: set[str]
    unknown: str | None = None


def _ask_for_runs() -> _Runs:
    """Ask the Dagster instance of `dedp exec`, of the container, or of the system that is up. Starts nothing."""
    if "DEDP_DAGSTER_STORAGE" in os.environ and "DAGSTER_HOME" in os.environ:
        return _runs_of_instance()
    if local_stack.running_pid() is None:
        return _Runs(set(), set(), f"Dagster is not up (`{settings.to_run('up')}`)")
    with local_stack.environment() as shared, _environment(shared, "DEDP_DAGSTER_STORAGE", "DAGSTER_HOME"):
        return _runs_of_instance()


def _runs_of_instance() -> _Runs:
    import dagster as dg
    import psycopg2
    from dagster_postgres.utils import DagsterPostgresException
    from dagster_shared.check import CheckError
    from sqlalchemy.exc import SQLAlchemyError
    from yaml import YAMLError

    from dedp_assets.late_data_integrator import overview, state

    try:
        with dg.DagsterInstance.get() as instance:
            return _Runs(state.days_in_progress(instance), overview.days_failed(instance))
    except (SQLAlchemyError, DagsterPostgresException, psycopg2.Error):
        # Not its message: that may hold the address of the database.
        return _Runs(set(), set(), "Dagster's database does not answer")
    except (dg.DagsterError, CheckError, OSError, ValueError, YAMLError):
        return _Runs(
            set(), set(), "Dagster's instance can't be opened; are DAGSTER_HOME and DEDP_DAGSTER_STORAGE right?"
        )


@contextmanager
def _environment(values: dict[str, str], *names: str) -> Iterator[None]:
    """While the block runs, the environment variables `names` have the values in `values`."""
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: values[name] for name in names})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _table(rows: Sequence["Row"]) -> list[str]:
    # 79 columns are enough for versions of six digits.
    return text_table(
        _HEADER, [_cells(row) for row in rows], to_the_right=_TO_THE_RIGHT, coloured="status", colours=_COLOURS
    )


def _cells(row: "Row") -> tuple[str, ...]:
    return (
        row.day,
        row.status,
        "?" if row.input_version is None else str(row.input_version),
        "-" if row.counts_version is None else str(row.counts_version),
        str(len(row.late_commits) or ""),
        f"{row.late_at:%Y-%m-%d %H:%M}" if row.late_at else "",
        "" if row.lateness is None else format_duration(row.lateness),
    )


def format_duration(duration: timedelta) -> str:
    """The two largest units of a duration: `2 d 10 h`, `3 h 5 min`, `40 s`, `-1 h 0 min`."""
    seconds = abs(int(duration.total_seconds()))
    sign = "-" if duration < timedelta(0) else ""
    days, hours, minutes = seconds // 86_400, seconds // 3_600 % 24, seconds // 60 % 60
    if days:
        return f"{sign}{days} d {hours} h"
    if hours:
        return f"{sign}{hours} h {minutes} min"
    return f"{sign}{minutes} min" if minutes else f"{sign}{seconds} s"


def _summary(rows: Sequence["Row"]) -> dict[str, int]:
    from dedp_assets.late_data_integrator.overview import STATUSES

    found = Counter(row.status for row in rows)
    return {status: found[status] for status in STATUSES}


def _in_short(rows: Sequence["Row"], version: int, hidden: int) -> str:
    statuses = [f"{number} {status}" for status, number in _summary(rows).items() if number]
    more = " (--all shows them)" if hidden else ""
    return f"{counted(len(rows), 'day')} at version {version}: {', '.join(statuses) or 'nothing to count'}{more}"


def _notes(rows: Sequence["Row"], missing: int, unknown: str | None, left_out: Sequence[str]) -> list[str]:
    notes = []
    if gone := [row.day for row in rows if row.gone]:
        notes.append(f"Gone from the input: {_some(gone)}")
    if replaced := [row.day for row in rows if row.of_another_table]:
        notes.append(f"Counted from an earlier table at the same place: {_some(replaced)}")
    if left_out:
        names = _some([repr(name) for name in left_out])
        notes.append(f"Left out, because there are no such days (yet): {names}")
    if missing and any(row.input_version is None for row in rows):
        notes.append(f"{counted(missing, 'commit')} not read, or gone from the log: hence ? for a version")
    if unknown:
        notes.append(f"{unknown}: which days are running or failed is not known")
    return notes


def _some(names: Sequence[str]) -> str:
    more = f", and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _as_json(row: "Row") -> dict[str, Any]:
    return {
        "day": row.day,
        "status": row.status,
        "input_version": row.input_version,
        "counts_version": row.counts_version,
        "late_commits": row.late_commits,
        "last_late_commit": row.late_at and row.late_at.isoformat(),
        "lateness_seconds": None if row.lateness is None else int(row.lateness.total_seconds()),
        "gone": row.gone,
        "of_another_table": row.of_another_table,
    }


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise click.ClickException(f"{path} can't be written: {error.strerror}") from error
    # Not to the standard output, which may have the JSON.
    click.echo(f"The picture is in {path}", err=True)
