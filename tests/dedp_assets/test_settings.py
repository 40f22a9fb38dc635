"""Settings have defaults that work, and an error names a value that cannot be used."""

import multiprocessing
import os
import re
from datetime import date, datetime, timedelta, timezone
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import psycopg2.extensions
import pytest

from dedp_assets import settings
from dedp_assets.errors import SettingError
from dedp_assets.local_stack.users import without_passwords


def test_without_any_setting_the_state_is_beside_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEDP_HOME")
    monkeypatch.delenv("DEDP_SETTLE_SECONDS")
    repository = Path(settings.__file__).resolve().parent.parent
    assert settings.home() == repository / ".dedp"
    assert settings.landing() == repository / ".dedp" / "landing"
    assert settings.internal() == repository / ".dedp" / "internal"
    assert settings.postgres_dsn() is None
    assert settings.settle_seconds() == 2


def test_an_empty_setting_is_none(monkeypatch: pytest.MonkeyPatch, own_home: Path) -> None:
    for name in ("DEDP_LANDING", "DEDP_INTERNAL", "DEDP_POSTGRES_DSN", "DEDP_START", "DEDP_SETTLE_SECONDS"):
        monkeypatch.setenv(name, "")
    assert settings.landing() == own_home / "landing"
    assert settings.internal() == own_home / "internal"
    assert settings.postgres_dsn() is None
    assert settings.start() == settings.home_created() - timedelta(days=3)
    assert settings.settle_seconds() == 2


def test_folders_follow_the_home_unless_they_are_set(
    monkeypatch: pytest.MonkeyPatch, own_home: Path, tmp_path: Path
) -> None:
    assert settings.landing() == own_home.resolve() / "landing"
    monkeypatch.setenv("DEDP_LANDING", str(tmp_path / "in"))
    monkeypatch.setenv("DEDP_INTERNAL", str(tmp_path / "kept"))
    assert settings.landing() == tmp_path.resolve() / "in"
    assert settings.internal() == tmp_path.resolve() / "kept"


def test_a_relative_home_is_below_the_working_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEDP_HOME", "state/../here")
    assert settings.home() == tmp_path.resolve() / "here"
    assert settings.landing() == tmp_path.resolve() / "here" / "landing"


def test_a_tilde_is_the_users_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DEDP_HOME", "~/dedp")
    assert settings.home() == tmp_path.resolve() / "dedp"


def test_asking_for_folders_makes_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEDP_HOME", str(tmp_path / "home"))
    settings.home(), settings.landing(), settings.internal()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["yesterday", "2024-02-30", "01.02.2024", "2024-01-01T00:00", "0"])
def test_a_start_that_is_no_date_is_named_with_its_value(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("DEDP_START", value)
    with pytest.raises(SettingError) as raised:
        settings.start()
    assert str(raised.value) == f"DEDP_START is {value!r}; expected a date such as 2024-01-31"


@pytest.mark.parametrize("value", ["soon", "-1", "-0.1", "nan", "inf", "-inf", "2s", "1,5"])
def test_a_settle_time_that_is_no_number_of_seconds_is_named_with_its_value(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("DEDP_SETTLE_SECONDS", value)
    with pytest.raises(SettingError) as raised:
        settings.settle_seconds()
    assert str(raised.value) == f"DEDP_SETTLE_SECONDS is {value!r}; expected a number of seconds, 0 or more"


@pytest.mark.parametrize(("value", "seconds"), [("0", 0), ("0.25", 0.25), ("90", 90), (" 3 ", 3)])
def test_a_settle_time_is_any_number_of_seconds(monkeypatch: pytest.MonkeyPatch, value: str, seconds: float) -> None:
    monkeypatch.setenv("DEDP_SETTLE_SECONDS", value)
    assert settings.settle_seconds() == seconds


def test_a_start_that_is_set_is_the_start(monkeypatch: pytest.MonkeyPatch, own_home: Path) -> None:
    monkeypatch.setenv("DEDP_START", "2024-02-29")
    assert settings.start() == date(2024, 2, 29)
    assert list(own_home.iterdir()) == []


def test_the_start_is_three_days_before_the_home_was_made(own_home: Path) -> None:
    (own_home / "created").write_text("2024-03-02T23:30:00+00:00\n")
    assert settings.start() == date(2024, 2, 28)


def test_the_day_a_home_was_made_is_recorded_on_first_use_and_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEDP_HOME", str(tmp_path / "new" / "home"))
    before = datetime.now(timezone.utc).date()
    assert before <= settings.home_created() <= datetime.now(timezone.utc).date()
    record = tmp_path / "new" / "home" / "created"
    record.write_text("2024-01-31T08:00:00+00:00\n")
    assert settings.make_home() == tmp_path.resolve() / "new" / "home"
    assert settings.home_created() == date(2024, 1, 31)
    assert [path.name for path in record.parent.iterdir()] == ["created"]


@pytest.mark.parametrize("content", ["", "yesterday\n", "\n"])
def test_a_damaged_record_is_named_with_what_belongs_there(own_home: Path, content: str) -> None:
    (own_home / "created").write_text(content)
    with pytest.raises(SettingError, match=r"created should hold the time .*such as 2024-01-31T08:00:00\+00:00"):
        settings.start()


def _make_home(start: Barrier, results: "Queue[tuple[int, str]]") -> None:
    start.wait()
    settings.home_created()
    results.put((os.stat(settings.home() / "created").st_ino, (settings.home() / "created").read_text()))


def test_of_eight_processes_that_make_a_home_at_once_all_see_the_first_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEDP_HOME", str(tmp_path / "home"))
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(8), context.Queue()
    processes = [context.Process(target=_make_home, args=(start, results)) for _ in range(8)]
    for process in processes:
        process.start()
    found = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert len(found) == 1
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["created"]


def test_the_home_of_a_checkout_is_in_it_and_that_of_an_installation_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEDP_HOME")
    monkeypatch.chdir(tmp_path)
    assert settings.home() == settings.REPOSITORY / ".dedp"
    assert settings.to_run("up") == "make up"
    monkeypatch.setattr(settings, "REPOSITORY", tmp_path / "site-packages")
    assert settings.home() == tmp_path / ".dedp"
    assert settings.to_run("up") == "dedp up"


@pytest.mark.parametrize(
    "value", ["nonsense", "host=localhost password='secret", "postgresql://u:secret word@[::1/x", "postgres:/secret"]
)
def test_what_is_no_address_of_a_database_is_refused_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", value)
    with pytest.raises(SettingError, match="DEDP_POSTGRES_DSN is not an address of a PostgreSQL server") as refused:
        settings.postgres_dsn()
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("value", ["postgresql://u:p@h:5432/d", "host=/tmp dbname=d", "postgresql:///d?host=/tmp"])
def test_an_address_is_a_url_or_a_libpq_string(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", value)
    assert settings.postgres_dsn() == value


@pytest.mark.parametrize("address", ["postgresql://u@h:5432/d", "host=h port=5432 user=u dbname=d"])
def test_an_address_without_a_password_gets_that_of_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str
) -> None:
    (tmp_path / "password").write_text("it's /a @secret%\n")
    monkeypatch.setenv("DEDP_POSTGRES_DSN", address)
    monkeypatch.setenv("DEDP_POSTGRES_PASSWORD_FILE", str(tmp_path / "password"))
    dsn = settings.postgres_dsn()
    assert dsn is not None
    expected = {"host": "h", "port": "5432", "user": "u", "dbname": "d", "password": "it's /a @secret%"}
    assert psycopg2.extensions.parse_dsn(dsn) == expected


def test_the_password_in_an_address_comes_before_that_of_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", "postgresql://u:own@h/d")
    monkeypatch.setenv("DEDP_POSTGRES_PASSWORD_FILE", str(tmp_path / "missing"))
    assert settings.postgres_dsn() == "postgresql://u:own@h/d"


@pytest.mark.parametrize(("text", "reason"), [(None, "No such file"), (b"\n", "empty"), (b"\xff", "not UTF-8")])
def test_a_password_file_that_can_t_be_used_is_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: bytes | None, reason: str
) -> None:
    if text is not None:
        (tmp_path / "password").write_bytes(text)
    monkeypatch.setenv("DEDP_POSTGRES_DSN", "postgresql://u@h/d")
    monkeypatch.setenv("DEDP_POSTGRES_PASSWORD_FILE", str(tmp_path / "password"))
    with pytest.raises(SettingError, match=f"DEDP_POSTGRES_PASSWORD_FILE is {tmp_path}/password.*{reason}"):
        settings.postgres_dsn()


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "2 "])
def test_a_number_of_cores_that_is_none_is_named_with_its_value(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("DEDP_SPARK_CORES", value)
    with pytest.raises(SettingError, match=re.escape(f"DEDP_SPARK_CORES is {value!r}; expected a whole number")):
        settings.spark_cores()


@pytest.mark.parametrize("value", ["1", "512", "511m", "0g", "1.5g", "much", "-Xmx1g", "1g -Dx=y"])
def test_a_memory_that_spark_could_not_use_is_named_with_its_value(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("DEDP_SPARK_MEMORY", value)
    with pytest.raises(SettingError, match=re.escape(f"DEDP_SPARK_MEMORY is {value!r}; expected an amount")):
        settings.spark_memory()


def test_the_size_of_an_embedded_spark_server_is_what_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (settings.spark_cores(), settings.spark_memory()) == (None, None)
    monkeypatch.setenv("DEDP_SPARK_CORES", "3")
    monkeypatch.setenv("DEDP_SPARK_MEMORY", "2G")
    assert (settings.spark_cores(), settings.spark_memory()) == (3, "2g")


def test_the_password_of_the_first_user_is_in_a_setting_or_in_a_file_and_is_never_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert settings.admin_password() is None
    (tmp_path / "password").write_text("a secret \n")
    monkeypatch.setenv("DEDP_ADMIN_PASSWORD_FILE", str(tmp_path / "password"))
    assert settings.admin_password() == "a secret "
    monkeypatch.setenv("DEDP_ADMIN_PASSWORD", "another secret")
    with pytest.raises(SettingError, match="are both set; set one of them") as refused:
        settings.admin_password()
    assert "secret" not in str(refused.value)
    monkeypatch.setenv("DEDP_ADMIN_PASSWORD_FILE", "")
    assert settings.admin_password() == "another secret"
    monkeypatch.delenv("DEDP_ADMIN_PASSWORD")
    monkeypatch.setenv("DEDP_ADMIN_PASSWORD_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(SettingError, match=r"nowhere, which can't be read: No such file"):
        settings.admin_password()
    assert without_passwords({"DEDP_ADMIN_PASSWORD": "a secret", "DEDP_HOME": "/home"}) == {"DEDP_HOME": "/home"}
