"""The command `dedp`: the system on this machine, its database, its demo and its data generator."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import psycopg2
import psycopg2.extensions

from dedp_assets import local_stack, settings
from dedp_assets.errors import DedpError
from dedp_assets.generator.cli import generate
from dedp_assets.late_data_integrator.cli import late
from dedp_assets.resources import embedded_postgres
from dedp_assets.resources_from_settings import database_dsn

if TYPE_CHECKING:
    from dedp_assets.late_data_integrator import producer

INTERRUPTED = 130


class Commands(click.Group):
    """The commands of `dedp`. An error that we can name ends a command with one message and exit code 1.

    No command handles these errors itself. A traceback means a fault in our code.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # not about a file of ours: `main` handles it
            raise
        except (DedpError, OSError, psycopg2.Error) as error:
            raise click.ClickException(_message(error)) from error


def _message(error: DedpError | OSError | psycopg2.Error) -> str:
    if isinstance(error, DedpError):
        return str(error)
    if isinstance(error, psycopg2.Error):
        return f"PostgreSQL: {' '.join(str(error).split())}"
    where = f"{error.filename}: " if error.filename else ""
    what = error.strerror or " ".join(str(error).split())
    return f"{where}{what}. Check that file or folder: its kind, its permissions, and the space on its disk"


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def dedp() -> None:
    """Event-driven pipelines as a Dagster asset graph. State lives under DEDP_HOME, by default .dedp/."""


dedp.add_command(generate)
dedp.add_command(late)


@dedp.command()
@click.option("--port", type=int, default=3000, envvar="PORT", show_default=True, help="Of the UI on 127.0.0.1.")
def up(port: int) -> None:
    """Start PostgreSQL, Spark, Dagster's daemon and its UI, and keep them up until Ctrl-C or `dedp down`."""
    click.echo("Starting PostgreSQL, Spark, Dagster's daemon and its UI ...")
    with local_stack.running(port) as stack:
        # From here on the home is somebody's, and no demo wipes it.
        (settings.home() / settings.DEMO_MARK).unlink(missing_ok=True)
        devices = settings.landing() / "devices"
        click.echo(
            f"""
Dagster is up: {stack.url}   (log: {stack.log})

Try, in another terminal:
  dedp generate {_example("devices_50.yaml")} --output-path {devices}
      drops 50 devices; the sensor takes them in for each of the last days, and the totals follow
  dedp psql -c 'SELECT * FROM dedp.devices_aggregates LIMIT 10'
      shows them
  {settings.to_run("down")}      (or Ctrl-C here) stops everything
"""
        )
        while True:
            time.sleep(3600)


def _example(name: str) -> str:
    """The path of an example for the generator, as it is written in the current folder."""
    path = Path(str(resources.files("dedp_assets.generator"))) / "examples" / name
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


@dedp.command()
def down() -> None:
    """Stop what `dedp up` started."""
    pid = local_stack.running_pid()
    if pid is None:
        click.echo(f"Nothing is running for {settings.home()}.")
    else:
        local_stack.stop_running(pid)
        click.echo("Stopped.")


@dedp.command()
def demo() -> None:
    """Run the isolated sequencer end to end, show what happened, and check the result."""
    from dedp_assets.demo import run_demo

    sys.exit(0 if run_demo() else 1)


@dedp.command(name="load-delta")
@click.argument("days", nargs=-1, required=True, metavar="DAY...")
@click.option(
    "--input",
    "input_path",
    type=click.Path(path_type=Path),
    help="Devices as JSON lines, in a file or a folder of files: every day gets the same ones.",
)
@click.option("--rows", type=click.IntRange(min=1), help="Devices to generate for each day.  [default: 100]")
@click.option(
    "--typed",
    type=click.Choice(["date", "string"]),
    help="Type of event_time.  [default: as in the table; date in a new one]",
)
def load_delta(
    days: tuple[str, ...], input_path: Path | None, rows: int | None, typed: "producer.PartitionType | None"
) -> None:
    """Append devices to the partitions of days such as 2024-01-02 of the Delta table lake/devices, a commit each.

    A day that has been loaded before gets late data: other devices than the ones it has, or with --input the same
    ones once more. All days and lines are checked before the first commit.
    """
    from dedp_assets.late_data_integrator import contract, producer

    if input_path and rows:
        raise click.UsageError("--rows is for generated devices; leave it out, or leave out --input")
    wanted = [producer.day_of(day) for day in days]
    source = producer.from_files(input_path) if input_path else producer.generated(rows or 100)
    for day in wanted:
        done = producer.load(contract.uri(contract.DEVICES), day, source, typed=typed)
        click.echo(f"{done.partition}: {done.rows} rows, version {done.version}")


@dedp.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> None:
    """Open the project's database, whichever it is, with psql's own options: `dedp psql -c 'SELECT 1'`."""
    parts = psycopg2.extensions.parse_dsn(database_dsn())
    # By the environment: everybody on the machine can read a command line.
    environment = {**os.environ, "PGPASSWORD": parts.pop("password")} if "password" in parts else None
    dsn = psycopg2.extensions.make_dsn(**parts)
    command = [str(embedded_postgres.binary("psql")), dsn, *arguments]
    # A child and not an exec: the embedded server may have been started for this call, and ends with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # psql answers Ctrl-C itself
    sys.exit(subprocess.run(command, env=environment, preexec_fn=local_stack.hear_interrupts).returncode)


@dedp.command(name="exec", context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(command: tuple[str, ...]) -> None:
    """Run a command on this system's Dagster instance and database: `dedp exec dagster asset materialize ...`

    What it does shows in the UI; without `dedp exec`, a `dagster` command keeps its history to itself.
    """
    with local_stack.environment() as shared:
        local_stack.create_instance_schema(shared)
        path = os.pathsep.join([os.path.dirname(sys.executable), shared.get("PATH", "")])
        if shutil.which(command[0], path=path) is None:
            raise click.UsageError(f"{command[0]} is not a program; give `dedp exec` a program and its options")
        sys.exit(subprocess.run(command, env={**shared, "PATH": path}).returncode)


def main() -> NoReturn:
    """Run the console script `dedp`. Ctrl-C, SIGTERM and SIGHUP end a command with its usual clean-up."""
    # SIGINT as well: a shell's background job starts with it ignored, and must end by it all the same.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup means what it says
            signal.signal(number, _interrupt)
    _exit_with(lambda: dedp(standalone_mode=False))


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _exit_with(command: Callable[[], object]) -> NoReturn:
    try:
        command()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:  # who reads has had enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  Python would try once more at its end, and say so
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Stopped.", err=True)
        sys.exit(INTERRUPTED)
    sys.exit(0)
