"""The command `dedp`: starts and stops the system on this machine, and has its database, its demo and its generator."""

import errno
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

from dedp_assets import local_stack, settings
from dedp_assets.alerts.cli import alerts
from dedp_assets.backup.cli import backup, restore
from dedp_assets.client_uploads.cli import uploads
from dedp_assets.command_options import PORT_OF_UI
from dedp_assets.errors import DedpError
from dedp_assets.generator.cli import generate
from dedp_assets.late_data_integrator.cli import late
from dedp_assets.observability.cli import doctor, logs, metrics, traces, wrong_settings
from dedp_assets.promotions.cli import generate_promotions
from dedp_assets.resources import embedded_postgres
from dedp_assets.resources.postgres_programs import connection_of
from dedp_assets.retention.cli import purge
from dedp_assets.runs.cli import runs
from dedp_assets.servers_from_settings import database_dsn
from dedp_assets.sign_in.cli import audit_log, users, webserver
from dedp_assets.user_intake.cli import serve_users
from dedp_assets.wording import printable

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
    if error.errno == errno.EADDRINUSE:
        return f"{error.strerror}. Stop the process that uses the port, or choose another one: --port"
    where = f"{printable(str(error.filename))}: " if error.filename else ""
    what = error.strerror or " ".join(str(error).split())
    return f"{where}{what}. Check that file or folder: its kind, its permissions, and the space on its disk"


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dedp-assets", message="%(prog)s %(version)s")
def dedp() -> None:
    """Event-driven pipelines as a Dagster asset graph. State lives under DEDP_HOME, by default .dedp/."""


dedp.add_command(alerts)
dedp.add_command(doctor)
dedp.add_command(backup)
dedp.add_command(generate)
dedp.add_command(generate_promotions)
dedp.add_command(late)
dedp.add_command(logs)
dedp.add_command(uploads)
dedp.add_command(metrics)
dedp.add_command(purge)
dedp.add_command(restore)
dedp.add_command(runs)
dedp.add_command(serve_users)
dedp.add_command(traces)
dedp.add_command(users)
dedp.add_command(audit_log)
dedp.add_command(webserver)


@dedp.command()
@PORT_OF_UI
def up(port: int) -> None:
    """Start PostgreSQL, Spark, Dagster's daemon and its UI, and keep them up until Ctrl-C or `dedp down`."""
    click.echo("Starting PostgreSQL, Dagster's daemon and its UI ...")
    for finding in wrong_settings():
        click.echo(f"Warning: {finding.what}; {finding.next_step}", err=True)
    with local_stack.running(port, say=click.echo) as stack:
        for name, error in stack.broken.items():
            click.echo(f"The code location {name} can't be loaded; the others run. {_first_line(error)}", err=True)
        # From now on the home belongs to the user, and no demo deletes it.
        (settings.home() / settings.DEMO_MARK).unlink(missing_ok=True)
        devices = settings.landing() / "devices"
        click.echo(
            f"""
Dagster is up: {stack.url}   (log: {stack.log})

{_who_may_sign_in(stack)}

Try, in another terminal:
  dedp generate {_example("devices_50.yaml")} --output-path {devices}
      writes a file of 50 devices; a sensor finds it, and runs load it for each of the last days
  dedp psql -c 'SELECT * FROM dedp.devices_aggregates LIMIT 10'
      shows the totals
  {settings.to_run("down")}      (or Ctrl-C here) stops everything
"""
        )
        while True:
            time.sleep(3600)


def _who_may_sign_in(stack: local_stack.Stack) -> str:
    if not stack.has_local_user:
        return "Sign in as one of its users: `dedp users list` shows them."
    return """\
  *****************************************************************************
  *  Sign in with the name dedp and the password dedp: from this machine only *
  *  Everybody knows this password. `dedp users password dedp` sets another.  *
  *****************************************************************************"""


def _first_line(error: str) -> str:
    return error.strip().splitlines()[0]


def _example(name: str) -> str:
    """Return the path of an example for the generator, relative to the current folder if it is below that."""
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
    """Run the pipelines end to end, show what happens, and check the results."""
    from dedp_assets.demo import run_demo

    sys.exit(0 if run_demo() else 1)


@dedp.command(name="load-delta")
@click.argument("days", nargs=-1, required=True, metavar="DAY...")
@click.option(
    "--input",
    "input_path",
    type=click.Path(path_type=Path),
    help="A file of JSON lines, or a folder of such files. Each day gets all of these devices.",
)
@click.option("--rows", type=click.IntRange(min=1), help="How many devices to generate for each day.  [default: 100]")
@click.option(
    "--typed",
    type=click.Choice(["date", "string"]),
    help="The type of event_time.  [default: its type in the table; date in a new table]",
)
def load_delta(
    days: tuple[str, ...], input_path: Path | None, rows: int | None, typed: "producer.PartitionType | None"
) -> None:
    """Append devices to the Delta table lake/devices, in the partition of each DAY such as 2024-01-02.

    Each day is one commit. A day that already has devices gets late data: other devices, or with --input the same
    devices once more. All days and lines are checked before the first commit.
    """
    from dedp_assets.late_data_integrator import contract, producer

    if input_path and rows:
        raise click.UsageError("--rows is only for generated devices; leave out either --rows or --input")
    wanted = [producer.day_of(day) for day in days]
    source = producer.from_files(input_path) if input_path else producer.generated(rows or 100)
    for day in wanted:
        done = producer.load(contract.uri(contract.DEVICES), day, source, typed=typed)
        click.echo(f"{done.partition}: {done.rows} rows, version {done.version}")


@dedp.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> None:
    """Open the project's database with psql, and pass all options to it: `dedp psql -c 'SELECT 1'`."""
    dsn, secret = connection_of(database_dsn())
    command = [str(embedded_postgres.binary("psql")), dsn, *arguments]
    # A child process, not exec: if we have started the embedded server, it stops when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # psql handles Ctrl-C itself
    sys.exit(
        subprocess.run(command, env={**os.environ, **secret}, preexec_fn=local_stack.react_to_interrupts).returncode
    )


@dedp.command(name="exec", context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(command: tuple[str, ...]) -> None:
    """Run a command on this system's Dagster instance and database: `dedp exec dagster asset materialize ...`

    The UI shows its runs. Without `dedp exec`, a `dagster` command uses an instance of its own.
    """
    with local_stack.environment() as shared:
        local_stack.create_instance_schema(shared)
        local_stack.refuse_later_tables(shared)
        path = os.pathsep.join([os.path.dirname(sys.executable), shared.get("PATH", "")])
        if shutil.which(command[0], path=path) is None:
            raise click.UsageError(f"{command[0]} is not a program; give `dedp exec` a program and its options")
        sys.exit(subprocess.run(command, env={**shared, "PATH": path}).returncode)


def main() -> NoReturn:
    """Run the console script `dedp`. Ctrl-C, SIGTERM and SIGHUP end a command with its usual clean-up."""
    # A background job of a shell starts with SIGINT ignored, and must react to it all the same.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # under nohup, stay alive
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
    except BrokenPipeError:  # the reader of our output has closed it, as `head` does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  else Python flushes once more at its end, and complains
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Stopped.", err=True)
        sys.exit(INTERRUPTED)
    sys.exit(0)
