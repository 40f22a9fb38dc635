"""Every environment switch of the project, read when it is asked for and never at import.

| variable               | default                         | meaning                                              |
| ---------------------- | ------------------------------- | ---------------------------------------------------- |
| `DEDP_HOME`            | `.dedp/` of the checkout; of the current folder if installed | all runtime state       |
| `DEDP_LANDING`         | `$DEDP_HOME/landing`            | where files arrive                                   |
| `DEDP_INTERNAL`        | `$DEDP_HOME/internal`           | our own copies, one folder per load                  |
| `DEDP_POSTGRES_DSN`    | the embedded server             | any PostgreSQL, as a URL or a libpq string           |
| `DEDP_DATA_URI`        | `$DEDP_HOME/lake`               | where the Delta tables are: a folder or `s3://...`   |
| `DEDP_SPARK_REMOTE`    | an embedded server              | a Spark Connect endpoint: `sc://host:15002`          |
| `DEDP_START`           | 3 days before the home was made | first day that takes the undated `dataset.csv`       |
| `DEDP_SETTLE_SECONDS`  | `2`                             | a file unchanged for this long is complete           |
| `DEDP_NOTIFY`          | `log`                           | where notifications go: `file:/path`, `https://...`  |
"""

import contextlib
import os
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

from dedp_assets.errors import SettingError

# The folder that this package is in: a checkout of the project, or whatever it was installed into.
REPOSITORY = Path(__file__).resolve().parent.parent

# This file in a home says that a demo made it and may wipe it.
DEMO_MARK = "demo"


def home() -> Path:
    """The folder of all runtime state: absolute, not necessarily there yet."""
    # Installed packages are no place for state: an update replaces them, and others may share them.
    return _folder("DEDP_HOME", (REPOSITORY if is_checkout() else Path.cwd()) / ".dedp")


def is_checkout() -> bool:
    """Whether the package is in a checkout of the project, with its Makefile, and not installed from a wheel."""
    return (REPOSITORY / "Makefile").is_file() and (REPOSITORY / "pyproject.toml").is_file()


def to_run(command: str) -> str:
    """How to run a command of ours, such as `up` or `down`, in a checkout and in an installation."""
    return f"{'make' if is_checkout() else 'dedp'} {command}"


def landing() -> Path:
    """The folder that files arrive in."""
    return _folder("DEDP_LANDING", home() / "landing")


def internal() -> Path:
    """The folder of our own copies of what arrived."""
    return _folder("DEDP_INTERNAL", home() / "internal")


def postgres_dsn() -> str | None:
    """The PostgreSQL server to use, or None for the embedded one. Holds a password: never log it.

    Raises SettingError for what is no address.
    """
    value = os.environ.get("DEDP_POSTGRES_DSN") or None
    if value is not None:
        import psycopg2.extensions

        try:
            psycopg2.extensions.parse_dsn(value)
        except psycopg2.Error:
            # Neither the value nor what is said about it: both may hold the password.
            raise SettingError(
                "DEDP_POSTGRES_DSN is no address of a PostgreSQL server; expected a URL such as "
                "postgresql://user:password@host:5432/database, with %-escapes for special characters, or a libpq "
                "string such as 'host=... user=... dbname=...'"
            ) from None
    return value


def data_uri() -> str:
    """Where the Delta tables are: an absolute path, or a URI such as `s3://bucket/lake`. Without a slash at its end."""
    value = os.environ.get("DEDP_DATA_URI", "")
    if "://" in value and not value.startswith("file://"):
        return value.rstrip("/")
    return str(Path(value.removeprefix("file://")).expanduser().resolve() if value else home() / "lake")


def spark_remote() -> str | None:
    """The Spark Connect endpoint to use, or None for an embedded server."""
    value = os.environ.get("DEDP_SPARK_REMOTE") or None
    if value is not None and not value.startswith("sc://"):
        raise SettingError(
            f"DEDP_SPARK_REMOTE is {value!r}; expected a Spark Connect endpoint such as sc://localhost:15002"
        )
    return value


def start() -> date:
    """The first day whose partition takes the undated file (UTC)."""
    value = os.environ.get("DEDP_START")
    if not value:
        return home_created() - timedelta(days=3)
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise SettingError(f"DEDP_START is {value!r}; expected a date such as 2024-01-31") from None


def settle_seconds() -> float:
    """How long a file must be unchanged before it counts as complete, in seconds."""
    value = os.environ.get("DEDP_SETTLE_SECONDS") or "2"
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < float("inf"):
        raise SettingError(f"DEDP_SETTLE_SECONDS is {value!r}; expected a number of seconds, 0 or more")
    return seconds


def notify() -> str:
    """Return the target of notifications, as `notifications.notifier_for` takes it. May hold a token: never log it."""
    return os.environ.get("DEDP_NOTIFY") or "log"


def make_home() -> Path:
    """Create the home with the record of its first day, if it is not there yet."""
    folder = home()
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".created.{os.getpid()}"
    draft.write_text(datetime.now(timezone.utc).isoformat(timespec="seconds") + "\n", encoding="utf-8")
    # A link, not a rename: of two processes that start at once, the second keeps what the first wrote.
    with contextlib.suppress(FileExistsError):
        os.link(draft, folder / "created")
    draft.unlink()
    return folder


def home_created() -> date:
    """The day (UTC) on which `DEDP_HOME` was made; makes it when it is new."""
    record = home() / "created"
    if not record.exists():
        make_home()
    try:
        return datetime.fromisoformat(record.read_text(encoding="utf-8").strip()).date()
    except ValueError:
        raise SettingError(
            f"{record} should hold the time at which this folder was made, such as 2024-01-31T08:00:00+00:00; "
            "write one into it, or set DEDP_START"
        ) from None


def _folder(variable: str, default: Path) -> Path:
    value = os.environ.get(variable)
    return Path(value).expanduser().resolve() if value else default
