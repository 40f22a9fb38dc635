"""The commands `dedp backup` and `dedp restore`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from dedp_assets import local_stack, settings
from dedp_assets.backup.archive import check_is_empty
from dedp_assets.backup.errors import BackupError
from dedp_assets.backup.places import LAKE, LANDING, Places
from dedp_assets.resources import embedded_postgres
from dedp_assets.wording import printable


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--without",
    type=click.Choice([LAKE, LANDING]),
    multiple=True,
    help="Leave out the Delta tables, or the landing folder. May be given twice.",
)
@click.option("--with-logs", is_flag=True, help="Copy the output of runs, too.")
def backup(folder: Path, without: tuple[str, ...], with_logs: bool) -> None:
    """Copy the database, the Delta tables and the copies of landed files to DIR. The system may run meanwhile.

    DIR gets its name when everything is on the disk: a folder with this name is a whole backup.
    """
    # Not at the top: the other commands need not hold Delta and Arrow, `dedp up` least of all.
    from dedp_assets.backup import backing_up

    if not settings.home().is_dir():
        raise BackupError(f"there is no system in {settings.home()}; is DEDP_HOME right?")
    with _environment() as shared:
        done = backing_up.back_up(
            folder,
            _places(shared["DAGSTER_HOME"]),
            shared["DEDP_POSTGRES_DSN"],
            shared["DEDP_DAGSTER_STORAGE"],
            without=frozenset(without),
            with_logs=with_logs,
            settle_seconds=settings.settle_seconds(),
            say=lambda text: click.echo(f"  {text}"),
        )
    for text in done.left_out:
        click.echo(f"Not in the backup: {printable(text)}")
    click.echo(f"{folder} is a backup: {done.files} files, {backing_up.size(done.bytes)}.")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR")
@click.option(
    "--without",
    type=click.Choice([LAKE, LANDING]),
    multiple=True,
    help="Leave the Delta tables, or the landing folder, as they are. May be given twice.",
)
def restore(folder: Path, without: tuple[str, ...]) -> None:
    """Restore the backup in DIR into an empty DEDP_HOME, and an empty database if DEDP_POSTGRES_DSN names one.

    Nothing is written before every file of the backup has been read and found sound.
    """
    from dedp_assets.backup import restoring

    home = settings.home()
    check_is_empty(home, "the home (DEDP_HOME)")
    done = restoring.restore(
        folder,
        _places(str(home / "dagster")),
        _database,
        settings.unfinished_restore(),
        without=frozenset(without),
        say=lambda text: click.echo(f"  {text}"),
    )
    with _environment() as shared:
        restoring.end_interrupted_runs(shared)
    click.echo(f"{home} is as it was at {done.made_at}. Start it with `{settings.to_run('up')}`.")


@contextmanager
def _environment() -> Iterator[dict[str, str]]:
    """The environment variables of a process of this system, whose database has a place for Dagster's tables."""
    with local_stack.environment() as shared:
        local_stack.create_instance_schema(shared)
        yield shared


@contextmanager
def _database() -> Iterator[str]:
    settings.make_home_folder()
    dsn = settings.postgres_dsn()
    if dsn is not None:
        yield dsn
        return
    with embedded_postgres.server_lease(settings.home() / "postgres") as own:
        yield own


def _places(dagster_home: str) -> Places:
    # Contracts import Dagster, which the other commands need not wait for.
    from dedp_assets.flight_search import contract as flight_search
    from dedp_assets.late_data_integrator import contract as late_data

    return Places(
        home=settings.home(),
        internal=settings.internal(),
        landing=settings.landing(),
        lake=settings.data_uri(),
        logs=Path(dagster_home) / "storage",
        database=None if settings.postgres_dsn() else settings.home() / "postgres",
        temporary=[flight_search.copies_folder()],
        sources=[flight_search.SEARCHES.path[-1], late_data.DEVICES.path[-1]],
    )
