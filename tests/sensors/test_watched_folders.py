"""The directories that the doorbell watches are those that the sensors read."""

from pathlib import Path

import dagster as dg
import pytest

from dedp_assets import settings
from dedp_assets.doorbell.folders import Polled, Watch, watches_of
from dedp_assets.doorbell.woken_by import listener_from_metadata
from dedp_assets.flight_search import contract as flights
from dedp_assets.isolated_sequencer.loader.landing import landing_folder
from dedp_assets.late_data_integrator import contract as late_data
from dedp_assets.promotions import contract as promotions
from sensors.pipelines.client_uploads import uploads_arrived
from sensors.pipelines.devices_loader import devices_landed
from sensors.pipelines.flight_search import flight_searches_landed
from sensors.pipelines.late_data_integrator import devices_committed
from sensors.pipelines.promotion_reports import promotions_followed
from sensors.pipelines.promotions import promotions_delivered


def watched_by(sensor: dg.SensorDefinition) -> list[Watch | Polled]:
    listener = listener_from_metadata(sensor.name, "here", 1, sensor.metadata)
    assert listener.folders
    return watches_of(listener.folders)


def paths_of(sensor: dg.SensorDefinition) -> list[Path]:
    return [each.path for each in watched_by(sensor) if isinstance(each, Watch)]


def test_the_files_of_devices_of_flight_searches_and_of_suppliers_are_watched_where_they_land() -> None:
    assert paths_of(devices_landed) == [landing_folder().path]
    assert paths_of(flight_searches_landed) == [flights.landing_folder()]
    assert paths_of(promotions_delivered) == [promotions.landing_folder()]


def test_the_commits_of_a_local_table_are_watched_and_those_of_an_object_store_are_polled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert paths_of(devices_committed) == [Path(late_data.uri(late_data.DEVICES)) / "_delta_log"]
    monkeypatch.setenv("DEDP_DATA_URI", "s3://bucket/lake")
    assert watched_by(devices_committed) == [Polled("s3://bucket/lake is an object store")]


def test_the_directories_of_all_clients_are_watched_and_those_above_them_and_the_settings_file(own_home: Path) -> None:
    for client in ("acme", "globex"):
        (settings.landing() / "clients" / client).mkdir(parents=True)
    clients = settings.landing() / "clients"
    assert paths_of(uploads_arrived) == [own_home, clients, clients / "acme", clients / "globex"]


def test_clients_that_a_changed_settings_file_names_are_watched_and_their_object_stores_are_polled(
    own_home: Path, tmp_path: Path
) -> None:
    assert tmp_path / "drop" not in paths_of(uploads_arrived)
    (own_home / "uploads.yaml").write_text(
        f"directories:\n  - directory: {tmp_path}/drop\n    settle: 7\n  - directory: s3://bucket/acme\n"
    )
    watched = watched_by(uploads_arrived)
    assert [each.settle_seconds for each in watched if isinstance(each, Watch) and each.path == tmp_path / "drop"] == [
        7
    ]
    assert any(isinstance(each, Polled) and "s3://bucket/acme" in each.what for each in watched)


def test_the_reports_on_promotions_follow_the_metrics_and_the_runs_of_their_location() -> None:
    listener = listener_from_metadata("promotions_followed", "here", 1, promotions_followed.metadata)
    assert listener.assets == {promotions.METRICS.to_string()}
    assert listener.own_runs
