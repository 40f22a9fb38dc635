"""The configuration accepts the settings of the original, and reports each mistake with its line."""

from pathlib import Path
from typing import Any, Protocol

import pytest

import dedp_assets.generator
from dedp_assets.generator import ConfigError, GeneratorConfig, load_config

VALID = """\
dataset:
  rows: 1000
  composition_percentage:
    duplicates: 25
    missing_fields: 0
    unprocessable_rows: 0
data_blocker:
  type: sleep
  configuration:
    sleep_time_range_seconds:
      from: 2
      to: 6
entity:
  type: device
generator:
  type: fixed-times
  configuration:
    all_runs: 5
writer:
  type: json
  configuration:
    output_path: /data/input
    clean_path: true
  partitions: ['2024-01-01', 'date=2024-01-02']
"""

EXAMPLES = Path(dedp_assets.generator.__file__).parent / "examples"


class Load(Protocol):
    """Reads a text as a configuration file; `options` are those of load_config."""

    def __call__(self, text: str, **options: Any) -> GeneratorConfig: ...


class Problems(Protocol):
    """Reads a text that is not a valid configuration; returns the lines of its error, without the folder's name."""

    def __call__(self, text: str, **options: Any) -> list[str]: ...


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_text(text: str, **options: Any) -> GeneratorConfig:
        path = tmp_path / "CONFIG.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(path, **options)

    return load_text


@pytest.fixture
def problems(load: Load, tmp_path: Path) -> Problems:
    def problems_of(text: str, **options: Any) -> list[str]:
        with pytest.raises(ConfigError) as refused:
            load(text, **options)
        return str(refused.value).replace(f"{tmp_path}/", "").splitlines()

    return problems_of


def test_the_original_settings_are_understood(load: Load) -> None:
    config = load(VALID)
    assert config.dataset.counts().duplicates == 250
    assert config.data_blocker.configuration
    assert config.data_blocker.configuration.sleep_time_range_seconds.to == 6
    assert config.generator.runs == 5
    assert config.writer.configuration.output_path == Path("/data/input")
    assert config.writer.partitions == ["2024-01-01", "date=2024-01-02"]
    assert config.rows_in_all == 1000 * 5 * 2


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_valid(example: Path) -> None:
    assert load_config(example).rows_in_all


def test_an_unknown_setting_is_named_with_its_line(problems: Problems) -> None:
    assert problems(VALID.replace("missing_fields", "mising_fields")) == [
        "CONFIG.yaml:5: dataset.composition_percentage.mising_fields: unknown setting; did you mean "
        "missing_fields? known here: duplicates, missing_fields, unprocessable_rows, late_rows_percentage"
    ]


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        (
            "rows: 1000",
            "rows: many",
            "2: dataset.rows: expected a whole number of rows, 1 or more, found 'many'",
        ),
        ("rows: 1000", "rows: 0", "2: dataset.rows: expected a whole number of rows, 1 or more, found 0"),
        (
            "rows: 1000",
            "rows: true",
            "2: dataset.rows: expected a whole number of rows, 1 or more, found true",
        ),
        ("rows: 1000", "rows: 1.5", "2: dataset.rows: expected a whole number of rows, 1 or more, found 1.5"),
        (
            "duplicates: 25",
            "duplicates: 125",
            "4: dataset.composition_percentage.duplicates: expected a number between 0 and 100, found 125",
        ),
        (
            "duplicates: 25",
            "duplicates: .nan",
            "4: dataset.composition_percentage.duplicates: expected a plain number, found nan",
        ),
        (
            "missing_fields: 0",
            "missing_fields: 80",
            "3: dataset.composition_percentage: expected percentages that add up to at most 100, found 105 in all",
        ),
        (
            "missing_fields: 0",
            "missing_fields: 75",
            "1: dataset: expected percentages that can be generated, but the percentages leave no clean row "
            "to copy the duplicates from; make them add up to less than 100",
        ),
        (
            "      to: 6",
            "      to: 1",
            "12: data_blocker.configuration.sleep_time_range_seconds.to: expected a number of seconds that "
            "is at least from (2), found 1",
        ),
        (
            "type: device",
            "type: visit",
            "14: entity.type: expected device (the only entity generated here; user and visit are not "
            "supported), found 'visit'",
        ),
        (
            "type: json",
            "type: kafka",
            "20: writer.type: expected csv or json (the only formats written here; kafka and postgresql are "
            "not supported), found 'kafka'",
        ),
        (
            "all_runs: 5",
            "all_runs: -1",
            "18: generator.configuration.all_runs: expected a whole number of generation loops, 1 or more, found -1",
        ),
        (
            "type: fixed-times",
            "type: one-shot",
            "17: generator.configuration: expected nothing, because only type fixed-times has it and the "
            "type is one-shot; remove it",
        ),
        (
            "clean_path: true",
            "clean_path: 'true'",
            "23: writer.configuration.clean_path: expected true or false, found 'true'",
        ),
        (
            "output_path: /data/input",
            "output_path: ''",
            "22: writer.configuration.output_path: expected the path of a folder, found ''",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_its_line(problems: Problems, right: str, wrong: str, problem: str) -> None:
    assert problems(VALID.replace(right, wrong)) == [f"CONFIG.yaml:{problem}"]


def test_every_problem_is_listed_in_the_order_of_the_file(problems: Problems) -> None:
    text = VALID.replace("rows: 1000", "rows: x").replace("entity", "entiti").replace("all_runs", "runs")
    named = [problem.split(": ")[:2] for problem in problems(text)]
    assert named == [
        ["CONFIG.yaml:1", "entity"],
        ["CONFIG.yaml:2", "dataset.rows"],
        ["CONFIG.yaml:13", "entiti"],
        ["CONFIG.yaml:17", "generator.configuration.all_runs"],
        ["CONFIG.yaml:18", "generator.configuration.runs"],
    ]


def test_a_missing_setting_is_named_with_the_line_of_its_section(problems: Problems) -> None:
    assert problems(VALID.replace("  rows: 1000\n", "")) == [
        "CONFIG.yaml:1: dataset.rows: expected a whole number of rows, 1 or more, found nothing; add this setting"
    ]


def test_fixed_times_needs_the_number_of_runs(problems: Problems) -> None:
    (problem,) = problems(VALID.replace("  configuration:\n    all_runs: 5\n", ""))
    assert problem.startswith("CONFIG.yaml:15: generator.configuration: expected {all_runs: 5}")


@pytest.mark.parametrize("partition", ["../up", "/root", "", "a//b", "a/./b", "2024-01-01/"])
def test_a_partition_stays_inside_the_output_path(problems: Problems, partition: str) -> None:
    text = VALID.replace("['2024-01-01', 'date=2024-01-02']", f"\n    - '2024-01-01'\n    - '{partition}'")
    (problem,) = problems(text)
    assert problem.startswith("CONFIG.yaml:26: writer.partitions.1: expected the name of a sub-folder")


def test_a_partition_is_listed_once(problems: Problems) -> None:
    (problem,) = problems(VALID.replace("date=2024-01-02", "2024-01-01"))
    assert problem.endswith("expected every partition once, found '2024-01-01' more than once")


def test_an_unquoted_date_is_the_name_of_a_partition(load: Load) -> None:
    config = load(VALID.replace("'2024-01-01'", "2024-01-01"))
    assert config.writer.partitions == ["2024-01-01", "date=2024-01-02"]


@pytest.mark.parametrize("no", ["'no'", "no", "none", "null", "", "false"])
def test_no_data_blocker_can_be_written_in_the_original_ways(load: Load, no: str) -> None:
    before, after = VALID.split("data_blocker:")[0], "entity:" + VALID.split("entity:")[1]
    assert load(f"{before}data_blocker:\n  type: {no}\n{after}").data_blocker.type == "none"
    assert load(before + after).data_blocker.type == "none"


def test_late_rows_are_accepted_in_both_places_but_not_in_two(load: Load, problems: Problems) -> None:
    inside = VALID.replace("duplicates: 25", "late_rows_percentage: 5")
    assert load(inside).dataset.counts().late_rows == 50
    beside = VALID.replace("rows: 1000", "rows: 1000\n  late_rows_percentage: 5")
    assert load(beside).dataset.counts().late_rows == 50
    (problem,) = problems(beside.replace("duplicates: 25", "late_rows_percentage: 5"))
    assert problem.startswith("CONFIG.yaml:3: dataset.late_rows_percentage: expected it once")


def test_a_composition_with_every_line_commented_out_is_all_clean(load: Load) -> None:
    text = VALID.replace("    duplicates: 25\n    missing_fields: 0\n    unprocessable_rows: 0\n", "")
    assert load(text).dataset.counts().clean == 1000


def test_environment_variables_in_the_output_path_are_expanded(load: Load, problems: Problems) -> None:
    text = VALID.replace("/data/input", "${DEDP_LANDING}/devices")
    assert load(text, environment={"DEDP_LANDING": "/landing"}).writer.configuration.output_path == Path(
        "/landing/devices"
    )
    for unset in ({}, {"DEDP_LANDING": ""}):
        (problem,) = problems(text, environment=unset)
        assert problem.startswith("CONFIG.yaml:22: writer.configuration.output_path: ")
        assert "DEDP_LANDING is not set" in problem


def test_another_output_path_can_be_given(load: Load) -> None:
    config = load(VALID.replace("/data/input", "$UNSET/x"), output_path="elsewhere", environment={})
    assert config.writer.configuration.output_path == Path("elsewhere")


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("dataset:\n  rows: [1\nentity: x\n", "CONFIG.yaml:3: this is not YAML"),
        ("dataset:\n\trows: 1\n", "CONFIG.yaml:2: this is not YAML"),
        ("dataset:\n  rows: !!python/object:x 1\n", "CONFIG.yaml:2: this is not YAML"),
        ("dataset:\n  rows: 1\n  rows: 2\n", "CONFIG.yaml:3: rows is given twice, first on line 2"),
        ("dataset: &loop\n  rows: *loop\n", "CONFIG.yaml:1: this value contains itself"),
        ("dataset:\n  rows: \x01\n", "CONFIG.yaml:2: this is not YAML"),
        ("a: 1\n---\nb: 1\n", "CONFIG.yaml:2: this is not YAML"),
        ("", "CONFIG.yaml:1: the configuration: expected settings (dataset, data_blocker, entity, "),
        ("- 1\n", "CONFIG.yaml:1: the configuration: expected settings (dataset, "),
        ("[" * 5000, "CONFIG.yaml:1: the settings are nested too deeply"),
    ],
)
def test_text_that_is_not_settings_is_named_with_its_line(problems: Problems, text: str, start: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith(start)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml: the configuration cannot be read: No such file"):
        load_config(tmp_path / "missing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"dataset:\n  rows: \xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml:2: this is not UTF-8"):
        load_config(tmp_path / "latin.yaml")
