"""Every environment variable of the project. Each is read when its function is called, and never at import.

The exceptions are DEDP_SUPPLIERS and DEDP_FRESHNESS, which are part of the definitions of assets: the suppliers are
partitions, and an asset has its freshness policy.

| variable               | default                         | meaning                                              |
| ---------------------- | ------------------------------- | ---------------------------------------------------- |
| `DEDP_HOME`            | `.dedp/` of the checkout; of the current folder if installed | all runtime state       |
| `DEDP_LANDING`         | `$DEDP_HOME/landing`            | where files arrive                                   |
| `DEDP_INTERNAL`        | `$DEDP_HOME/internal`           | our own copies, one folder per load                  |
| `DEDP_POSTGRES_DSN`    | the embedded server             | any PostgreSQL, as a URL or a libpq string           |
| `DEDP_POSTGRES_PASSWORD_FILE` | none                     | a file with the password, if the address has none    |
| `DEDP_DATA_URI`        | `$DEDP_HOME/lake`               | where the Delta tables are: a folder or `s3://...`   |
| `DEDP_SPARK_REMOTE`    | an embedded server              | a Spark Connect endpoint: `sc://host:15002`          |
| `DEDP_SPARK_CORES`     | all cores of the machine        | how many tasks an embedded Spark server runs at once |
| `DEDP_SPARK_MEMORY`    | `1g`                            | the Java heap of an embedded Spark server            |
| `DEDP_START`           | 3 days before the home was made | first day that takes the undated `dataset.csv`       |
| `DEDP_SETTLE_SECONDS`  | `2`                             | a file unchanged for this long is complete           |
| `DEDP_LOG_FORMAT`      | `colored`                       | `json`: Dagster's processes log lines of JSON        |
| `DEDP_NOTIFY`          | `log`                           | where notifications go: `file:/path`, `https://...`  |
| `DEDP_ALERTS`          | none: nobody is alerted         | where alerts go: targets, separated by spaces        |
| `DEDP_ALERTS_DAEMON_SECONDS` | `180`                     | a daemon that is silent for so long has stopped      |
| `DEDP_ALERTS_RUN_SECONDS`   | `3600`                     | a run that takes longer is a problem                 |
| `DEDP_ALERTS_QUEUE_SECONDS` | `1800`                     | a run that waits longer for its start is a problem   |
| `DEDP_FRESHNESS`       | none: no asset has a deadline   | when assets have to be updated: `asset=26h; ...`     |
| `DEDP_UI_URL`          | none: messages have paths       | the address of the UI, for links in messages         |
| `DEDP_SMTP_USER`       | none: the server asks nobody    | the user at the SMTP server                          |
| `DEDP_SMTP_PASSWORD`, `DEDP_SMTP_PASSWORD_FILE` | none   | the password, or a file that has it                  |
| `DEDP_USERS_API`       | none: users are not fetched     | the endpoint of the users: `https://host/api/`       |
| `DEDP_SUPPLIERS`       | `supermarket1,...,supermarket4` | the suppliers of promotions, separated by commas     |
| `DEDP_ADMIN_PASSWORD`  | none                            | of the user `admin`, who is made if there is no user |
| `DEDP_ADMIN_PASSWORD_FILE` | none                        | a file with that password                            |
| `DEDP_RUN_CONFIG_ADDRESSES` | `on`                      | `off`: who launches a run can't name other servers   |
| `DEDP_DOORBELL`        | `on`                            | `off`: the daemon polls only, as Dagster's own does  |
| `DEDP_DOORBELL_NET_SECONDS` | `30`                       | how often to look where notifications come           |
"""

import contextlib
import os
import re
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import urlsplit

from dedp_assets.errors import SettingError

# The folder that contains this package: a checkout of the project, or the site-packages of an installation.
REPOSITORY = Path(__file__).resolve().parent.parent

# A home that contains this file was made by a demo. The next demo may delete it.
DEMO_MARK = "demo"


def home() -> Path:
    """Return the absolute path of the folder for all runtime state. The folder may not exist yet."""
    # Not in site-packages: an update replaces that folder, and several projects may share it.
    return _folder("DEDP_HOME", (REPOSITORY if is_checkout() else Path.cwd()) / ".dedp")


def is_checkout() -> bool:
    """Return whether this package is in a checkout of the project, and not installed from a wheel."""
    return (REPOSITORY / "Makefile").is_file() and (REPOSITORY / "pyproject.toml").is_file()


def to_run(command: str) -> str:
    """Return how a user runs a command such as `up`: `make up` in a checkout, `dedp up` in an installation."""
    return f"{'make' if is_checkout() else 'dedp'} {command}"


def landing() -> Path:
    """Return the folder where files arrive."""
    return _folder("DEDP_LANDING", home() / "landing")


def internal() -> Path:
    """Return the folder of our own copies of the files that arrived."""
    return _folder("DEDP_INTERNAL", home() / "internal")


def postgres_dsn() -> str | None:
    """Return the address of the PostgreSQL database, or None for the embedded server.

    It may hold a password: never log it.

    Raises:
        SettingError: the value is not an address, or the file of the password can't be used. The message repeats
            neither the value nor the password.
    """
    value = os.environ.get("DEDP_POSTGRES_DSN") or None
    if value is None:
        return None
    has_password = "password" in _parts_of_address("DEDP_POSTGRES_DSN", value)
    password = None if has_password else postgres_password()
    if password is None:
        return value
    import psycopg2.extensions

    return psycopg2.extensions.make_dsn(value, password=password)


def _parts_of_address(variable: str, value: str) -> dict[str, str]:
    import psycopg2.extensions

    # A password with an @ or a slash that is not escaped: the rest of it is taken for the host, the port or the
    # database, which errors name.
    try:
        parts = dict(psycopg2.extensions.parse_dsn(value))
        # A host that begins with an @ is an abstract socket.
        has_no_rest = all(parts.get(name, "").find("@") < 1 for name in ("host", "dbname"))
        is_address = has_no_rest and re.fullmatch("[0-9,]*", parts.get("port", ""))
    except psycopg2.Error:
        is_address = None
    if not is_address:
        # Do not show the value or psycopg2's message: both may hold the password.
        raise SettingError(
            f"{variable} is not an address of a PostgreSQL server; expected a URL such as "
            "postgresql://user:password@host:5432/database, with %-escapes for special characters, or a libpq "
            "string such as 'host=... user=... dbname=...'"
        ) from None
    return parts


def dagster_storage() -> str | None:
    """Return the URL of the database with Dagster's own tables, or None for that of the project's database.

    It may hold a password: never log it.

    Raises:
        SettingError: the value is not an address, or the file of the password can't be used. The message repeats
            neither the value nor the password.
    """
    value = os.environ.get("DEDP_DAGSTER_STORAGE") or None
    if value is None:
        return None
    _parts_of_address("DEDP_DAGSTER_STORAGE", value)
    return with_password(value)


def with_password(url: str) -> str:
    """Return a URL of PostgreSQL, as SQLAlchemy reads it. If it has no password, it gets that of the settings.

    Never log it.

    Raises:
        SettingError: the file of the password can't be used.
    """
    from sqlalchemy.engine import make_url

    address = make_url(url)
    password = None if address.password or "password" in address.query else postgres_password()
    return address.set(password=password).render_as_string(hide_password=False) if password else url


def postgres_password() -> str | None:
    """Return the password for addresses that have none: the text of DEDP_POSTGRES_PASSWORD_FILE. None if it is not set.

    Raises:
        SettingError: the file can't be read, or has no text.
    """
    return _secret_in_file("DEDP_POSTGRES_PASSWORD_FILE", "the password of PostgreSQL")


def _secret(variable: str, what: str) -> str | None:
    """The value of a variable, or the text of the file that the variable with _FILE names. None if there is neither."""
    value = os.environ.get(variable) or None
    if value and os.environ.get(f"{variable}_FILE"):
        raise SettingError(f"{variable} and {variable}_FILE are both set; set one of them")
    return value or _secret_in_file(f"{variable}_FILE", what)


def _secret_in_file(variable: str, what: str) -> str | None:
    file = os.environ.get(variable)
    if not file:
        return None
    try:
        secret = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingError(
            f"{variable} is {file}, which can't be read: {reason}; expected a file with {what}, which the user of this "
            "process may read"
        ) from None
    if not secret:
        raise SettingError(f"{variable} is {file}, which is empty; write {what} into it")
    return secret


def data_uri() -> str:
    """Return where the Delta tables are: an absolute path, or a URI such as `s3://bucket/lake`.

    It has no slash at its end.
    """
    value = os.environ.get("DEDP_DATA_URI", "")
    if "://" in value and not value.startswith("file://"):
        return value.rstrip("/")
    return str(Path(value.removeprefix("file://")).expanduser().resolve() if value else home() / "lake")


def spark_remote() -> str | None:
    """Return the Spark Connect endpoint, such as sc://host:15002, or None for an embedded server. It may hold a token.

    Raises:
        SettingError: the value is not such an endpoint.
    """
    value = os.environ.get("DEDP_SPARK_REMOTE") or None
    if value is not None and not value.startswith("sc://"):
        raise SettingError(
            "DEDP_SPARK_REMOTE is not a Spark Connect endpoint; expected one such as sc://localhost:15002"
        )
    return value


def spark_cores() -> int | None:
    """Return how many tasks an embedded Spark server runs at once, or None for as many as the machine has cores.

    Raises:
        SettingError: the value is not a whole number, 1 or more.
    """
    value = os.environ.get("DEDP_SPARK_CORES")
    if not value:
        return None
    if not re.fullmatch("[1-9][0-9]{0,3}", value):
        raise SettingError(f"DEDP_SPARK_CORES is {value!r}; expected a whole number, 1 or more")
    return int(value)


def spark_memory() -> str | None:
    """Return the Java heap of an embedded Spark server, such as 2g, or None for its default.

    Raises:
        SettingError: the value is not an amount of memory, or is too little for Spark.
    """
    value = os.environ.get("DEDP_SPARK_MEMORY")
    if not value:
        return None
    amount = re.fullmatch("([1-9][0-9]{0,8})([mg])", value.lower())
    # Spark itself refuses a heap of less than 471 MB.
    if amount is None or int(amount[1]) * (1024 if amount[2] == "g" else 1) < 512:
        raise SettingError(f"DEDP_SPARK_MEMORY is {value!r}; expected an amount such as 2g or 1024m, at least 512m")
    return value.lower()


def start() -> date:
    """Return the first day (UTC) whose partition takes the undated file.

    Raises:
        SettingError: DEDP_START is not a date, or the record of the home's first day is damaged.
    """
    value = os.environ.get("DEDP_START")
    if not value:
        return home_created() - timedelta(days=3)
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise SettingError(f"DEDP_START is {value!r}; expected a date such as 2024-01-31") from None


def settle_seconds() -> float:
    """Return how many seconds a file must stay unchanged before it counts as complete.

    Raises:
        SettingError: the value is not a number of seconds, 0 or more.
    """
    return _seconds("DEDP_SETTLE_SECONDS", default=2, at_least=0)


def doorbell_is_on() -> bool:
    """Return whether `python -m dedp_assets.doorbell` is woken by what happens.

    Raises:
        SettingError: the value is neither `on` nor `off`.
    """
    return _is_on("DEDP_DOORBELL")


def run_config_may_have_addresses() -> bool:
    """Return whether run config may name another database, lake, Spark server or target of notifications.

    Raises:
        SettingError: the value is neither `on` nor `off`.
    """
    return _is_on("DEDP_RUN_CONFIG_ADDRESSES")


def _is_on(name: str) -> bool:
    value = os.environ.get(name) or "on"
    if value not in ("on", "off"):
        raise SettingError(f"{name} is {value!r}; expected on or off")
    return value == "on"


def doorbell_net_seconds() -> float:
    """Return how often a sensor is evaluated where notifications come, in s.

    Raises:
        SettingError: the value is not a number of seconds, 5 or more.
    """
    return _seconds("DEDP_DOORBELL_NET_SECONDS", default=30, at_least=5)


def _seconds(name: str, default: float, at_least: float) -> float:
    value = os.environ.get(name)
    if not value:
        return default
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1
    if not at_least <= seconds < float("inf"):
        raise SettingError(f"{name} is {value!r}; expected a number of seconds, {at_least:g} or more")
    return seconds


def logs_json() -> bool:
    """Return whether the processes of `dedp up` log lines of JSON.

    Raises:
        SettingError: the value is neither `colored` nor `json`, which are Dagster's names.
    """
    value = os.environ.get("DEDP_LOG_FORMAT") or "colored"
    if value not in ("colored", "json"):
        raise SettingError(f"DEDP_LOG_FORMAT is {value!r}; expected colored or json")
    return value == "json"


def admin_password() -> str | None:
    """Return the password of the first user of the web server, or None if no setting has it. Never log it.

    Raises:
        SettingError: the file can't be read, or both settings are there.
    """
    return _secret("DEDP_ADMIN_PASSWORD", "the password of the user admin")


def notify() -> str:
    """Return the target of notifications, as `notifications.notifier_for` takes it. May hold a token: never log it."""
    return os.environ.get("DEDP_NOTIFY") or "log"


def alerts() -> list[str]:
    """Return the targets of alerts, as `notifications.notifier_for` takes them. They may hold tokens: never log."""
    return list(dict.fromkeys((os.environ.get("DEDP_ALERTS") or "").split()))


def sends_traces() -> bool:
    """Return whether OpenTelemetry's own variables name an endpoint for traces."""
    return any(os.environ.get(f"OTEL_EXPORTER_OTLP_{name}") for name in ("ENDPOINT", "TRACES_ENDPOINT"))


def alerts_daemon_seconds() -> float:
    """Return how long a daemon may give no sign of life before somebody is alerted, in s.

    Raises:
        SettingError: the value is not a number of seconds, 31 or more: a daemon gives a sign every 30 s.
    """
    return _seconds("DEDP_ALERTS_DAEMON_SECONDS", default=180, at_least=31)


def alerts_run_seconds() -> float:
    """Return how long a run may take before somebody is alerted, in s.

    Raises:
        SettingError: the value is not a number of seconds, 1 or more.
    """
    return _seconds("DEDP_ALERTS_RUN_SECONDS", default=3600, at_least=1)


EXPECTED_FRESHNESS = (
    "expected assets and when they have to be updated, separated by `;`, such as `dedp/devices_aggregates=26h` (m, h "
    "or d) or `dedp/devices_aggregates=6h before 0 6 * * * Europe/Berlin` (a cron schedule of deadlines; UTC without a "
    "time zone)"
)


def freshness() -> dict[str, str]:
    """Return when assets have to be updated, by asset, as `freshness_from_settings` reads it.

    Raises:
        SettingError: a part of the value does not name an asset, or an asset stands there twice.
    """
    found: dict[str, str] = {}
    for part in filter(None, map(str.strip, (os.environ.get("DEDP_FRESHNESS") or "").split(";"))):
        asset, _, when = (each.strip() for each in part.partition("="))
        if not asset:
            raise SettingError(f"DEDP_FRESHNESS has {part!r}; {EXPECTED_FRESHNESS}")
        if asset in found:
            raise SettingError(f"DEDP_FRESHNESS: {asset} stands there twice; {EXPECTED_FRESHNESS}")
        found[asset] = when
    return found


def ui_url() -> str:
    """Return the address of the UI for links in messages, without a slash at its end; "" if nobody has named it.

    Raises:
        SettingError: the value is not such an address.
    """
    value = (os.environ.get("DEDP_UI_URL") or "").rstrip("/")
    if value and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", value):
        raise SettingError(f"DEDP_UI_URL is {value!r}; expected an address such as https://dagster.example.org")
    return value


def alerts_queue_seconds() -> float:
    """Return how long a run may wait for its start before somebody is alerted, in s.

    Raises:
        SettingError: the value is not a number of seconds, 1 or more.
    """
    return _seconds("DEDP_ALERTS_QUEUE_SECONDS", default=1800, at_least=1)


def smtp_login() -> tuple[str, str] | None:
    """Return the user at the SMTP server and the password, or None if there is no user. Never log it.

    Raises:
        SettingError: there is a user without a password, or the file with the password can't be read.
    """
    user = os.environ.get("DEDP_SMTP_USER")
    if not user:
        return None
    password = _secret("DEDP_SMTP_PASSWORD", "the password at the SMTP server")
    if not password:
        raise SettingError(
            "DEDP_SMTP_USER is set; expected a password in DEDP_SMTP_PASSWORD or DEDP_SMTP_PASSWORD_FILE"
        )
    return user, password


def users_api() -> str | None:
    """Return the URL of the endpoint that has the users, or None if there is none. It may hold a key: never log it.

    Raises:
        SettingError: the value is not such a URL. The message does not repeat it.
    """
    value = os.environ.get("DEDP_USERS_API") or None
    if value is not None:
        try:
            parts = urlsplit(value)
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # the port or the brackets of the host
            is_url = False
        if not is_url or not value.isprintable() or " " in value:
            raise SettingError(
                "DEDP_USERS_API is not the URL of an endpoint; expected one such as http://127.0.0.1:8123/api/"
            )
    return value


def make_home() -> Path:
    """Create the home and the record of its first day, unless they exist. Return the home.

    Raises:
        SettingError: a restore into this home was not completed.
    """
    folder = home()
    if unfinished_restore().exists():
        raise SettingError(
            f"the restore of a backup into {folder} is under way, or was not completed; in the second case delete what "
            "is in that folder, and restore again with `dedp restore`"
        )
    make_home_folder()
    draft = folder / f".created.{os.getpid()}"
    draft.write_text(datetime.now(timezone.utc).isoformat(timespec="seconds") + "\n", encoding="utf-8")
    # A link fails if the record exists, unlike a rename. If two processes start at once, the first record stays.
    with contextlib.suppress(FileExistsError):
        os.link(draft, folder / "created")
    draft.unlink()
    return folder


def make_home_folder() -> None:
    """Create the folder of the home, unless it exists, and nothing in it."""
    folder = home()
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Of this user alone. Under root, the embedded PostgreSQL server has a user of its own, who passes through.
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700)


def unfinished_restore() -> Path:
    """Return the file that exists while a backup is restored into this home, and after that was not completed."""
    return home() / "restore-unfinished"


def suppliers() -> list[str]:
    """Return the names of the suppliers of promotions, in the order of the setting.

    Raises:
        SettingError: a name stands there twice, or can't be the name of a folder and part of a partition key.
    """
    value = os.environ.get("DEDP_SUPPLIERS") or "supermarket1,supermarket2,supermarket3,supermarket4"
    names = [name.strip() for name in value.split(",")]
    wrong = [name for name in names if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII) or ".." in name]
    if wrong or len(set(names)) < len(names):
        raise SettingError(
            f"DEDP_SUPPLIERS is {value!r}; expected different names, separated by commas, of letters, digits, `_`, `-` "
            "and `.`, such as supermarket1,supermarket2"
        )
    return names


def home_created() -> date:
    """Return the day (UTC) on which `DEDP_HOME` was made. Make the home if it does not exist.

    Raises:
        SettingError: the record in the home is damaged.
    """
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
