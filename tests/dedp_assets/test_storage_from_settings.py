"""The password of Dagster's storage comes from a file, and stays out of what processes hand to each other."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg2.extensions
import pytest
from dagster._core.instance.ref import InstanceRef
from dagster._serdes import serialize_value

from dedp_assets import settings

URL = "postgresql://dedp@postgres/dedp?options=-csearch_path%3Ddagster"


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    file = tmp_path / "password"
    file.write_text("a/b@c:d e\n")
    monkeypatch.setenv("DEDP_POSTGRES_PASSWORD_FILE", str(file))
    return "a/b@c:d e"


def test_the_address_of_the_storage_gets_the_password_of_the_file(secret: str) -> None:
    assert psycopg2.extensions.parse_dsn(settings.with_password(URL)) == {
        **psycopg2.extensions.parse_dsn(URL),
        "password": secret,
    }


@pytest.mark.parametrize("url", ["postgresql://u:own@h/d", "postgresql:///d?host=/tmp&password=own"])
def test_an_address_of_the_storage_with_a_password_stays_as_it_is(secret: str, url: str) -> None:
    assert settings.with_password(url) == url


def test_what_processes_hand_to_each_other_has_no_password(
    tmp_path: Path, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster.yaml").write_text((settings.REPOSITORY / "docker" / "dagster.yaml").read_text())
    monkeypatch.setenv("DEDP_DAGSTER_STORAGE", URL)
    assert secret not in serialize_value(InstanceRef.from_dir(str(tmp_path)))


@pytest.mark.slow
def test_a_storage_whose_password_file_is_missing_says_so(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text((settings.REPOSITORY / "docker" / "dagster.yaml").read_text())
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(tmp_path),
        "DEDP_DAGSTER_STORAGE": URL,
        "DEDP_POSTGRES_PASSWORD_FILE": str(tmp_path / "missing"),
    }
    program = "import dagster as dg; dg.DagsterInstance.get()"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "DEDP_POSTGRES_PASSWORD_FILE is" in done.stderr
    assert "No such file" in done.stderr
