"""Which directories are watched, and how: `uploads.yaml`, read anew at each tick.

Without such a file, each directory below `$DEDP_LANDING/clients` is a client's, and is watched for CSV and
for JSON lines.
"""

import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from glob import escape, glob, has_magic
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from dedp_assets.client_uploads.contract import COLUMNS
from dedp_assets.delimited.format import Column, Format
from dedp_assets.errors import PermanentError
from dedp_assets.generator.yaml_lines import YamlProblem, read_yaml
from dedp_assets.landing.arrivals import MAX_FILES_PER_RUN, MAX_RUNS
from dedp_assets.landing.directories import NOTHING, Completeness, Directory, ObjectFolder, Scan, Scanner, is_text
from dedp_assets.resources.object_store import is_object_store, problem_of_uri
from dedp_assets.wording import shown_name

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

# Dagster refuses them in the key of a partition, and three dots are how a range of partitions is written.
_NOT_IN_A_CLIENT = re.compile(r"[\x00-\x1f\x7f/]|\.\.\.")
_LONGEST_CLIENT = 120


class SettingsProblem(PermanentError):
    """The settings file can't be used. The message names each wrong setting with its line."""


def _seconds(value: Any) -> Any:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    return float(match[1]) * _SECONDS[match[2]] if match else value


_Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]


class Rule(BaseModel):
    """One entry of `directories`: a directory, or a glob of directories, and how they are watched.

    Attributes:
        directory: A path, absolute or below the landing folder. With `*`, `?` or `[...]` it stands for all directories
            that match, also those that are made later. Or the URI of a prefix in an object store, without wildcards.
        client: The client's name. By default the name of the directory, or the part that the first wildcard stands for.
        patterns: Names of the files to take.
        completeness: `settled` (seen unchanged for `settle`), `marker`, or `renamed`.
        settle: How long a file must have been seen unchanged: seconds, or a text such as `30s`, `5m`, `2h`, `7d`.
        marker: `_SUCCESS` for all files of a directory, or `{file}.done` for each.
        priority: Files of a higher priority are taken first.
        timeout: Report a directory in which nothing has arrived for so long.
        after_timeout: `watch` it on, or `give up`.
        delimiter: Of CSV files.
        columns: Which column of the file fills `id`, `name` and `value`.
        target: `uploads/records` loads the files; `uploads/received` only copies them and writes the ledger.
    """

    model_config = ConfigDict(extra="forbid", strict=False)

    directory: str
    client: str | None = None
    patterns: list[str] = Field(default=["*.csv", "*.json"], min_length=1)
    completeness: Completeness = "settled"
    settle: _Seconds | None = None
    marker: str = "_SUCCESS"
    priority: int = Field(default=0, ge=-1000, le=1000)
    timeout: _Seconds | None = None
    after_timeout: Literal["watch", "give up"] = "watch"
    delimiter: str = ","
    columns: dict[Literal["id", "name", "value"], str] = Field(default_factory=dict)
    target: Literal["uploads/records", "uploads/received"] = "uploads/records"

    @model_validator(mode="after")
    def _check(self) -> "Rule":
        if is_object_store(self.directory):
            problem = problem_of_uri(self.directory)
            if problem or has_magic(self.directory):
                raise ValueError(problem or f"{self.directory} has a wildcard; expected the URI of one directory")
        if self.client is not None:
            if has_magic(self.directory):
                raise ValueError("a client's name belongs to one directory; expected a directory without wildcards")
            problem = problem_of_client(self.client)
            if problem:
                raise ValueError(f"the client {self.client!r} {problem}")
        if self.marker.count("{file}") > 1 or "/" in self.marker or not self.marker.replace("{file}", ""):
            raise ValueError(f"the marker is {self.marker!r}; expected a file name, such as _SUCCESS or {{file}}.done")
        self.format()
        return self

    def format(self) -> Format:
        """What the CSV files look like. Raises ValueError for a delimiter or columns that can't be."""
        return Format(self.delimiter, tuple(Column(self.columns.get(name, name)) for name in COLUMNS))  # type: ignore[call-overload]


class QuarantineLimits(BaseModel):
    """When too many lines are in quarantine.

    Attributes:
        share: An incident begins above this share of the lines, from 0 to 1, and ends at half of it.
        lines: Fewer lines begin no incident: of three lines, one is a third.
        window: How far back lines count: seconds, or a text such as `5m`, `2h` or `1d`.
    """

    model_config = ConfigDict(extra="forbid")

    share: float = Field(default=0.2, gt=0, lt=1)
    lines: int = Field(default=100, ge=1)
    window: _Seconds = 3600.0


class UploadSettings(BaseModel):
    """The whole file.

    Attributes:
        directories: Which directories are watched, and how.
        max_runs: How many runs of the sensor may be queued or under way at once.
        max_files_per_run: How many files a run may take.
    """

    model_config = ConfigDict(extra="forbid")

    directories: list[Rule] = Field(min_length=1)
    quarantine: QuarantineLimits = QuarantineLimits()
    max_runs: int = Field(default=MAX_RUNS, ge=1, le=100)
    max_files_per_run: int = Field(default=MAX_FILES_PER_RUN, ge=1, le=1000)


DEFAULT = UploadSettings(directories=[Rule(directory="clients/*")])


def read_settings(text: str, name: str) -> UploadSettings:
    """Read the text of a settings file.

    Args:
        text: YAML.
        name: What to call the file in messages.

    Raises:
        SettingsProblem: The text is not usable. One line for each problem: `uploads.yaml:12: ...`.
    """
    try:
        yaml = read_yaml(text)
    except YamlProblem as problem:
        raise SettingsProblem(f"{name}:{problem.line}: {problem.problem}") from None
    try:
        return UploadSettings.model_validate(yaml.data)
    except ValidationError as error:
        lines = []
        for each in error.errors():
            place = tuple(part for part in each["loc"] if part != "[key]")
            setting = ".".join(map(str, place)) or "the file"
            said = str(each["ctx"]["error"]) if each["type"] == "value_error" else each["msg"]
            if each["type"] == "extra_forbidden":
                said = f"unknown setting; known here: {', '.join(_known_at(place))}"
            lines.append((yaml.line_of(place), f"{setting}: {said}"))
        raise SettingsProblem("\n".join(f"{name}:{line}: {said}" for line, said in sorted(lines))) from None


def _known_at(place: tuple[int | str, ...]) -> Iterable[str]:
    """The settings that may stand where an unknown one does."""
    if len(place) == 1:
        return UploadSettings.model_fields
    return (QuarantineLimits if place[0] == "quarantine" else Rule).model_fields


def problem_of_client(client: str) -> str:
    """Why a directory's name can't be the name of a client, in words, or ""."""
    if not client.strip() or len(client) > _LONGEST_CLIENT:
        return f"has {len(client)} characters; expected 1 to {_LONGEST_CLIENT}"
    if client in (".", ".."):
        return "is no name of a folder"
    if not is_text(client):
        return "is not UTF-8"
    return "has a control character, a slash or three dots in it" if _NOT_IN_A_CLIENT.search(client) else ""


@dataclass(frozen=True)
class Client:
    """A client: the directory that is watched, and how its files are read."""

    directory: Directory
    format: Format
    target: str


@dataclass
class Clients:
    """The clients that the settings name now, what is wrong with some directories, and the limits of the runs."""

    by_name: dict[str, Client] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    max_runs: int = MAX_RUNS
    max_files_per_run: int = MAX_FILES_PER_RUN

    @cached_property
    def directories(self) -> list[Directory]:
        """The directories of all clients."""
        return [client.directory for client in self.by_name.values()]


class ClientFinder:
    """Finds the directories that match the settings. Keep one: it looks again only where something has changed.

    Args:
        settle_seconds: How long a file must have been seen unchanged where the settings do not say it, in s.
    """

    def __init__(self, settle_seconds: float) -> None:
        self._settle_seconds = settle_seconds
        self._answers = Scanner(_answer)
        self._made: dict[tuple[str, str, str], Client] = {}
        self._last: tuple[UploadSettings, Path, _Stamps, Clients] | None = None

    def find(self, settings: UploadSettings, landing: Path) -> Clients:
        """The clients whose directories are there, and those that are named one by one.

        Args:
            settings: The rules, of which the first that names a client counts.
            landing: Where relative paths begin.
        """
        if self._last is not None:
            *asked, stamps, found = self._last
            if asked == [settings, landing] and stamps is not None and stamps == _stamps(settings, landing):
                return found
        stamps = _stamps(settings, landing)
        found = self._find(settings, landing)
        self._last = settings, landing, stamps, found
        return found

    def _find(self, settings: UploadSettings, landing: Path) -> Clients:
        found = Clients(max_runs=settings.max_runs, max_files_per_run=settings.max_files_per_run)
        made = {}
        for rule in settings.directories:
            rule_key = rule.model_dump_json()
            try:
                directories = list(_directories(rule, landing, self._answers, found.problems))
            except OSError as error:
                found.problems.append(f"{error.filename} can't be read: {error.strerror}")
                continue
            for name, path in directories:
                problem = problem_of_client(name) or ("" if is_text(path) else "is not UTF-8")
                if problem:
                    found.problems.append(f"{shown_name(path)} is not watched: its name {problem}")
                    continue
                key = rule_key, name, path
                client = made[key] = self._made.get(key) or self._client(rule, name, path)
                other = found.by_name.setdefault(name, client)
                if other.directory.path != client.directory.path:
                    found.problems.append(
                        f"{path} is not watched: the client {name} has the directory {other.directory.path} already; "
                        "give one of them another name with `client:`"
                    )
        self._made = made
        return found

    def _client(self, rule: Rule, name: str, path: str) -> Client:
        settle_seconds = self._settle_seconds if rule.settle is None else rule.settle
        directory = Directory(
            client=name,
            path=ObjectFolder(path) if is_object_store(path) else Path(path),
            patterns=tuple(rule.patterns),
            completeness=rule.completeness,
            settle_seconds=settle_seconds,
            marker=rule.marker,
            priority=rule.priority,
            timeout_seconds=rule.timeout,
            gives_up=rule.after_timeout == "give up",
        )
        return Client(directory, rule.format(), rule.target)


# When each folder was changed last in which directories are looked for, in ns since the epoch; None if they have to be
# looked for in any case.
_Stamps = tuple[tuple[str, int], ...] | None

# A folder that changed a moment ago may change again within the same tick of the file system's clock.
_SETTLED_NS = 2_000_000_000


def _stamps(settings: UploadSettings, landing: Path) -> _Stamps:
    stamps = []
    for rule in settings.directories:
        above, last = os.path.split(_pattern(rule, landing))
        if has_magic(above):
            return None
        if has_magic(last):
            try:
                changed = os.stat(above).st_mtime_ns
            except OSError:
                return None
            if not time.time_ns() - changed > _SETTLED_NS:
                return None
            stamps.append((above, changed))
    return tuple(stamps)


def _pattern(rule: Rule, landing: Path) -> str:
    if is_object_store(rule.directory):
        return rule.directory.rstrip("/")
    if os.path.isabs(rule.directory) or not has_magic(rule.directory):
        return os.path.normpath(landing / rule.directory)
    return os.path.normpath(os.path.join(escape(str(landing)), rule.directory))


def _directories(rule: Rule, landing: Path, answers: Scanner, problems: list[str]) -> Iterator[tuple[str, str]]:
    """The client and the path of each directory that a rule stands for. Adds to `problems` where nobody can tell."""
    pattern = _pattern(rule, landing)
    if not has_magic(rule.directory):
        yield rule.client or os.path.basename(pattern), pattern
        return
    above, last = os.path.split(pattern)
    # The client is what the first wildcard stands for, counted from the end.
    wild = [has_magic(part) for part in os.path.normpath(rule.directory).split(os.sep)]
    named_by = wild.index(True) - len(wild)
    folders = sorted(glob(above)) if has_magic(above) else [above]
    scans = {}
    if has_magic(above):
        # Each may be a mount that hangs, and so would we, if we looked into it ourselves.
        asked = (Path(folder) if has_magic(last) else Path(folder, last) for folder in folders)
        scans = answers.scan_all(Directory(folder, path) for folder, path in zip(folders, asked, strict=True))
    for folder in folders:
        silent = scans.get(folder, NOTHING).failure
        if silent and has_magic(last):
            problems.append(silent)
            continue
        # A folder whose name is known is watched also if it does not answer: so the sensor says that it is failing.
        for path in [os.path.join(folder, last)] if silent else _subfolders(folder, last):
            yield path.split(os.sep)[named_by], path


def _answer(folder: Directory) -> Scan:
    """Ask a folder for a sign of life. A scanner leaves it behind if there is none."""
    os.path.isdir(str(folder.path))
    return NOTHING


def _subfolders(folder: str, last: str) -> Iterable[str]:
    if not has_magic(last):
        path = os.path.join(folder, last)
        return [path] if os.path.isdir(path) else []
    try:
        with os.scandir(folder) as entries:
            # Not one by one: to ask for 10,000 directories takes longer than to scan them.
            names = [each.name for each in entries if fnmatchcase(each.name, last) and each.is_dir()]
    except FileNotFoundError:
        return []
    return [os.path.join(folder, name) for name in sorted(names) if not name.startswith(".")]
