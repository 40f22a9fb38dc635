"""`dedp load-delta`: a load is one commit to one partition, or no commit, even if others write at the same time."""

import json
import resource
import subprocess
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner
from deltalake import DeltaTable, write_deltalake

from dedp_assets.cli import dedp
from dedp_assets.late_data_integrator import contract, producer
from dedp_assets.resources.object_store import storage_options
from tests.dedp_command import DEDP, run_dedp

DAYS = [f"2024-01-0{number}" for number in range(1, 8)]
PHONE = {"type": "lg", "full_name": "LG G8 ThinQ", "version": "Android 10"}


def load_delta(*arguments: object) -> list[str]:
    """Run the command. Returns the lines that it printed."""
    done = CliRunner().invoke(dedp, ["load-delta", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def refused(*arguments: object) -> str:
    """Run the command. Returns its error."""
    done = CliRunner().invoke(dedp, ["load-delta", *map(str, arguments)])
    assert done.exit_code in (1, 2)
    assert done.stdout == ""
    return done.stderr.strip().splitlines()[-1]


def table() -> DeltaTable:
    uri = contract.uri(contract.DEVICES)
    return DeltaTable(uri, storage_options=storage_options(uri))


def rows(day: str | None = None) -> list[tuple[str, ...]]:
    """The devices of a day, or of all days."""
    found = table().to_pyarrow_table().to_pylist()
    return sorted(
        tuple(row[name] for name in producer.FIELDS) for row in found if day in (None, str(row["event_time"]))
    )


def log() -> list[list[str]]:
    """The kinds of the actions of each commit, in order."""
    commits = sorted((Path(contract.uri(contract.DEVICES)) / "_delta_log").iterdir())
    return [[next(iter(json.loads(line))) for line in commit.read_text().splitlines()] for commit in commits]


def other_table(columns: dict[str, list[object]], partition_by: list[str] | None) -> None:
    write_deltalake(contract.uri(contract.DEVICES), pa.table(columns), partition_by=partition_by)


def test_seven_loads_of_seven_days_are_seven_commits_seven_partitions_and_seven_files() -> None:
    printed = [line for day in DAYS for line in load_delta(day)]
    assert printed == [f"event_time={day}: 100 rows, version {version}" for version, day in enumerate(DAYS)]
    folder = Path(contract.uri(contract.DEVICES))
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    assert [name for name in found if (folder / name).is_dir()] == ["_delta_log"] + [
        f"event_time={day}" for day in DAYS
    ]
    files = [name for name in found if (folder / name).is_file()]
    assert files[:7] == [f"_delta_log/{version:020}.json" for version in range(7)]
    assert [name.rpartition("/")[0] for name in files[7:]] == [f"event_time={day}" for day in DAYS]
    assert all(name.endswith(".parquet") for name in files[7:])
    assert all(len(rows(day)) == 100 for day in DAYS)
    types = {field.name: field.type.type for field in table().schema().fields}
    assert types == {"type": "string", "full_name": "string", "version": "string", "event_time": "date"}


def test_late_data_of_a_day_are_other_devices_and_one_more_file_in_its_partition_only() -> None:
    load_delta("2024-01-02", "2024-01-03")
    on_time, other_day = rows("2024-01-02"), rows("2024-01-03")
    assert load_delta("2024-01-02", "--rows", 30) == ["event_time=2024-01-02: 30 rows, version 2"]
    late = Counter(rows("2024-01-02")) - Counter(on_time)
    assert late.total() == 30
    assert not set(late) <= set(on_time)
    assert rows("2024-01-03") == other_day
    assert log()[2] == ["commitInfo", "add"]


def test_the_same_loads_into_a_new_table_are_the_same_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = []
    for name in ("one", "other"):
        monkeypatch.setenv("DEDP_DATA_URI", str(tmp_path / name))
        load_delta("2024-01-02", "2024-01-03")
        load_delta("2024-01-02")
        found.append((rows("2024-01-02"), rows("2024-01-03")))
    assert found[0] == found[1]
    assert found[0][1] != found[0][0][:100]


def test_the_input_is_loaded_as_it_is_every_day_and_every_time(tmp_path: Path) -> None:
    folder = tmp_path / "input"
    folder.mkdir()
    (folder / "a.json").write_text(f"\ufeff{json.dumps(PHONE)}\r\n\n{json.dumps(PHONE)}", encoding="utf-8")
    (folder / "b.json").write_text('{"version": null, "full_name": "Gerät", "type": ""}\n', encoding="utf-8")
    for ignored in ("_SUCCESS", ".b.json.crc"):
        (folder / ignored).write_text("not JSON")
    (folder / "sub.json").mkdir()
    devices = [("", "Gerät", None), tuple(PHONE.values()), tuple(PHONE.values())]
    assert load_delta("2024-01-02", "2024-01-03", "--input", folder) == [
        "event_time=2024-01-02: 3 rows, version 0",
        "event_time=2024-01-03: 3 rows, version 1",
    ]
    load_delta("2024-01-03", "--input", folder / "b.json")
    assert rows("2024-01-02") == devices
    assert rows("2024-01-03") == sorted([*devices, devices[0]], key=str)


def test_what_the_generator_writes_can_be_loaded(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    configuration = pytestconfig.rootpath / "dedp_assets/generator/examples/devices_json.yaml"
    generated = CliRunner().invoke(dedp, ["generate", str(configuration), "--output-path", str(tmp_path), "-q"])
    assert generated.exit_code == 0
    load_delta("2024-01-02", "--input", tmp_path)
    written = [json.loads(line) for line in (tmp_path / "dataset.json").read_text().splitlines()]
    assert rows() == sorted(tuple(device.values()) for device in written)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{........", " is not JSON in UTF-8; expected a line such as"),
        (b'{"type": "\xff"}', " is not JSON in UTF-8"),
        (b'{"type": "lg", "full_name": "\\ud83d", "version": "1"}', " is not JSON in UTF-8"),
        (b"[" * 100_000, " is not JSON in UTF-8"),
        (b'["lg", "LG G8", "1"]', " has no object; expected type, full_name, version"),
        (b"{}", " has no fields; expected type, full_name, version"),
        (b'{"type": "lg", "name": "LG G8"}', " has the fields type, name; expected type, full_name, version"),
        (b'{"type": "lg", "full_name": "LG G8", "version": 10}', ": version is 10; expected a text, or null"),
    ],
)
def test_a_line_that_is_no_device_is_named_before_anything_is_written(
    tmp_path: Path, line: bytes, problem: str
) -> None:
    path = tmp_path / "dataset.json"
    path.write_bytes(json.dumps(PHONE).encode() + b"\n" + line + b"\n")
    assert f"{path}:2{problem}" in refused("2024-01-02", "2024-01-03", "--input", path)
    assert not Path(contract.uri(contract.DEVICES)).exists()


def test_an_input_without_devices_is_refused(tmp_path: Path) -> None:
    assert f"{tmp_path / 'nothing'} can't be read: No such file" in refused(
        "2024-01-02", "--input", tmp_path / "nothing"
    )
    assert f"{tmp_path} has no devices; expected lines such as" in refused("2024-01-02", "--input", tmp_path)
    assert "--rows is only for generated devices" in refused("2024-01-02", "--input", tmp_path, "--rows", 5)
    assert not Path(contract.uri(contract.DEVICES)).exists()


@pytest.mark.parametrize(
    "day", ["2024-02-30", "2024-1-2", "20240102", "2024-W01-2", "2024-01-02T00:00:00", "", "monday"]
)
def test_a_day_that_is_none_is_named_before_anything_is_written(day: str) -> None:
    assert refused("2024-01-02", day) == f"Error: {day!r} is not a day; expected one such as 2024-01-02"
    assert not Path(contract.uri(contract.DEVICES)).exists()


def test_a_table_keeps_the_type_of_its_partition_column() -> None:
    load_delta("2024-01-02", "--typed", "string")
    load_delta("2024-01-03")
    assert table().schema().fields[-1].type.type == "string"
    assert [len(rows(day)) for day in ("2024-01-02", "2024-01-03")] == [100, 100]
    assert refused("2024-01-03", "--typed", "date").endswith("devices has event_time as string; expected date")
    assert table().version() == 1


DEVICE = {name: [value] for name, value in PHONE.items()}
OTHER_TABLES = {
    "not partitioned": (
        {**DEVICE, "event_time": ["2024-01-02"]},
        None,
        "is partitioned by nothing; expected a table partitioned by event_time",
    ),
    "partitioned by more": (
        {**DEVICE, "event_time": ["2024-01-02"]},
        ["event_time", "type"],
        "is partitioned by event_time, type; expected",
    ),
    "another type of day": (
        {**DEVICE, "event_time": pa.array([date(2024, 1, 2)]).cast(pa.timestamp("us", "UTC"))},
        ["event_time"],
        "has event_time as timestamp; expected date or string",
    ),
    "other columns": (
        {**DEVICE, "version": [10], "event_time": ["2024-01-02"], "place": ["here"]},
        ["event_time"],
        "has the columns type string, full_name string, version long, event_time string, place string; expected type",
    ),
}


@pytest.mark.parametrize(("columns", "partition_by", "problem"), OTHER_TABLES.values(), ids=list(OTHER_TABLES))
def test_a_table_that_is_another_one_is_left_alone(
    columns: dict[str, list[object]], partition_by: list[str] | None, problem: str
) -> None:
    other_table(columns, partition_by)
    assert f"{contract.uri(contract.DEVICES)} {problem}" in refused("2024-01-02")
    assert table().version() == 0


@pytest.mark.slow
def test_four_producers_at_once_all_land_and_the_table_stays_one() -> None:
    started = [
        subprocess.Popen([DEDP, "load-delta", *DAYS[:2]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(4)
    ]
    printed = [line for process in started for line in process.communicate()[0].splitlines()]
    assert [process.returncode for process in started] == [0] * 4, printed
    # Each knows which version is its own.
    assert sorted(int(line.rpartition(" ")[2]) for line in printed) == list(range(8))
    assert table().version() == 7
    assert [len(rows(day)) for day in DAYS[:2]] == [400] * 2
    # Its identity, by which readers know it, is given once.
    assert [actions.count("metaData") for actions in log()] == [1] + [0] * 7


@pytest.mark.parametrize("attempt", range(5))
def test_of_four_that_find_no_table_one_makes_it_and_the_others_append_to_it(attempt: int) -> None:
    none_there = threading.Barrier(4)

    def source(day: date, commits: int) -> list[producer.Device]:
        if commits == 0:
            none_there.wait(300)
        return list(producer.generated(10)(day, commits))

    with ThreadPoolExecutor(4) as threads:
        day, uri = date(2024, 1, 2), contract.uri(contract.DEVICES)
        loads = [threads.submit(producer.load, uri, day, source) for _ in range(4)]
    assert sorted(load.result().version for load in loads) == [0, 1, 2, 3]
    assert len(rows("2024-01-02")) == 40
    assert [actions.count("metaData") for actions in log()] == [1, 0, 0, 0]


def test_a_commit_that_somebody_makes_meanwhile_is_kept() -> None:
    uri, theirs, ours = contract.uri(contract.DEVICES), producer.generated(1), producer.generated(2)
    load_delta("2024-01-02")

    def source(day: date, commits: int) -> list[producer.Device]:
        producer.load(uri, day, theirs)
        return list(ours(day, commits))

    assert producer.load(uri, date(2024, 1, 2), source).version == 2
    assert len(rows("2024-01-02")) == 103


def test_a_load_that_cannot_be_written_leaves_the_table_as_it_was() -> None:
    load_delta("2024-01-02")
    before = rows()
    # A disk that is full, as far as this process can tell.
    done = subprocess.run(
        [DEDP, "load-delta", "2024-01-02"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert f"Error: {contract.uri(contract.DEVICES)}: 2024-01-02 can't be appended: " in done.stderr
    assert "File too large" in done.stderr
    assert (table().version(), rows()) == (0, before)
    assert load_delta("2024-01-02") == ["event_time=2024-01-02: 100 rows, version 1"]


def test_a_table_in_an_object_store_is_made_and_appended_to(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDP_DATA_URI", f"{s3_bucket}/lake")
    assert load_delta("2024-01-01", "2024-01-02") == [
        "event_time=2024-01-01: 100 rows, version 0",
        "event_time=2024-01-02: 100 rows, version 1",
    ]
    assert len(rows("2024-01-02")) == 100
    monkeypatch.setenv("DEDP_DATA_URI", "s3://nowhere/lake")
    assert refused("2024-01-02").endswith("NoSuchBucket: The specified bucket does not exist")


def test_a_store_that_is_not_supported_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDP_DATA_URI", "hdfs://host/lake")
    done = run_dedp("load-delta", "2024-01-02")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: DEDP_DATA_URI begins with hdfs://; expected a folder, s3://")
    assert done.stderr.count("\n") == 1


def test_a_table_with_a_gap_in_its_log_is_an_error_of_one_line_that_names_the_file() -> None:
    for _ in range(3):
        load_delta(DAYS[0])
    uri = contract.uri(contract.DEVICES)
    missing = Path(uri) / "_delta_log" / f"{1:020}.json"
    missing.unlink()
    assert f"{uri}: its log has a gap: commit 1 is missing" in refused(DAYS[0])
    assert f"Put back {missing} from a backup" in refused(DAYS[0])
