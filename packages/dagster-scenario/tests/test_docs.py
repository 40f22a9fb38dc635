"""The tutorial does what it says when its blocks are pasted; the reference has every verb and no other."""

import inspect
import os
import re
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import dagster_scenario
import pytest
from dagster_scenario import Scenario, Timeline
from dagster_scenario.dry_run import DryRun
from dagster_scenario.expectations import Requested
from dagster_scenario.expectations_by_name import CheckExpectation, JobExpectation, PartitionsExpectation
from dagster_scenario.expectations_of_assets import AssetExpectation
from dagster_scenario.expectations_of_runs import RunsExpectation
from dagster_scenario.expectations_of_ticks import ScheduleExpectation, SensorExpectation
from dagster_scenario.world.delta import Table
from dagster_scenario.world.files import Folder
from dagster_scenario.world.http import Endpoint
from dagster_scenario.world.postgres import PostgresServer

DOCS = Path(__file__).parents[1] / "docs"
TUTORIAL, REFERENCE, RECIPES = DOCS / "tutorial.md", DOCS / "reference.md", DOCS / "recipes.md"
README, CHANGELOG = DOCS.parent / "README.md", DOCS.parent / "CHANGELOG.md"

_BLOCK = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)

# What Dagster's storage and the scenario itself call.
_CALLED_BACK = frozenset(
    {"event_stored", "tick_stored", "run_added", "backfill_stored", "evaluations_stored", "partitions_stored"}
    | {"slot_claimed", "slots_changed"}
    | {"check_partitions", "check_asset_or_job", "freshness_of", "is_off", "switched_off", "is_down", "location_of_job"}
    | {"add", "number_requests", "open_backfills"}
)


@dataclass
class Step:
    """A pytest command of the tutorial, the files as they are by then, and the output that the tutorial shows."""

    command: str
    output: list[str]
    folder: Path

    def run(self, python: Path) -> subprocess.CompletedProcess[str]:
        _, *arguments = shlex.split(self.command)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "PYTHON", "DAGSTER"))}
        # -I: as the command `pytest` does, without the current folder on sys.path.
        return subprocess.run(
            [python, "-I", "-m", "pytest", "-p", "no:cacheprovider", *arguments],
            cwd=self.folder,
            env=kept,
            capture_output=True,
            text=True,
            check=False,
        )


def steps(folder: Path) -> list[Step]:
    """The tutorial's pytest commands, each with a folder of its own, as a reader has it who has come so far."""
    found: list[Step] = []
    pasted = folder / "shop"
    pasted.mkdir()
    for language, title, content in _BLOCK.findall(TUTORIAL.read_text(encoding="utf-8")):
        if title:
            (pasted / title).write_text(content, encoding="utf-8")
        elif language == "console" and content.startswith("$ pytest"):
            command, *output = content.splitlines()
            copy = folder / f"step {len(found) + 1}"
            shutil.copytree(pasted, copy)
            found.append(Step(command.removeprefix("$ "), output, copy))
    return found


@pytest.fixture(scope="module")
def played(
    tmp_path_factory: pytest.TempPathFactory, installed: Path
) -> list[tuple[Step, subprocess.CompletedProcess[str]]]:
    """Every step, two at a time, in an environment that has the wheel and what it asks for, and nothing else."""
    told = steps(tmp_path_factory.mktemp("tutorial"))
    with ThreadPoolExecutor(2) as pool:
        return list(zip(told, pool.map(lambda step: step.run(installed), told), strict=True))


def test_every_output_of_the_tutorial_is_what_a_reader_gets(
    played: list[tuple[Step, subprocess.CompletedProcess[str]]],
) -> None:
    for step, done in played:
        rest = [_without_duration(line) for line in done.stdout.splitlines()]
        for quoted in step.output:
            if quoted != "...":
                begin = _without_duration(quoted.removesuffix("..."))
                there = [position for position, line in enumerate(rest) if line.startswith(begin)]
                assert there, f"{step.command}: no line {begin!r} in\n{done.stdout}{done.stderr}"
                rest = rest[there[0] + 1 :]
        assert not [line for line in rest if re.match(r"\d+ (passed|failed)", line)], step.command


def test_the_tutorial_fails_where_it_says_so_and_ends_with_everything_passing(
    played: list[tuple[Step, subprocess.CompletedProcess[str]]],
) -> None:
    outcomes = [(step.output[-1].split(" in ")[0], done.returncode) for step, done in played]
    assert outcomes == [("1 passed", 0), ("2 passed", 0), ("1 failed", 1), ("1 failed, 1 passed", 1), ("5 passed", 0)]
    last, _ = played[-1]
    assert len(list((last.folder / "pages").iterdir())) == len(list(last.folder.glob("test_*.py"))) == 5


def test_the_story_of_the_readme_fails_on_the_tutorials_project_as_it_says(installed: Path, tmp_path: Path) -> None:
    for name in ("definitions.py", "conditions.py"):
        code = next(content for _, title, content in _BLOCK.findall(TUTORIAL.read_text("utf-8")) if title == name)
        (tmp_path / name).write_text(code, encoding="utf-8")
    story, failure = (content for _, _, content in _BLOCK.findall(README.read_text("utf-8"))[:2])
    (tmp_path / "test_readme.py").write_text(story, encoding="utf-8")
    done = Step("pytest test_readme.py", [], tmp_path).run(installed)
    said = _indented(done.stdout)
    assert [line for line in failure.splitlines() if f"E         {line.strip()}" not in said] == []


@pytest.mark.parametrize("document", [TUTORIAL, REFERENCE, RECIPES, README, CHANGELOG], ids=lambda path: path.name)
def test_links_and_images_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (document.parent / target).exists(), target
    for anchor in re.findall(rf"(?:{REFERENCE.name})?#([a-z-]+)\)", document.read_text(encoding="utf-8")):
        assert anchor in _anchors(REFERENCE), anchor


def test_the_reference_has_every_public_name() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    assert [name for name in dagster_scenario.__all__ if f"`{name}" not in text] == []
    told = set(re.findall(r"^### `scenario\.(\w+)", text, re.MULTILINE))
    assert set(public(Scenario)) - told == set()


@pytest.mark.parametrize(
    "owner",
    [
        AssetExpectation,
        Requested,
        SensorExpectation,
        ScheduleExpectation,
        JobExpectation,
        CheckExpectation,
        PartitionsExpectation,
        DryRun,
        RunsExpectation,
        Timeline,
        Folder,
        Endpoint,
        PostgresServer,
        Table,
    ],
)
def test_the_reference_has_every_method_of_what_a_scenario_gives(owner: type) -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    assert [name for name in public(owner) if not re.search(rf"`(\w+\.)?{name}\b", text)] == []


def test_the_reference_has_no_verb_that_is_not_there() -> None:
    for document in (TUTORIAL, REFERENCE, RECIPES, README):
        named = set(re.findall(r"\bscenario\.(\w+)", document.read_text(encoding="utf-8")))
        attributes = {"timeline", "clock", "instance", "every_tick"}
        assert named - set(public(Scenario)) - attributes == set(), document.name


def test_the_reference_gives_each_verb_its_own_signature() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    for heading, name, written in re.findall(r"^(### `scenario\.(\w+)(\(.*\))`)$", text, re.MULTILINE):
        parameters = list(inspect.signature(getattr(Scenario, name)).parameters.values())[1:]
        assert _names(written) == [parameter.name for parameter in parameters], heading


def public(owner: type) -> list[str]:
    """The methods and properties of a class that are for users."""
    return [name for name, _ in inspect.getmembers(owner) if not name.startswith("_") and name not in _CALLED_BACK]


def _names(signature: str) -> list[str]:
    """The parameters of a signature as the reference writes it."""
    return re.findall(r"(?:^\(|, )\*{0,2}(\w+)", signature.replace("*, ", ""))


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _indented(said: str) -> set[str]:
    """The lines of a failure, all with the same indent."""
    return {re.sub(r"^E +", "E         ", line).rstrip() for line in said.splitlines()}


def _without_duration(line: str) -> str:
    return re.sub(r" in [\d.]+s.*", "", line).rstrip()
