"""Who may launch runs chooses their config. That must not open files and folders that the settings do not name."""

import os
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError

from dedp_assets import resources_from_settings
from dedp_assets.client_uploads.arrival import Arrival
from dedp_assets.errors import SettingError
from dedp_assets.isolated_sequencer import contract
from dedp_assets.landing.copying import NotCopied
from dedp_assets.landing.dated import DatedFolder
from dedp_assets.landing.taking_in import LandedFiles, TakingIn
from dedp_assets.landing.versions import FileVersion
from dedp_assets.promotions.deliveries.config import ToTake
from jobs import client_uploads

DAY = "2024-01-03"
ARRIVAL: dict[str, Any] = {
    "client": "acme",
    "directory": "/landing/acme",
    "file": "orders.csv",
    "pattern": "*.csv",
    "version": "1:1:1:1",
    "size_bytes": 1,
    "modified_at": "2024-01-31T08:00:00+00:00",
    "first_seen_at": "2024-01-31T08:00:00+00:00",
    "waited_seconds": 0.0,
}


def all_content(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("form", ["absolute", "relative", "another day"])
def test_a_day_takes_no_file_but_its_own_and_the_undated_one(own_home: Path, secret: Path, form: str) -> None:
    landing = own_home / "landing" / "devices"
    (landing / DAY).mkdir(parents=True)
    (landing / "2024-01-09").mkdir()
    (landing / "2024-01-09" / "dataset.csv").write_bytes(secret.read_bytes())
    sources = {
        "absolute": str(secret),
        "relative": os.path.relpath(secret, landing),
        "another day": "2024-01-09/dataset.csv",
    }
    config = LandedFiles(sources={DAY: sources[form]})
    taking = TakingIn(DatedFolder(landing, "dataset.csv"), contract.internal_file, config, settle_seconds=0)
    with pytest.raises(NotCopied, match=f"expected {DAY}/dataset.csv or dataset.csv"):
        taking.take_in(DAY)
    assert b"word" not in all_content(own_home / "internal")


def test_a_client_takes_no_file_of_another_directory(
    own_home: Path, instance: dg.DagsterInstance, secret: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    (own_home / "landing" / "clients" / "acme").mkdir(parents=True)
    instance.add_dynamic_partitions("upload_clients", ["acme"])
    version = FileVersion.of(secret.stat()).to_text()
    arrival = {**ARRIVAL, "directory": str(secret.parent), "file": secret.name, "version": version}
    result = client_uploads.defs.resolve_implicit_global_asset_job_def().execute_in_process(
        {"ops": {"uploads": {"config": {"files": [arrival]}}}},
        instance=instance,
        partition_key="acme",
        op_selection=["uploads"],
        raise_on_error=False,
    )
    assert not result.success
    said = "\n".join(str(event) for event in result.all_events)
    assert f"the directory of acme is {own_home}/landing/clients/acme" in said
    assert b"word" not in all_content(own_home)


@pytest.mark.parametrize(
    "change",
    [
        {"client": "../../acme"},
        {"client": ".."},
        {"client": "a\0b"},
        {"file": "../../secret.csv"},
        {"file": ".."},
        {"file": "/etc/passwd"},
        {"file": "a\0b"},
        {"version": "1:1:1"},
    ],
)
def test_names_of_an_upload_lead_out_of_no_folder(change: dict[str, Any]) -> None:
    Arrival(**ARRIVAL)
    with pytest.raises(ValidationError):
        Arrival(**{**ARRIVAL, **change})


@pytest.mark.parametrize("change", [{"supplier": "../x"}, {"supplier": ".."}, {"day": "../.."}, {"day": "2024-1-5"}])
def test_names_of_a_delivery_lead_out_of_no_folder(change: dict[str, Any]) -> None:
    delivery = {"supplier": "supermarket1", "day": "2024-01-05"}
    ToTake(**delivery)
    with pytest.raises(ValidationError):
        ToTake(**{**delivery, **change})


@pytest.mark.parametrize(
    ("resource", "field"),
    [
        (resources_from_settings.PostgresFromSettings, "dsn"),
        (resources_from_settings.SparkFromSettings, "remote"),
        (resources_from_settings.LakeFromSettings, "uri"),
        (resources_from_settings.NotifierFromSettings, "target"),
    ],
)
def test_a_config_names_no_other_server_where_that_is_switched_off(
    resource: type[Any], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = resource(**{field: "file:/root/.profile?word"})
    assert chosen.address() == "file:/root/.profile?word"
    monkeypatch.setenv("DEDP_RUN_CONFIG_ADDRESSES", "off")
    with pytest.raises(SettingError, match=rf"\.{field}, and DEDP_RUN_CONFIG_ADDRESSES is off") as error:
        chosen.address()
    assert "word" not in str(error.value)
    for name, value in (("POSTGRES_DSN", "postgresql://h/d"), ("SPARK_REMOTE", "sc://h:1"), ("NOTIFY", "log")):
        monkeypatch.setenv(f"DEDP_{name}", value)
    assert resource().address()
