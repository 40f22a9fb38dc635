"""A backup of the running system, taken in the middle of loads, restored into an empty home, and started there."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from deltalake import DeltaTable

from dedp_assets.isolated_sequencer import contract
from tests.dedp_command import DEDP
from tests.lake import count_anew, read_counts
from tests.scenarios.system import System, temporary_home
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

DAYS = [f"2024-01-0{number}" for number in range(1, 4)]
CLIENTS = [f"client{number}" for number in range(2)]
FINAL = """
    SELECT 'total', type, full_name, version, all_occurrences FROM dedp.devices_aggregates
    UNION ALL SELECT 'load', load_id, sha256, folded::text, rows_loaded FROM dedp.devices_loads
    UNION ALL SELECT 'quarantine', load_id, reason, line, line_number FROM dedp.devices_quarantine
    UNION ALL SELECT 'record', client, file, id || name || value, line_number FROM dedp.upload_records
    ORDER BY 1, 2, 3, 4, 5
"""


class Copied(System):
    """The running system, as somebody sees it who makes backups of it."""

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    def drop_file(self, day: str, *lines: str) -> None:
        self._land(f"devices/{day}/dataset.csv", "\n".join(["type;full_name;version", *lines, ""]))

    def upload(self, client: str, *lines: str) -> None:
        self._land(f"clients/{client}/orders.csv", "\n".join(["id,name,value", *lines, ""]))

    def _land(self, path: str, text: str) -> None:
        target = self.home / "landing" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(target.name + ".part")
        draft.write_text(text)
        draft.rename(target)

    def count(self, rows: str) -> int | None:
        """How many rows there are, such as `dedp.devices_loads WHERE folded`; None until their table is made."""
        if self.query(f"SELECT to_regclass('{rows.split()[0]}')") == [(None,)]:
            return None
        ((found,),) = self.query(f"SELECT count(*) FROM {rows}")
        return int(found)

    def is_at_rest(self) -> bool:
        """Whether everything that has arrived is in the tables, and no run is under way."""
        unfinished = dg.RunsFilter(statuses=[status for status in dg.DagsterRunStatus if status not in FINISHED])
        return (
            self.count("dedp.devices_loads WHERE folded") == len(DAYS)
            and self.count("dedp.upload_files WHERE is_current") == len(CLIENTS)
            and all(map(self.is_counted, DAYS))
            and not self.instance.get_runs(unfinished)
        )

    def is_counted(self, day: str) -> bool:
        counts, devices = (str(self.home / "lake" / name) for name in ("device_counts", "devices"))
        return DeltaTable.is_deltatable(counts) and self.counts(day) == count_anew(devices, day)

    def counts(self, day: str) -> Any:
        return read_counts(str(self.home / "lake" / "device_counts"), day)

    @contextmanager
    def no_load_ends(self) -> Iterator[None]:
        """Loads of devices wait as long as the block lasts. Who reads the tables, as a backup does, does not."""
        with closing(self.connect()) as connection, connection, connection.cursor() as cursor:
            cursor.execute("LOCK TABLE dedp.devices_loads IN EXCLUSIVE MODE")
            yield

    def load_under_way(self, day: str) -> str | None:
        """The id of a run that loads the devices of a day at this moment."""
        for run in self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
            if contract.DEVICES_RAW in (run.asset_selection or ()) and day in run.tags.values():
                return run.run_id
        return None

    def failures(self, run_id: str | None) -> list[str | None]:
        """What the events say that say that a run has failed."""
        assert run_id
        records = self.instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.RUN_FAILURE).records
        return [record.event_log_entry.get_dagster_event().message for record in records]

    def backup(self, target: Path) -> "subprocess.Popen[str]":
        return subprocess.Popen([DEDP, "backup", str(target)], env=self._environment, stdout=subprocess.PIPE, text=True)

    def try_restore(self, source: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([DEDP, "restore", str(source)], env=self._environment, capture_output=True, text=True)


FINISHED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


@pytest.fixture
def systems() -> Iterator[tuple[Copied, Copied]]:
    """The original, and the one into which its backup is restored."""
    with temporary_home() as original, temporary_home() as restored:
        pair = Copied(original, DEDP_START="2999-01-01"), Copied(restored, DEDP_START="2999-01-01")
        yield pair
        for system in pair:
            system.down()


def test_what_is_restored_from_a_backup_during_loads_becomes_what_the_original_became(
    systems: tuple[Copied, Copied],
) -> None:
    original, restored = systems
    target = original.home.parent / "backup"
    original.home.mkdir()
    (original.home / "uploads.yaml").write_text("directories: [{directory: clients/*}]\n")
    original.up()
    for number, day in enumerate(DAYS[:-1]):
        original.drop_file(day, f"tv;Lux;{number}", "lamp;Orb;1", "bad line")
    for client in CLIENTS:
        original.upload(client, "1,axe,2", "2,saw,3")
    original.dedp("load-delta", *DAYS, "2024-01-04", "--rows", "20")
    original.wait_until(lambda: original.count("dedp.devices_loads"))

    killed = original.backup(target)
    wait_until((target.with_name("backup.part") / "postgres.dump").exists)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not target.exists()
    half = restored.try_restore(target.with_name("backup.part"))
    assert "it was not completed" in half.stderr
    with original.no_load_ends():
        original.drop_file(DAYS[-1], "tv;Lux;2", "lamp;Orb;1", "bad line")
        under_way = original.wait_until(lambda: original.load_under_way(DAYS[-1]))
        whole = original.backup(target)
        assert "is a backup" in whole.communicate()[0]
        assert whole.returncode == 0
    original.wait_until(original.is_at_rest)
    expected = original.query(FINAL)
    counts = {day: original.counts(day) for day in DAYS}
    original.down()

    restored.dedp("restore", str(target))
    restored.up()
    [failure] = restored.failures(under_way)
    assert "It was under way when the backup was made" in str(failure)
    loaded = dict(restored.query("SELECT load_id, loaded_at::text FROM dedp.devices_loads WHERE folded"))
    restored.wait_until(restored.is_at_rest)
    assert restored.query(FINAL) == expected
    assert {day: restored.counts(day) for day in DAYS} == counts
    # No load that was in the backup was made again, and no file has two entries in the ledger for the same content.
    again = dict(restored.query("SELECT load_id, loaded_at::text FROM dedp.devices_loads"))
    assert {load_id: again[load_id] for load_id in loaded} == loaded
    assert (
        restored.query(
            "SELECT client, file FROM dedp.upload_files WHERE state = 'loaded' GROUP BY client, file, sha256 "
            "HAVING count(*) > 1"
        )
        == []
    )

    # What was under way is no longer, and late data is followed.
    restored.dedp("load-delta", DAYS[0])
    restored.drop_file(DAYS[1], "phone;Nova;2")
    restored.upload(CLIENTS[0], "7,pin,1")
    restored.wait_until(
        lambda: (
            restored.query("SELECT type, full_name FROM dedp.devices_raw WHERE load_id = '20240102'")
            == [("phone", "Nova")]
        )
    )
    restored.wait_until(
        lambda: restored.query("SELECT id FROM dedp.upload_records WHERE client = 'client0'") == [("7",)]
    )
    restored.wait_until(restored.is_at_rest)
    assert restored.counts(DAYS[0]) != counts[DAYS[0]]
    assert contract.DEVICES_RAW in restored.instance.all_asset_keys()
