"""The configuration of a dataset. It is checked as a whole, and each problem is reported with its line."""

import difflib
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from .errors import ConfigError
from .lines import Format
from .rows import RowCounts, row_counts
from .yaml_lines import Place, YamlProblem, YamlSettings, read_yaml

_VARIABLE = re.compile(r"\$(?:\{([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"expected a plain number, found {value}")
    return value


Percentage = Annotated[float, BeforeValidator(_finite), Field(ge=0, le=100, description="a number between 0 and 100")]
Seconds = Annotated[float, BeforeValidator(_finite), Field(ge=0, description="a number of seconds, 0 or more")]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _an_empty_setting_is_left_out(cls, data: Any) -> Any:
        # `composition_percentage:` may have all its lines commented out. It then counts as left out. That does not
        # apply to a type: `type: null` is a value, which is accepted or refused.
        if not isinstance(data, dict):
            return data
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return {
            name: value for name, value in data.items() if value is not None or name == "type" or name not in optional
        }


class CompositionPercentage(_Settings):
    """Percentages (0 to 100) of the rows of a loop that are not plain clean rows."""

    duplicates: Percentage = 0
    missing_fields: Percentage = 0
    unprocessable_rows: Percentage = 0
    late_rows_percentage: Percentage = 0

    @model_validator(mode="after")
    def _leaves_enough(self) -> "CompositionPercentage":
        total = sum(
            Fraction(str(share))
            for share in (
                self.duplicates,
                self.missing_fields,
                self.unprocessable_rows,
                self.late_rows_percentage,
            )
        )
        if total > 100:
            raise ValueError(f"expected percentages that add up to at most 100, found {float(total):g} in all")
        return self


class Dataset(_Settings):
    """How many rows of each kind a generation loop writes."""

    rows: int = Field(ge=1, description="a whole number of rows, 1 or more")
    composition_percentage: CompositionPercentage = Field(
        default_factory=CompositionPercentage,
        description="the percentages, one setting a line (duplicates, missing_fields, unprocessable_rows, "
        "late_rows_percentage)",
    )
    late_rows_percentage: Percentage = 0

    @field_validator("late_rows_percentage")
    @classmethod
    def _given_once(cls, late: float, info: ValidationInfo) -> float:
        composition = info.data.get("composition_percentage")
        if composition is not None and "late_rows_percentage" in composition.model_fields_set:
            raise ValueError("expected it once, found it under composition_percentage as well; keep one of the two")
        return late

    @model_validator(mode="after")
    def _can_be_generated(self) -> "Dataset":
        try:
            self.counts()
        except ValueError as error:
            raise ValueError(f"expected percentages that can be generated, but {error}") from error
        return self

    def counts(self) -> RowCounts:
        """The exact number of rows of each kind in one generation loop."""
        composition = self.composition_percentage
        return row_counts(
            self.rows,
            duplicates=composition.duplicates,
            missing_fields=composition.missing_fields,
            unprocessable_rows=composition.unprocessable_rows,
            late_rows=composition.late_rows_percentage or self.late_rows_percentage,
        )


class SecondsRange(_Settings):
    """A pause of at least ``from`` and at most ``to`` seconds."""

    from_: Seconds = Field(alias="from")
    to: Seconds

    @field_validator("to")
    @classmethod
    def _not_below_from(cls, to: float, info: ValidationInfo) -> float:
        at_least = info.data.get("from_", 0)
        if to < at_least:
            raise ValueError(f"expected a number of seconds that is at least from ({at_least:g}), found {to:g}")
        return to


class SleepConfiguration(_Settings):
    """How long to pause between two generation loops."""

    sleep_time_range_seconds: SecondsRange = Field(description="a range of seconds, {from: 2, to: 6}")


def _bare_no(value: Any) -> Any:
    return "none" if value is None or value is False or value == "no" else value


class DataBlocker(_Settings):
    """The pause between two generation loops, if any."""

    type: Annotated[Literal["none", "sleep"], BeforeValidator(_bare_no)] = Field(
        default="none", description="none (or no) or sleep"
    )
    configuration: SleepConfiguration | None = Field(
        default=None,
        validate_default=True,
        description="{sleep_time_range_seconds: {from: 2, to: 6}}",
    )

    @field_validator("configuration")
    @classmethod
    def _only_for_sleep(
        cls, configuration: SleepConfiguration | None, info: ValidationInfo
    ) -> SleepConfiguration | None:
        _belongs_to("sleep", configuration, info, "{sleep_time_range_seconds: {from: 2, to: 6}}")
        return configuration


class Entity(_Settings):
    """What a row is about."""

    type: Literal["device"] = Field(
        description="device (the only entity generated here; user and visit are not supported)"
    )


class FixedTimes(_Settings):
    """How many generation loops to run."""

    all_runs: int = Field(ge=1, description="a whole number of generation loops, 1 or more")


class GenerationLoops(_Settings):
    """How often the rows are generated."""

    type: Literal["one-shot", "fixed-times", "continuous"] = Field(description="one-shot, fixed-times or continuous")
    configuration: FixedTimes | None = Field(default=None, validate_default=True, description="{all_runs: 5}")

    @field_validator("configuration")
    @classmethod
    def _only_for_fixed_times(cls, configuration: FixedTimes | None, info: ValidationInfo) -> FixedTimes | None:
        _belongs_to("fixed-times", configuration, info, "{all_runs: 5}")
        return configuration

    @property
    def runs(self) -> int | None:
        """How many times each file gets its rows, or None if there is no end."""
        if self.type == "continuous":
            return None
        return self.configuration.all_runs if self.configuration else 1


class WriterConfiguration(_Settings):
    """Where the dataset goes."""

    output_path: Path = Field(description="the path of a folder")
    clean_path: bool = Field(default=False, description="true or false")

    @field_validator("output_path", mode="before")
    @classmethod
    def _expanded(cls, value: Any, info: ValidationInfo) -> Any:
        context = info.context or {}
        if context.get("output_path") is not None:
            return Path(context["output_path"])
        if isinstance(value, Path):
            return value
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise ValueError(f"expected the path of a folder, found {_shown(value)}")
        return Path(os.path.expanduser(_expand_variables(value, context.get("environment", os.environ))))


def _sub_folder(name: str) -> str:
    plain = "\0" not in name and "\\" not in name
    if not plain or any(not part.strip() or part in (".", "..") for part in name.split("/")):
        raise ValueError(f"expected {_SUB_FOLDER}, found {name!r}")
    return name


_SUB_FOLDER = "the name of a sub-folder of output_path, in quotes, such as '2024-01-01' or 'date=2024-01-01'"
SubFolder = Annotated[str, AfterValidator(_sub_folder)]


class Writer(_Settings):
    """The format, the folder and its partitions."""

    type: Format = Field(
        description="csv or json (the only formats written here; kafka and postgresql are not supported)"
    )
    configuration: WriterConfiguration = Field(description="{output_path: FOLDER, clean_path: true or false}")
    partitions: list[SubFolder] | None = Field(
        default=None, description="a list of sub-folder names, ['2024-01-01', '2024-01-02']"
    )

    @field_validator("partitions")
    @classmethod
    def _each_once(cls, partitions: list[str] | None) -> list[str] | None:
        if partitions is None:
            return None
        if not partitions:
            raise ValueError("expected at least one sub-folder name, found an empty list; leave it out for none")
        repeated = [partition for partition, times in Counter(partitions).items() if times > 1]
        if repeated:
            raise ValueError(f"expected every partition once, found {repeated[0]!r} more than once")
        return partitions


class GeneratorConfig(_Settings):
    """A checked configuration of one dataset: its rows, kinds, loops and files."""

    dataset: Dataset = Field(description="the dataset's settings (rows, composition_percentage)")
    data_blocker: DataBlocker = Field(default_factory=DataBlocker, description="{type: none} or {type: sleep, ...}")
    entity: Entity = Field(description="{type: device}")
    generator: GenerationLoops = Field(description="{type: one-shot}, or another type")
    writer: Writer = Field(description="the writer's settings (type, configuration, partitions)")

    @property
    def rows_in_all(self) -> int | None:
        """How many rows a run writes in all loops and partitions, or None if there is no end."""
        runs = self.generator.runs
        return None if runs is None else runs * len(self.writer.partitions or [""]) * self.dataset.rows


def load_config(
    path: str | Path,
    *,
    output_path: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> GeneratorConfig:
    """Read and check a YAML configuration file.

    In its output_path, $NAME and ${NAME} are replaced from ``environment``, and ~ is the user's folder. A relative path
    stays relative to the current folder.

    Args:
        path: the path of the file.
        output_path: used instead of writer.configuration.output_path, if given.
        environment: the environment variables; by default those of this process.

    Raises:
        ConfigError: the file cannot be read, or has problems. Each of these is one line:
            ``FILE:LINE: setting: expected ..., found ...``.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: the configuration cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: this is not UTF-8 text; save the file as UTF-8") from error
    try:
        settings = read_yaml(text)
    except YamlProblem as problem:
        raise ConfigError(f"{path}:{problem.line}: {problem.problem}") from problem
    context = {
        "output_path": output_path,
        "environment": os.environ if environment is None else environment,
    }
    try:
        return GeneratorConfig.model_validate(settings.data, context=context)
    except ValidationError as error:
        raise ConfigError(_problems(str(path), settings, error.errors())) from error


def _belongs_to(owner: str, configuration: BaseModel | None, info: ValidationInfo, example: str) -> None:
    chosen = info.data.get("type")
    if chosen == owner and configuration is None:
        raise ValueError(f"expected {example}, which type {owner} needs, found nothing")
    if chosen is not None and chosen != owner and configuration is not None:
        raise ValueError(f"expected nothing, because only type {owner} has it and the type is {chosen}; remove it")


def _expand_variables(text: str, environment: Mapping[str, str]) -> str:
    def value_of(match: re.Match[str]) -> str:
        name = match[1] or match[2] or ""
        # Refuse an empty variable, too: $EMPTY/data would become /data.
        if not environment.get(name):
            raise ValueError(
                f"expected a folder, found {text!r}, but the environment variable {name or match[0]} is not "
                "set; set it, or write the path out"
            )
        return environment[name]

    return _VARIABLE.sub(value_of, text)


def _problems(path: str, settings: YamlSettings, errors: list[ErrorDetails]) -> str:
    wrong_types = {error["loc"][:-1] for error in errors if error["loc"] and error["loc"][-1] == "type"}
    found: set[tuple[int, str]] = set()
    for error in errors:
        place = error["loc"]
        # If a type is wrong, the settings beside it are probably right for the type that was intended.
        if any(place[: len(section)] == section and place[-1] != "type" for section in wrong_types):
            continue
        name = ".".join(str(part) for part in place) or "the configuration"
        found.add((settings.line_of(place), f"{name}: {_problem(error)}"))
    return "\n".join(f"{path}:{line}: {problem}" for line, problem in sorted(found))


def _problem(error: ErrorDetails) -> str:
    place = error["loc"]
    if error["type"] == "extra_forbidden":
        return _unknown_setting(str(place[-1]), _settings_at(place[:-1]))
    if error["type"] == "value_error":
        return str(error["ctx"]["error"]) if "ctx" in error else error["msg"]
    expected = _expected(place)
    if error["type"] == "missing":
        return f"expected {expected}, found nothing; add this setting"
    return f"expected {expected}, found {_shown(error['input'])}"


def _unknown_setting(name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"unknown setting; {hint}known here: {', '.join(names)}"


def _settings_at(place: Place) -> list[str]:
    model = _model_at(place)
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _expected(place: Place) -> str:
    if place and isinstance(place[-1], int):
        return _SUB_FOLDER
    model = _model_at(place[:-1]) if place else None
    if model is None:
        return f"settings ({', '.join(GeneratorConfig.model_fields)})"
    for name, field in model.model_fields.items():
        if (field.alias or name) == place[-1]:
            return field.description or "another value"
    return "another value"


_SECTIONS: dict[Place, type[BaseModel]] = {
    (): GeneratorConfig,
    ("dataset",): Dataset,
    ("dataset", "composition_percentage"): CompositionPercentage,
    ("data_blocker",): DataBlocker,
    ("data_blocker", "configuration"): SleepConfiguration,
    ("data_blocker", "configuration", "sleep_time_range_seconds"): SecondsRange,
    ("entity",): Entity,
    ("generator",): GenerationLoops,
    ("generator", "configuration"): FixedTimes,
    ("writer",): Writer,
    ("writer", "configuration"): WriterConfiguration,
}


def _model_at(place: Place) -> type[BaseModel] | None:
    return _SECTIONS.get(place)


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "settings" if value else "empty settings"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
