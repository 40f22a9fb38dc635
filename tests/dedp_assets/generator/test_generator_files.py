"""The files are complete or do not exist, have one header, and are cleaned without touching other files."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dedp_assets.cli import dedp
from dedp_assets.generator import GeneratorConfig, OutputError, generate, write_csv
from dedp_assets.generator.cli import generate as generate_command
from dedp_assets.local_stack import react_to_interrupts

EXAMPLES = Path(generate.__globals__["__file__"]).parent / "examples"


def config_for(
    folder: Path,
    *,
    rows: int = 20,
    clean: bool = False,
    kind: str = "csv",
    loops: dict[str, Any] | None = None,
    partitions: list[str] | None = None,
    blocker: dict[str, Any] | None = None,
) -> GeneratorConfig:
    return GeneratorConfig.model_validate(
        {
            "dataset": {"rows": rows},
            "data_blocker": blocker,
            "entity": {"type": "device"},
            "generator": loops or {"type": "one-shot"},
            "writer": {
                "type": kind,
                "configuration": {"output_path": str(folder), "clean_path": clean},
                "partitions": partitions,
            },
        }
    )


def three_times() -> dict[str, Any]:
    return {"type": "fixed-times", "configuration": {"all_runs": 3}}


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_a_csv_file_has_one_header_and_a_line_per_row(tmp_path: Path) -> None:
    (path,) = generate(config_for(tmp_path / "out"))
    assert path == tmp_path / "out" / "dataset.csv"
    lines = lines_of(path)
    assert lines[0] == "type;full_name;version"
    assert len(lines) == 21
    assert names_in(tmp_path) == ["out/dataset.csv"]


def test_every_partition_gets_its_own_file_with_its_own_rows(tmp_path: Path) -> None:
    paths = generate(config_for(tmp_path, kind="json", partitions=["2024-01-01", "year=2024/month=01"]), seed=1)
    assert paths == [
        tmp_path / "2024-01-01" / "dataset.json",
        tmp_path / "year=2024" / "month=01" / "dataset.json",
    ]
    assert [len(lines_of(path)) for path in paths] == [20, 20]
    assert lines_of(paths[0]) != lines_of(paths[1])


def test_further_loops_add_their_rows_under_one_header(tmp_path: Path) -> None:
    (path,) = generate(config_for(tmp_path, loops=three_times()))
    lines = lines_of(path)
    assert len(lines) == 1 + 3 * 20
    assert lines.count("type;full_name;version") == 1


def test_a_second_run_adds_to_the_file_unless_the_path_is_cleaned(tmp_path: Path) -> None:
    generate(config_for(tmp_path))
    (path,) = generate(config_for(tmp_path))
    assert len(lines_of(path)) == 41
    generate(config_for(tmp_path, clean=True))
    assert len(lines_of(path)) == 21


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    (first,) = generate(config_for(tmp_path / "a", loops=three_times()), seed=5)
    (second,) = generate(config_for(tmp_path / "b", loops=three_times()), seed=5)
    (third,) = generate(config_for(tmp_path / "c", loops=three_times()), seed=6)
    assert first.read_bytes() == second.read_bytes() != third.read_bytes()


def test_a_partition_has_the_same_rows_whatever_the_others_are(tmp_path: Path) -> None:
    *_, among_others = generate(config_for(tmp_path / "a", partitions=["x", "y"]), seed=5)
    (alone,) = generate(config_for(tmp_path / "b", partitions=["y"]), seed=5)
    assert among_others.read_bytes() == alone.read_bytes()


def test_the_pauses_come_between_loops_and_last_as_configured(tmp_path: Path) -> None:
    pauses: list[float] = []
    blocker = {"type": "sleep", "configuration": {"sleep_time_range_seconds": {"from": 2, "to": 6}}}
    config = config_for(tmp_path, loops=three_times(), partitions=["a", "b"], blocker=blocker)
    generate(config, pause=pauses.append)
    assert len(pauses) == 5
    assert all(2 <= seconds <= 6 for seconds in pauses)


def test_progress_tells_every_row(tmp_path: Path) -> None:
    told: list[int] = []
    generate(config_for(tmp_path, rows=25_000, partitions=["a", "b"]), progress=told.append)
    assert sum(told) == 50_000
    assert len(told) > 2


def test_a_loop_that_is_stopped_leaves_the_file_of_the_loops_before(tmp_path: Path) -> None:
    def stop_in_the_third_loop(rows: int) -> None:
        done.append(rows)
        if len(done) == 3:
            raise KeyboardInterrupt

    done: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        generate(config_for(tmp_path, loops={"type": "continuous"}), progress=stop_in_the_third_loop)
    assert names_in(tmp_path) == ["dataset.csv"]
    assert len(lines_of(tmp_path / "dataset.csv")) == 1 + 2 * 20


def test_the_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    seen = []
    generate(config_for(tmp_path, rows=25_000), progress=lambda rows: seen.append(names_in(tmp_path)))
    assert len(seen) == 3
    assert all(len(names) == 1 and names[0].startswith(".dataset.csv.") for names in seen)
    assert names_in(tmp_path) == ["dataset.csv"]


def wait_for(condition: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def start_generate(*arguments: str | Path) -> subprocess.Popen[str]:
    command = "from dedp_assets.generator.cli import generate; generate()"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    return subprocess.Popen(
        [sys.executable, "-c", command, *map(str, arguments)],
        env=environment,
        # A background job of a script ignores Ctrl-C, and this process would inherit that.
        preexec_fn=react_to_interrupts,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def yaml_config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_kill_in_the_middle_of_writing_leaves_no_dataset_and_can_be_cleaned(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    process = start_generate(
        yaml_config(
            tmp_path,
            "{dataset: {rows: 100000000}, entity: {type: device}, generator: {type: one-shot}, "
            f"writer: {{type: csv, configuration: {{output_path: '{folder}'}}}}}}",
        ),
        "--quiet",
    )
    try:
        wait_for(lambda: any(path.stat().st_size for path in folder.glob(".dataset.csv.*.part")))
    finally:
        process.kill()
        process.communicate()
    assert not (folder / "dataset.csv").exists()

    generate(config_for(folder, clean=True))
    assert names_in(folder) == ["dataset.csv"]


def test_ctrl_c_stops_a_continuous_run_with_whole_loops_and_exit_code_130(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    process = start_generate(
        yaml_config(
            tmp_path,
            "{dataset: {rows: 1000}, entity: {type: device}, generator: {type: continuous}, "
            f"writer: {{type: csv, configuration: {{output_path: '{folder}'}}}}}}",
        )
    )
    try:
        wait_for((folder / "dataset.csv").exists)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Stopped" in errors
    assert "Traceback" not in errors
    assert names_in(folder) == ["dataset.csv"]
    assert (len(lines_of(folder / "dataset.csv")) - 1) % 1000 == 0


def test_cleaning_deletes_the_datasets_of_earlier_runs_and_nothing_else(tmp_path: Path) -> None:
    generate(config_for(tmp_path))
    generate(config_for(tmp_path, kind="json"))
    generate(config_for(tmp_path, partitions=["2024-01-01"]))
    for name in ("notes.txt", "dataset.csv.bak", ".hidden"):
        (tmp_path / name).write_text("mine", encoding="utf-8")
    generate(config_for(tmp_path, rows=5, clean=True))
    assert names_in(tmp_path) == [".hidden", "2024-01-01/dataset.csv", "dataset.csv", "dataset.csv.bak", "notes.txt"]
    assert len(lines_of(tmp_path / "dataset.csv")) == 6


def test_only_the_listed_partitions_are_cleaned(tmp_path: Path) -> None:
    generate(config_for(tmp_path, partitions=["a", "b"]))
    generate(config_for(tmp_path, rows=5, partitions=["b"], clean=True))
    assert len(lines_of(tmp_path / "a" / "dataset.csv")) == 21
    assert len(lines_of(tmp_path / "b" / "dataset.csv")) == 6


def test_rows_are_not_added_to_a_file_of_someone_else(tmp_path: Path) -> None:
    for content in ("id,name\n1,x\n", "type;full_name;version\nlg;G2x;And"):
        (tmp_path / "dataset.csv").write_text(content, encoding="utf-8")
        with pytest.raises(OutputError, match="was not written by the generator"):
            generate(config_for(tmp_path))
        assert (tmp_path / "dataset.csv").read_text(encoding="utf-8") == content


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/out: the dataset cannot be written here: Not a directory"):
        generate(config_for(tmp_path / "file" / "out"))


def test_write_csv_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "devices.csv"
    for rows in (30, 10):
        assert write_csv(path, rows, seed=1, duplicates=50) == path
    lines = lines_of(path)[1:]
    assert len(lines) == 10
    assert len(set(lines)) == 5


def test_the_command_lists_the_files_and_takes_another_output_path(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        generate_command,
        [str(EXAMPLES / "devices_daily.yaml"), "--seed", "1", "--output-path", str(tmp_path), "--quiet"],
    )
    assert result.exit_code == 0
    assert result.stdout.split() == [str(tmp_path / f"2024-01-0{day}" / "dataset.csv") for day in (1, 2, 3)]
    assert result.stderr == ""


def test_the_command_shows_progress_on_stderr(tmp_path: Path) -> None:
    arguments = [str(EXAMPLES / "devices_50.yaml"), "--output-path", str(tmp_path)]
    result = CliRunner().invoke(generate_command, arguments)
    assert "50.0/50.0" in result.stderr
    assert "rows" not in result.stdout


def test_the_command_explains_what_is_wrong_and_fails(tmp_path: Path) -> None:
    config = yaml_config(tmp_path, "dataset:\n  rowz: 5\n")
    result = CliRunner().invoke(dedp, ["generate", str(config)])
    assert result.exit_code == 1
    assert f"{config}:2: dataset.rowz: unknown setting; did you mean rows?" in result.stderr
