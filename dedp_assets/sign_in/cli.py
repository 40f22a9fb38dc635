"""`dedp users`, `dedp audit` and `dedp webserver`: who may use the web server, who did what, and the server itself."""

import getpass
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click
from psycopg2.extensions import cursor as Cursor

from dedp_assets import local_stack, settings
from dedp_assets.sign_in import audit, sessions
from dedp_assets.sign_in import users as stored
from dedp_assets.sign_in.database import connected
from dedp_assets.sign_in.errors import UserError
from dedp_assets.sign_in.roles import NAMES, Role
from dedp_assets.text_tables import text_table
from dedp_assets.wording import counted

_PASSWORD_FILE = click.option(
    "--password-file", type=click.Path(path_type=Path), help="A file with the password; `-` is the standard input."
)
_ROLE = click.Choice(NAMES)


@click.group()
def users() -> None:
    """Who may use the web server: the users, their roles, their passwords and their API tokens.

    \b
    viewer    sees everything
    launcher  also starts, repeats and ends runs and backfills, and reports events of assets
    admin     also changes sensors, schedules, cursors, locations, pools, partitions and the history of assets
    """


@users.command()
@click.argument("name")
@click.option("--role", type=_ROLE, required=True, help="What the user may do.")
@_PASSWORD_FILE
def add(name: str, role: str, password_file: Path | None) -> None:
    """Make the user NAME. Asks for a password."""
    password = _password(password_file)
    with _logged("add user", {"user": name, "role": role}) as cursor:
        stored.add(cursor, name, password, Role[role])
    click.echo(f"{name} may sign in as {role}.")


@users.command(name="list")
def list_users() -> None:
    """Show all users."""
    with _cursor() as cursor:
        rows = stored.rows(cursor)
    for line in text_table(("name", "role", "", "made (UTC)", "last seen (UTC)", "API tokens"), rows):
        click.echo(line)
    if not rows:
        click.echo("There are no users; `dedp users add NAME --role admin` makes one.")


@users.command()
@click.argument("name")
@_PASSWORD_FILE
def password(name: str, password_file: Path | None) -> None:
    """Set another password of the user NAME. It ends the sessions of the user; API tokens stay."""
    new = _password(password_file)
    with _logged("set password", {"user": name}) as cursor:
        stored.set_password(cursor, name, new)
    click.echo(
        f"The password of {name} is changed, and the sessions of {name} have ended. API tokens stay: "
        f"`dedp users token {name} --end-all` ends them."
    )


@users.command()
@click.argument("name")
@click.argument("new_role", type=_ROLE, metavar="ROLE")
def role(name: str, new_role: str) -> None:
    """Give the user NAME another ROLE, from the next request on."""
    with _logged("set role", {"user": name, "role": new_role}) as cursor:
        stored.set_role(cursor, name, Role[new_role])
    click.echo(f"{name} is {new_role} now.")


@users.command()
@click.argument("name")
def remove(name: str) -> None:
    """Remove the user NAME, with sessions and API tokens. What the user did stays in `dedp audit`."""
    with _logged("remove user", {"user": name}) as cursor:
        stored.remove(cursor, name)
    click.echo(f"{name} is removed.")


@users.command()
@click.argument("name")
@click.option("--days", type=click.IntRange(min=1), help="For how many days.  [default: until it is ended]")
@click.option("--end-all", is_flag=True, help="End all API tokens of the user, and make none.")
def token(name: str, days: int | None, end_all: bool) -> None:
    """Print a new API token of the user NAME, for scripts. It is shown once, and has the role of the user."""
    with _logged("end API tokens" if end_all else "make API token", {"user": name}) as cursor:
        if stored.find(cursor, name) is None:
            raise UserError(f"there is no user {name}; `dedp users list` shows all")
        if end_all:
            click.echo(f"Ended {counted(sessions.end_api_tokens(cursor, name), 'API token')} of {name}.")
        else:
            click.echo(sessions.new_api_token(cursor, name, days))


@click.command(name="audit")
@click.option("--user", help="Only what this user did.")
@click.option("--run", help="Only who launched or ended this run.")
@click.option("--days", type=click.IntRange(min=1), help="Only the last so many days.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="How many entries to show.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object on each line.")
@click.option(
    "--delete-older-than",
    "too_old",
    type=click.IntRange(30, 36_500),
    metavar="DAYS",
    help="Show nothing; delete the entries that are older than so many days, 30 or more.",
)
def audit_log(
    user: str | None, run: str | None, days: int | None, limit: int, as_json: bool, too_old: int | None
) -> None:
    """Show who launched what, and who changed what, by the web server and by `dedp users`. The latest comes first."""
    if too_old is not None:
        if user or run or days or as_json:
            raise click.UsageError("--delete-older-than deletes the entries of all users; it goes with no other option")
        about: dict[str, int] = {"older_than_days": too_old}
        with _logged("delete audit entries", about) as cursor:
            about["entries"] = audit.delete_older_than(cursor, too_old)
        click.echo(f"{counted(about['entries'], 'entry', 'entries')} deleted.")
        return
    with _cursor() as cursor:
        entries = audit.entries(cursor, user, run, days, limit)
    if as_json:
        for entry in entries:
            click.echo(json.dumps({**entry._asdict(), "at": entry.at.isoformat()}))
        return
    rows = [
        (
            entry.at.strftime("%Y-%m-%d %H:%M:%S"),
            *(f"{entry.user} ({entry.role})" if entry.role else entry.user, entry.address, entry.action, entry.outcome),
            " ".join([*(f"{name}={_short(value)}" for name, value in entry.about.items()), *entry.run_ids]),
        )
        for entry in entries
    ]
    for line in text_table(("at (UTC)", "who", "from", "what", "outcome", "about"), rows):
        click.echo(line)
    if not rows:
        click.echo("There are no such entries.")


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def webserver(arguments: tuple[str, ...]) -> None:
    """Run Dagster's web server behind the sign-in, with all options of `dagster-webserver`: -h HOST -p PORT -w FILE."""
    command = [sys.executable, "-m", "dedp_assets.sign_in", *arguments]
    if settings.dagster_storage():
        os.execv(sys.executable, command)  # in the place of this process, so that it gets the signals itself
    with local_stack.environment() as shared:
        local_stack.create_instance_schema(shared)
        sys.exit(subprocess.run(command, env=shared).returncode)


@contextmanager
def _cursor() -> Iterator[Cursor]:
    """A cursor of the database with the users: beside Dagster's own tables."""
    chosen = settings.dagster_storage()
    if chosen:
        with connected(chosen) as cursor:
            yield cursor
        return
    with local_stack.environment() as shared, connected(shared["DEDP_DAGSTER_STORAGE"]) as cursor:
        yield cursor


@contextmanager
def _logged(action: str, about: Mapping[str, object]) -> Iterator[Cursor]:
    """A cursor, and an entry in the log if the block succeeds, with what `about` has then."""
    with _cursor() as cursor:
        yield cursor
        audit.record(cursor, _operator(), None, "command line", action, about, "done")


def _operator() -> str:
    """The user of this process, for the log. A container may have a user without a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _password(file: Path | None) -> str:
    if file is None:
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    return text.removesuffix("\n").removesuffix("\r")


def _short(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value[:3])) + (f",... ({len(value)})" if len(value) > 3 else "")
    return str(value)
