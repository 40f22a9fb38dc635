"""Code locations, from wherever they come, and what is said of one that can't be played."""

import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster_scenario import Scenario, ScenarioError

from dedp_assets import settings

DEFINITIONS = """
import dagster as dg

@dg.asset
def {name}() -> None: ...

defs = dg.Definitions(assets=[{name}])
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in list(sys.modules):
        if name.startswith("company_"):
            del sys.modules[name]


def write(package: Path, name: str, text: str) -> str:
    (package / f"{name}.py").write_text(text, encoding="utf-8")
    return name


@dg.asset
def here() -> None: ...


def test_locations_come_from_workspace_files_modules_and_objects_at_once(scenario: Scenario, package: Path) -> None:
    write(package, "company_a", DEFINITIONS.format(name="a"))
    write(package, "company_b", DEFINITIONS.format(name="b"))
    (package / "company_c.py").write_text(DEFINITIONS.format(name="c"), encoding="utf-8")
    workspace = package / "workspace.yaml"
    workspace.write_text(
        "load_from:\n"
        "  - python_module: company_a\n"
        "  - python_file: {relative_path: company_c.py, location_name: sea}\n",
        encoding="utf-8",
    )
    scenario.load(workspace, "company_b", dg.Definitions(assets=[here]), named=dg.Definitions())
    scenario.materialize("a")
    for asset in ("b", "c", "here"):
        scenario.materialize(asset)
    scenario.run_until_quiet()
    assert {run.location for run in scenario.timeline.runs.values()} == {"company_a", "company_b", "sea", "location_4"}
    scenario.expect_runs().none_failed()


def test_the_projects_own_workspace_loads(scenario: Scenario) -> None:
    scenario.load(settings.REPOSITORY / "workspace.yaml")
    scenario.expect("devices_file").not_materialized()
    scenario.expect("dedp/devices_raw").not_materialized()


def test_a_location_can_be_replaced_by_new_code(scenario: Scenario) -> None:
    @dg.asset(name="here")
    def slower() -> None:
        raise RuntimeError("the new code")

    scenario.load(company=dg.Definitions(assets=[here]))
    scenario.materialize("here")
    scenario.run_until_quiet()
    scenario.load(company=dg.Definitions(assets=[slower]))
    scenario.materialize("here")
    scenario.run_until_quiet()
    assert [run.status for run in scenario.timeline.runs.values()] == ["succeeded", "failed"]
    scenario.expect("here").failed(error="the new code")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("import company_nothing", "No module named 'company_nothing'"),
        ("x = 1", "No Definitions, RepositoryDefinition, Job, Pipeline, Graph, or AssetsDefinition found"),
        ("raise ValueError('no license')", "ValueError: no license"),
    ],
)
def test_a_location_that_does_not_load_says_why(scenario: Scenario, package: Path, text: str, cause: str) -> None:
    name = write(package, "company_broken", text)
    with pytest.raises(ScenarioError) as error:
        scenario.load(name)
    assert str(error.value).startswith("code location 'company_broken' does not load")
    assert cause in str(error.value)
    if text != "x = 1":
        assert "`python -c 'import company_broken'` shows the same" in str(error.value)
        assert f"company_broken.py:1: {text}" in str(error.value)


def test_after_a_location_that_does_not_load_another_can(scenario: Scenario, package: Path) -> None:
    with pytest.raises(ScenarioError):
        scenario.load(write(package, "company_broken", "1/0"))
    scenario.load(write(package, "company_a", DEFINITIONS.format(name="a")))
    scenario.expect("a").not_materialized()


def test_what_is_not_a_location_says_what_is(scenario: Scenario, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"workspace\.yaml does not exist \(looked from .*\); give the path"):
        scenario.load(tmp_path / "workspace.yaml")
    with pytest.raises(ScenarioError, match="is not a code location; expected a path to workspace"):
        scenario.load(here)  # type: ignore[arg-type]
    remote = tmp_path / "remote.yaml"
    remote.write_text("load_from:\n  - grpc_server: {host: 127.0.0.1, port: 4000, location_name: far}\n")
    with pytest.raises(ScenarioError, match="'far' is a code server that runs elsewhere, which can't see the sim"):
        scenario.load(remote)
    with pytest.raises(ScenarioError, match=r"no code location is loaded; begin with scenario\.load"):
        scenario.tick()


def test_an_executor_that_leaves_this_process_is_refused_or_replaced(scenario: Scenario) -> None:
    defs = dg.Definitions(assets=[here], executor=dg.multiprocess_executor)
    with pytest.raises(ScenarioError) as error:
        scenario.load(company=defs)
    assert str(error.value).startswith("job '__ASSET_JOB' of code location 'company' asks for the executor 'multiproc")
    assert str(error.value).endswith("scenario.load(..., in_process=True)")
    scenario.load(company=defs, in_process=True)
    scenario.materialize("here")
    scenario.run_until_quiet()
    scenario.expect("here").materialized(times=1)


def test_the_default_executor_needs_nothing(scenario: Scenario) -> None:
    scenario.load(dg.Definitions(assets=[here]))
    scenario.materialize("here", run_config={"execution": {"config": {"multiprocess": {"max_concurrent": 4}}}})
    scenario.run_until_quiet()
    scenario.expect("here").materialized(times=1)


def test_the_instance_is_the_one_that_the_code_under_test_gets(scenario: Scenario) -> None:
    seen = []

    @dg.asset
    def look(context: dg.AssetExecutionContext) -> None:
        with dg.DagsterInstance.get() as instance:
            seen.append(instance.get_run_by_id(context.run.run_id).run_id)

    scenario.load(dg.Definitions(assets=[look]))
    scenario.materialize("look")
    scenario.run_until_quiet()
    assert seen == [scenario.instance.get_runs()[0].run_id]


def test_settings_come_from_the_projects_dagster_yaml() -> None:
    with Scenario(settings=settings.REPOSITORY / "docker" / "dagster.yaml") as scenario:
        assert scenario.instance.run_monitoring_enabled
        assert scenario.instance.run_retries_enabled
    with pytest.raises(ScenarioError, match=r"nowhere\.yaml: can't be read as a dagster\.yaml: No such file"):
        Scenario(settings="nowhere.yaml")
