"""A hint of where something has changed: it changes the order of the scan, and nothing that is decided."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedp_assets.errors import TransientError
from dedp_assets.landing.arrivals import Arrival, Known, in_scan_order
from dedp_assets.landing.directories import Completeness, Directory, ObjectFolder, Scan, Scanner
from dedp_assets.landing.versions import FileVersion
from sensors.directories import DirectoryPipeline, DirectoryTick, Watched, directory_sensor

Hint = Callable[[], Collection[Path | ObjectFolder]]

KEY = dg.AssetKey("uploads")
CLIENTS = dg.DynamicPartitionsDefinition(name="clients")
JOB = dg.define_asset_job("workflow", dg.AssetSelection.assets(KEY))


@dg.asset(key=KEY, partitions_def=CLIENTS)
def taken() -> None: ...


class NothingKnown:
    """A ledger in which no file is."""

    def known_files(self, asked: Mapping[str, Sequence[str]]) -> Mapping[str, Mapping[str, Known]]:
        return {}

    def confirm_versions(self, same: Sequence[tuple[str, str, FileVersion]]) -> None: ...

    def report(self, tick: DirectoryTick) -> None: ...


class ShortOfTime(Scanner):
    """Its budget is over after some directories."""

    def __init__(self, reaches: int) -> None:
        super().__init__()
        self.reaches = reaches
        self.reached: list[list[str]] = []

    def scan_all(self, directories: Iterable[Directory], *args: Any, **options: Any) -> dict[str, Scan]:
        within = list(directories)[: self.reaches]
        self.reached.append([directory.client for directory in within])
        return super().scan_all(within, *args, **options)


class Watching:
    """A sensor over 20 directories, of which each has one file that is complete at first sight."""

    def __init__(
        self,
        landing: Path,
        instance: dg.DagsterInstance,
        reaches: int,
        first: Hint | None,
        completeness: Completeness = "renamed",
    ) -> None:
        self.scanner = ShortOfTime(reaches)
        self.problems: list[str] = []
        directories = [
            Directory(f"client{number:02}", landing / f"client{number:02}", completeness=completeness)
            for number in range(20)
        ]
        for directory in directories:
            assert isinstance(directory.path, Path)
            directory.path.mkdir(parents=True, exist_ok=True)
            (directory.path / "orders.csv").write_text("id\n1\n")
        self._instance, self._cursor = instance, ""
        self._sensor = directory_sensor(
            "arrived",
            DirectoryPipeline(
                targets=[KEY],
                partitions=CLIENTS,
                watched=lambda: Watched(directories, self.problems),
                ledger=self._ledger,
                run_config=self._run_config,
                files_of=lambda run: (),
                workflow=JOB,
                check="check",
                notify=lambda context, silent: None,
            ),
            description="",
            scanner=self.scanner,
            first=first,
        )
        self._defs = dg.Definitions(assets=[taken], jobs=[JOB], sensors=[self._sensor])

    @contextmanager
    def _ledger(self, context: dg.SensorEvaluationContext) -> Iterator[NothingKnown]:
        yield NothingKnown()

    def _run_config(self, files: Sequence[tuple[Arrival, str]]) -> dg.RunConfig:
        self._asked += [arrival.directory.client for arrival, _ in files]
        return dg.RunConfig()

    def tick(self) -> tuple[list[str], str]:
        """The clients whose files are asked for, and the message."""
        self._asked: list[str] = []
        context = dg.build_sensor_context(self._instance, cursor=self._cursor, definitions=self._defs)
        # As a function: `evaluate_tick` can't look up a partition that has been added in the same tick.
        result = self._sensor(context)
        assert isinstance(result, dg.SensorResult)
        self._cursor = result.cursor or ""
        return sorted(self._asked), str(
            result.skip_reason.skip_message
            if isinstance(result.skip_reason, dg.SkipReason)
            else result.skip_reason or ""
        )


def test_what_is_named_is_scanned_within_the_time_that_there_is(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    named = {tmp_path / "client13", tmp_path / "client07", tmp_path / "nobody"}
    with_hint = Watching(tmp_path, instance, reaches=2, first=lambda: named)
    assert with_hint.tick()[0] == ["client07", "client13"]
    without = Watching(tmp_path, instance, reaches=2, first=None)
    assert without.tick()[0] == ["client00", "client01"]


def test_with_time_for_all_the_same_is_asked_for_with_and_without_a_hint(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    without = Watching(tmp_path, instance, reaches=20, first=None)
    with_hint = Watching(tmp_path, instance, reaches=20, first=lambda: {tmp_path / "client13"})
    assert with_hint.tick() == without.tick()
    assert with_hint.scanner.reached[0][0] == "client13"
    assert with_hint.tick() == without.tick()


def test_a_hint_that_always_names_the_same_keeps_nobody_out(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    stubborn = Watching(tmp_path, instance, reaches=2, first=lambda: {tmp_path / "client01", tmp_path / "client02"})
    asked = set()
    for _ in range(80):
        asked.update(stubborn.tick()[0])
    assert len(asked) == 20


def test_a_hint_that_fails_is_noted_and_the_tick_goes_on(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    def broken() -> Collection[Path | ObjectFolder]:
        raise TransientError("the watcher does not answer")

    watching = Watching(tmp_path, instance, reaches=20, first=broken)
    assert len(watching.tick()[0]) == 20
    assert watching.tick()[1].startswith("error: the watcher does not answer")


def test_a_file_that_is_renamed_into_a_known_directory_is_asked_for_by_the_first_tick_that_sees_it(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    watching = Watching(tmp_path, instance, reaches=20, first=None, completeness="settled")
    assert watching.tick()[0] == []
    (tmp_path / "draft").write_text("id\n2\n")
    (tmp_path / "draft").rename(tmp_path / "client07" / "orders.csv")
    (tmp_path / "client08" / "orders.csv").write_text("id\n2\n")
    assert watching.tick()[0] == ["client07"]


@given(
    number=st.integers(0, 12),
    named=st.sets(st.integers(0, 15)),
    turn=st.integers(0, 10_000),
)
def test_the_order_holds_each_directory_once_and_those_that_are_named_first(
    number: int, named: set[int], turn: int
) -> None:
    directories = [Directory(str(each), Path(str(each))) for each in range(number)]
    order = in_scan_order(directories, {Path(str(each)) for each in named}, turn)
    assert sorted(order, key=lambda each: each.client) == sorted(directories, key=lambda each: each.client)
    are_named = [int(each.client) in named for each in order]
    if turn % 4 != 3:
        assert are_named == sorted(are_named, reverse=True)


@pytest.mark.parametrize("number", [1, 2, 7, 100, 1000])
def test_each_directory_is_once_the_first_of_a_turn_without_a_hint(number: int) -> None:
    directories = [Directory(str(each), Path(str(each))) for each in range(number)]
    firsts = {in_scan_order(directories, {Path("0")}, turn)[0].client for turn in range(3, 4 * number + 4, 4)}
    assert len(firsts) == number


def test_settings_that_are_wrong_are_an_error_in_each_tick(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    watching = Watching(tmp_path, instance, reaches=20, first=None)
    watching.problems = ["uploads.yaml:3: no such option"]
    watching.tick()
    for _ in range(2):
        assert watching.tick()[1].startswith("error: uploads.yaml:3: no such option")
