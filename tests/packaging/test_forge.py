"""What a public forge reads: the workflow, the issue forms and the hooks are valid, and call what exists."""

import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from dedp_assets import settings

ROOT = settings.REPOSITORY
FORGE = ROOT / ".github"
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def _read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", "workflows/*.yml"),
        ("custom.github-workflows-require-timeout", "workflows/*.yml"),
        ("vendor.github-issue-forms", "ISSUE_TEMPLATE/[!c]*.yml"),
        ("vendor.github-issue-config", "ISSUE_TEMPLATE/config.yml"),
        ("vendor.dependabot", "dependabot.yml"),
    ],
)
def test_each_file_is_as_its_published_schema_has_it(schema: str, files: str) -> None:
    found = sorted(map(str, FORGE.glob(files)))
    assert found
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *found]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflow_runs_make_targets_that_exist_and_nothing_else() -> None:
    commands = [
        step["run"]
        for job in _read(".github/workflows/ci.yml")["jobs"].values()
        for step in job["steps"]
        if "run" in step
    ]
    assert [command for command in commands if command.removeprefix("make ") not in TARGETS] == []


def test_the_workflow_runs_what_ci_runs_here() -> None:
    here = set(re.findall(r"^ *make (\S+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE))
    assert {"check", "test", "test-slow"} <= here
    workflow = (FORGE / "workflows" / "ci.yml").read_text()
    assert {target for target in here if f"run: make {target}\n" not in workflow} == set()


def test_the_workflow_names_each_action_by_its_commit() -> None:
    """Whoever takes over an action can move its tags."""
    used = re.findall(r"uses: (.*)", (FORGE / "workflows" / "ci.yml").read_text())
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[0-9.]+", action)] == []


def test_the_workflow_tests_each_python_with_the_lowest_and_the_latest_dagster() -> None:
    matrix = _read(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    assert {*matrix["dagster"], *(more["dagster"] for more in matrix["include"])} == {"lowest", "latest"}


def test_the_hooks_call_tools_that_are_pinned_here() -> None:
    pinned = {line.partition("==")[0] for line in (ROOT / "requirements-dev.txt").read_text().splitlines()}
    for repository in _read(".pre-commit-config.yaml")["repos"]:
        assert repository["repo"] == "local"
        for hook in repository["hooks"]:
            (tool,) = re.findall(r"\.venv/bin/(?:python -m )?(\S+)", hook["entry"])
            assert tool in pinned, hook["id"]
