"""Too many lines in quarantine: one report and one message for each incident, and an error while nobody can be told."""

import json
from collections.abc import Callable
from pathlib import Path

import dagster as dg
from psycopg2.extensions import connection as Connection

from dedp_assets.notifications.resource import NotifierResource
from dedp_assets.resources.postgres import PostgresResource
from sensors.pipelines.client_uploads_quarantine import uploads_quarantine_watched
from tests.ticks import SensorTicks


def test_an_incident_is_reported_once_and_told_once_and_its_ticks_say_why_nobody_was_told(
    tables: Connection, dsn: str, add_file: Callable[..., None], instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    add_file("a", "bad.csv", lines=1000, quarantined=900)
    (tmp_path / "folder").touch()
    told = tmp_path / "folder" / "told"
    resources = {"postgres": PostgresResource(dsn=dsn), "notifier": NotifierResource(target=f"file:{told}")}
    ticks = SensorTicks(uploads_quarantine_watched, instance, resources=resources)
    first, second = ticks(), ticks()
    assert [len(tick.run_requests) for tick in (first, second)] == [1, 0]
    assert second.message.startswith(f"error: {told}: the notification uploads/quarantine/")
    (tmp_path / "folder").unlink()
    for _ in range(2):
        assert ticks().message == "900 of the 1,000 lines of the last 1 h are in quarantine"
    (line,) = told.read_text().splitlines()
    assert json.loads(line)["subject"] == "Client uploads: 90% of the lines of the last 1 h are in quarantine"
