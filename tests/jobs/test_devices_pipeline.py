"""From a landed file to the totals, through Dagster: in this process, and by the commands that a person types."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets.generator import write_csv
from dedp_assets.isolated_sequencer import contract
from dedp_assets.isolated_sequencer.loader.landing import landing_folder
from dedp_assets.landing.dated import UNDATED
from dedp_assets.partition_runs import range_tags
from dedp_assets.resources import embedded_postgres
from jobs import devices_aggregator, devices_loader
from tests import forks
from tests.landing import put_file

DAYS = ["2024-01-01", "2024-01-02", "2024-01-03"]


class Pipeline:
    """Both code locations as they are deployed, on one instance and one database."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance

    def take_in(self, *days: str, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
        return self._materialize(devices_loader.defs, days, raise_on_error)

    def load(self, *days: str, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
        return self._materialize(devices_aggregator.defs, days, raise_on_error)

    def _materialize(
        self, defs: dg.Definitions, days: Sequence[str], raise_on_error: bool
    ) -> dg.ExecuteInProcessResult:
        return defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            partition_key=days[0] if len(days) == 1 else None,
            tags=range_tags(days),
            raise_on_error=raise_on_error,
        )

    def metadata_of(self, key: dg.AssetKey, day: str) -> dict[str, Any]:
        """The metadata of the latest materialization of one partition."""
        (record,) = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=key, asset_partitions=[day]), limit=1
        ).records
        assert record.asset_materialization
        return {name: value.value for name, value in record.asset_materialization.metadata.items()}

    def materialized(self, key: dg.AssetKey) -> list[str]:
        return sorted(self.instance.get_materialized_partitions(key))


@pytest.fixture
def pipeline(dsn: str, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    return Pipeline(instance)


def drop(path: Path, text: str | None = None) -> None:
    """Let a file land that is old: with the text, or with 50 devices."""
    put_file(path, text or "")
    if text is None:
        write_csv(path, 50, seed=1)
        os.utime(path, (0, 0))


def devices(*names: str) -> str:
    return "type;full_name;version\n" + "".join(f"phone;{name};v1\n" for name in names)


def ask(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    with connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def rows_per_load(connection: Connection) -> dict[str, int]:
    return dict(ask(connection, "SELECT load_id, count(*) FROM dedp.devices_raw GROUP BY load_id"))


def totals(connection: Connection) -> list[tuple[Any, ...]]:
    return ask(connection, "SELECT * FROM dedp.devices_aggregates ORDER BY type, full_name, version")


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    failure = event.step_failure_data.user_failure_data
    assert failure
    return failure.description or ""


def test_fifty_devices_on_three_days_are_150_rows_and_50_totals_of_three(
    pipeline: Pipeline, database: Connection
) -> None:
    drop(landing_folder().file_of(UNDATED))
    for day in DAYS:
        assert pipeline.take_in(day).success
        assert pipeline.load(day).success
    assert rows_per_load(database) == {"20240101": 50, "20240102": 50, "20240103": 50}
    assert len(totals(database)) == 50
    assert {row[-1] for row in totals(database)} == {3}


def test_a_range_of_days_as_one_run_gives_the_same(pipeline: Pipeline, database: Connection) -> None:
    drop(landing_folder().file_of(UNDATED))
    assert pipeline.take_in(*DAYS).success
    assert pipeline.load(*DAYS).success
    assert rows_per_load(database) == {"20240101": 50, "20240102": 50, "20240103": 50}
    assert {row[-1] for row in totals(database)} == {3}
    for key in (contract.DEVICES_FILE, contract.DEVICES_RAW, contract.DEVICES_AGGREGATES):
        assert pipeline.materialized(key) == DAYS


def test_doing_everything_again_changes_nothing(pipeline: Pipeline, database: Connection) -> None:
    drop(landing_folder().file_of(UNDATED))
    pipeline.take_in(*DAYS)
    pipeline.load(*DAYS)
    rows = ask(database, "SELECT * FROM dedp.devices_raw ORDER BY load_id, type, full_name, version")
    before = totals(database)
    for days in ([DAYS[1]], DAYS, [DAYS[0]]):
        assert pipeline.take_in(*days).success
        assert pipeline.load(*days).success
    assert ask(database, "SELECT * FROM dedp.devices_raw ORDER BY load_id, type, full_name, version") == rows
    assert totals(database) == before


def test_a_day_loaded_again_from_another_file_moves_only_its_own_share(
    pipeline: Pipeline, database: Connection
) -> None:
    for day in DAYS:
        drop(landing_folder().file_of(day), devices("a", "b"))
    pipeline.take_in(*DAYS)
    pipeline.load(*DAYS)
    drop(landing_folder().file_of(DAYS[1]), devices("b", "c"))
    pipeline.take_in(DAYS[1])
    pipeline.load(DAYS[1])
    assert [(row[1], row[-1]) for row in totals(database)] == [("a", 2), ("b", 3), ("c", 1)]


def test_a_load_tells_what_it_did(pipeline: Pipeline) -> None:
    drop(landing_folder().file_of(DAYS[0]), devices("a", "b") + "no device\nphone;;v1\n")
    pipeline.take_in(DAYS[0])
    pipeline.load(DAYS[0])

    taken_in = pipeline.metadata_of(contract.DEVICES_FILE, DAYS[0])
    assert taken_in["source"] == str(landing_folder().file_of(DAYS[0]))
    assert taken_in["path"] == str(contract.internal_file(DAYS[0]))
    assert taken_in["size_bytes"] == landing_folder().file_of(DAYS[0]).stat().st_size
    assert taken_in["dagster/partition_row_count"] == 4
    assert taken_in["seconds"] >= 0

    loaded = pipeline.metadata_of(contract.DEVICES_RAW, DAYS[0])
    assert (loaded["lines_read"], loaded["rows_loaded"], loaded["rows_quarantined"]) == (4, 2, 2)
    assert loaded["file_sha256"] == taken_in["sha256"]
    assert loaded["quarantine_reasons"] == {"missing field": 1, "missing value": 1}
    assert loaded["seconds"] >= 0
    assert sorted(loaded["preview"].splitlines()[2:]) == ["| phone | a | v1 |", "| phone | b | v1 |"]
    assert "no device" in loaded["quarantine_preview"]

    folded = pipeline.metadata_of(contract.DEVICES_AGGREGATES, DAYS[0])
    assert folded["devices_changed"] == 2
    assert folded["preview"].splitlines()[2:] == ["| phone | a | v1 | 1 |", "| phone | b | v1 | 1 |"]
    assert folded["seconds"] >= 0


def test_in_a_range_each_day_tells_of_its_own_load(pipeline: Pipeline) -> None:
    for number, day in enumerate(DAYS, start=1):
        drop(landing_folder().file_of(day), devices(*"abc"[:number]))
    pipeline.take_in(*DAYS)
    pipeline.load(*DAYS)
    for key, name in [(contract.DEVICES_FILE, "dagster/partition_row_count"), (contract.DEVICES_RAW, "rows_loaded")]:
        assert [pipeline.metadata_of(key, day)[name] for day in DAYS] == [1, 2, 3]


def test_a_day_without_a_file_fails_by_name_while_the_others_are_taken_in(pipeline: Pipeline) -> None:
    drop(landing_folder().file_of(DAYS[0]))
    drop(landing_folder().file_of(DAYS[2]))
    result = pipeline.take_in(*DAYS, raise_on_error=False)
    assert not result.success
    dated, undated = landing_folder().file_of(DAYS[1]), landing_folder().file_of(UNDATED)
    expected = f"expected a file at {dated}, or at {undated} for every day; found neither"
    assert f"partition {DAYS[1]}: {expected}" in failure_of(result)
    assert pipeline.materialized(contract.DEVICES_FILE) == [DAYS[0], DAYS[2]]


def test_a_bad_file_fails_by_name_while_the_others_are_loaded(pipeline: Pipeline, database: Connection) -> None:
    drop(landing_folder().file_of(UNDATED))
    drop(landing_folder().file_of(DAYS[1]), "type,full_name,version\nphone,a,v1\n")
    pipeline.take_in(*DAYS)
    result = pipeline.load(*DAYS, raise_on_error=False)
    assert not result.success
    named = f"{landing_folder().file_of(DAYS[1])} (copied to {contract.internal_file(DAYS[1])})"
    assert f"partition {DAYS[1]}: {named} is delimited by ','" in failure_of(result)
    assert rows_per_load(database) == {"20240101": 50, "20240103": 50}
    assert pipeline.materialized(contract.DEVICES_RAW) == [DAYS[0], DAYS[2]]


def test_a_bad_file_leaves_the_earlier_load_of_its_day(pipeline: Pipeline, database: Connection) -> None:
    drop(landing_folder().file_of(DAYS[0]))
    pipeline.take_in(DAYS[0])
    pipeline.load(DAYS[0])
    drop(landing_folder().file_of(DAYS[0]), "no header\n")
    pipeline.take_in(DAYS[0])
    assert not pipeline.load(DAYS[0], raise_on_error=False).success
    assert rows_per_load(database) == {"20240101": 50}


def test_every_run_checks_that_each_line_is_accounted_for_and_the_totals_balance(pipeline: Pipeline) -> None:
    drop(landing_folder().file_of(UNDATED), devices("a", "b") + "no device\n")
    pipeline.take_in(*DAYS)
    evaluations = {each.check_name: each for each in pipeline.load(*DAYS).get_asset_check_evaluations()}
    assert {name: each.passed for name, each in evaluations.items()} == {
        "lines_accounted_for": True,
        "totals_balance": True,
        "all_loads_accounted_for": True,
        "totals_equal_recount": True,
    }
    counts = {name: value.value for name, value in evaluations["lines_accounted_for"].metadata.items()}
    assert counts == {"loads": 3, "lines_read": 9, "rows_present": 6, "lines_quarantined": 3}


def test_rows_that_somebody_changed_by_hand_fail_the_checks(pipeline: Pipeline, database: Connection) -> None:
    drop(landing_folder().file_of(UNDATED))
    pipeline.take_in(*DAYS)
    pipeline.load(*DAYS)
    ask(database, "DELETE FROM dedp_loads.devices_raw_20240102 RETURNING 1")
    again = pipeline.load(DAYS[0])
    assert {each.check_name: each.passed for each in again.get_asset_check_evaluations()} == {
        "lines_accounted_for": True,
        "totals_balance": True,
        "all_loads_accounted_for": False,
        "totals_equal_recount": False,
    }


@pytest.fixture
def bare_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new home whose files the embedded server can reach. If we are root, it runs as another user."""
    with tempfile.TemporaryDirectory(prefix="dedp-tests-") as folder:
        home = Path(folder) / "home"
        Path(folder).chmod(0o755)
        monkeypatch.setenv("DEDP_HOME", str(home))
        yield home


def test_the_command_lines_work_with_nothing_started_and_leave_nothing_running(
    bare_home: Path, tmp_path: Path, left_running: Callable[[Path], list[str]]
) -> None:
    def materialize(module: str, selection: str, *partitions: str) -> None:
        said = tmp_path / "said"
        said.touch()
        command = ["dagster", "asset", "materialize", "-m", module, "--select", selection, *partitions]
        assert forks.start("dagster._cli:main", command, said, said, tmp_path).wait() == 0, said.read_text()
        assert left_running(bare_home) == []

    drop(landing_folder().file_of(UNDATED))
    materialize("jobs.devices_loader", "devices_file", "--partition", DAYS[0])
    materialize("jobs.devices_aggregator", "dedp/devices_raw*", "--partition", DAYS[0])
    rest = ("--partition-range", f"{DAYS[1]}...{DAYS[2]}")
    materialize("jobs.devices_loader", "devices_file", *rest)
    materialize("jobs.devices_aggregator", "dedp/devices_raw*", *rest)

    with (
        embedded_postgres.server_lease(bare_home / "postgres") as dsn,
        closing(psycopg2.connect(dsn)) as database,
    ):
        assert rows_per_load(database) == {"20240101": 50, "20240102": 50, "20240103": 50}
        assert len(totals(database)) == 50
        assert {row[-1] for row in totals(database)} == {3}
    assert left_running(bare_home) == []
