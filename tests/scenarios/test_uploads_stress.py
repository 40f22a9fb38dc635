"""A thousand directories that a process writes to all the time: each complete version is taken once, none half."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg2
import pytest
from dagster._core.definitions.partitions.context import partition_loading_context

from dedp_assets.client_uploads.assets import uploads
from dedp_assets.client_uploads.contract import CLIENTS
from dedp_assets.notifications.resource import NotifierResource
from dedp_assets.resources.postgres import PostgresResource
from jobs.client_uploads import defs
from sensors.pipelines.client_uploads import uploads_arrived

WRITER = Path(__file__).with_name("uploads_writer.py")
CLIENT_COUNT, SECONDS = 1000, 30.0
SETTLE_SECONDS = 0.5
ENOUGH = 500


class System:
    """The sensor and the runs that it requests, one after the other, in this process."""

    def __init__(self, instance: dg.DagsterInstance, dsn: str) -> None:
        self.instance, self.cursor = instance, ""
        self.postgres = PostgresResource(dsn=dsn)
        self.longest_round = 0.0

    def round(self) -> int:
        """One tick and its runs; returns how many there were."""
        began = time.monotonic()
        repository = defs.get_repository_def()
        context = dg.build_sensor_context(
            self.instance,
            self.cursor,
            resources={"postgres": self.postgres, "notifier": NotifierResource()},
            repository_def=repository,
        )
        for_clients = self.instance.get_dynamic_partitions(str(CLIENTS.name))
        if not for_clients:
            self.instance.add_dynamic_partitions(
                str(CLIENTS.name), [f"client{number:04}" for number in range(CLIENT_COUNT)]
            )
        # As the daemon does it: Dagster looks up the partition of a request.
        with partition_loading_context(dynamic_partitions_store=self.instance):
            result = uploads_arrived.evaluate_tick(context)
        for request in result.run_requests or ():
            dg.materialize(
                [uploads],
                partition_key=request.partition_key,
                run_config=request.run_config,
                tags=request.tags,
                instance=self.instance,
                resources={"postgres": self.postgres},
                raise_on_error=False,  # a file may be deleted before its run takes it
            )
        self.cursor = str(result.cursor)
        self.longest_round = max(self.longest_round, time.monotonic() - began)
        return len(result.run_requests or ())


def query(dsn: str, sql: str) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()
    finally:
        connection.close()


@pytest.mark.slow
def test_every_complete_version_is_taken_once_and_none_half(
    dsn: str, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDP_SETTLE_SECONDS", str(SETTLE_SECONDS))
    folder = own_home / "landing" / "clients"
    writer = subprocess.Popen(
        [sys.executable, str(WRITER), str(folder), str(CLIENT_COUNT), "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        with dg.DagsterInstance.ephemeral() as instance:
            system = System(instance, dsn)
            ends = time.monotonic() + SECONDS
            taken_already = "SELECT count(*) FROM dedp.upload_files"
            while time.monotonic() < ends or query(dsn, taken_already)[0][0] <= ENOUGH:
                system.round()
            written = [json.loads(line) for line in writer.communicate("stop\n", timeout=300)[0].splitlines()]
            quiet = 0
            while quiet < 3:
                quiet = 0 if system.round() else quiet + 1
                time.sleep(SETTLE_SECONDS)
    finally:
        writer.kill()
        writer.wait()

    taken = query(dsn, "SELECT client, file, sha256, rows_loaded, rows_quarantined, state FROM dedp.upload_files")
    by_content = Counter((client, file, sha256) for client, file, sha256, *_ in taken)
    complete = Counter((each["client"], each["file"], each["sha256"]) for each in written)
    assert len(taken) > ENOUGH, "the test is worth something"
    assert {state for *_, state in taken} == {"loaded"}
    # A busy machine may have the writer pause in a file for as long as it takes to settle. None but such a one is half.
    paused = {(each["client"], each["file"]) for each in written if each["paused"] > SETTLE_SECONDS / 2}
    assert {
        (*file, quarantined) for *file, _, _, quarantined, _ in taken if quarantined and tuple(file) not in paused
    } == set()
    assert {content for content in set(by_content) - set(complete) if content[:2] not in paused} == set()
    assert [content for content, times in complete.items() if by_content[content] > times] == []

    lying = {(each["client"], each["file"]): each["sha256"] for each in written if each["ended"] is None}
    current = {
        (client, file): sha256
        for client, file, sha256 in query(dsn, "SELECT client, file, sha256 FROM dedp.upload_files WHERE is_current")
    }
    assert {key: current.get(key) for key in lying} == lying
    # Whatever lay there for long enough was taken although it was replaced later.
    long_enough = 3 * (system.longest_round + SETTLE_SECONDS)
    seen_long = {
        (each["client"], each["file"], each["sha256"])
        for each in written
        if each["ended"] is not None and each["ended"] - each["began"] > long_enough
    }
    assert seen_long <= set(by_content)
