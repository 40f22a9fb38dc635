"""Code locations, from wherever they come, and what is said of one that can't be played."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_scenario import Scenario, ScenarioError

DEFINITIONS = """
import dagster as dg

@dg.asset
def {name}() -> None: ...

defs = dg.Definitions(assets=[{name}])
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of modules that can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in list(sys.modules):
        if name.startswith("company_") or name == "definitions":
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
    with pytest.raises(ScenarioError, match="is not a code location; expected the name of a module"):
        scenario.load(here)  # type: ignore[arg-type]
    remote = tmp_path / "remote.yaml"
    remote.write_text("load_from:\n  - grpc_server: {host: 127.0.0.1, port: 4000, location_name: far}\n")
    with pytest.raises(ScenarioError, match="'far' is a code server that runs elsewhere, which can't see the sim"):
        scenario.load(remote)
    with pytest.raises(ScenarioError, match=r"no code location is loaded; begin with scenario\.load"):
        scenario.tick()


def test_an_executor_that_leaves_this_process_is_replaced_and_said_so_once(scenario: Scenario) -> None:
    job = dg.define_asset_job("far", [here], executor_def=dg.multiprocess_executor)
    defs = dg.Definitions(assets=[here], jobs=[job])
    for _ in range(2):
        scenario.load(company=defs)
    scenario.launch("far")
    scenario.run_until_quiet()
    scenario.expect("here").materialized(times=1)
    said = [event.text for event in scenario.timeline.events if "not by" in event.text]
    assert said == ["steps of far (company) run in this process, not by multiprocess"]


def test_in_process_may_still_be_said(scenario: Scenario) -> None:
    scenario.load(dg.Definitions(assets=[here], executor=dg.multiprocess_executor), in_process=True)
    scenario.materialize("here")
    scenario.run_until_quiet()
    scenario.expect("here").materialized(times=1)


@pytest.mark.parametrize("executor", [None, dg.multiprocess_executor])
def test_a_job_whose_own_config_is_of_its_executor_runs(
    scenario: Scenario, executor: dg.ExecutorDefinition | None
) -> None:
    multiprocess = {"max_concurrent": 2, "retries": {"disabled": {}}}
    config = multiprocess if executor else {"multiprocess": multiprocess}
    job = dg.define_asset_job("two_at_once", [here], config={"execution": {"config": config}}, executor_def=executor)
    scenario.load(dg.Definitions(assets=[here], jobs=[job]))
    scenario.launch("two_at_once")
    scenario.run_until_quiet()
    scenario.expect("here").materialized(times=1)


def test_a_step_is_not_retried_where_the_config_of_its_executor_says_so(scenario: Scenario) -> None:
    tries = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=2))
    def stubborn() -> None:
        tries.append(1)
        raise RuntimeError("no")

    disabled: dict[str, Any] = {"execution": {"config": {"retries": {"disabled": {}}}}}
    job = dg.define_asset_job("once", [stubborn], config=disabled, executor_def=dg.multiprocess_executor)
    scenario.load(dg.Definitions(assets=[stubborn], jobs=[job]))
    scenario.launch("once")
    scenario.run_until_quiet()
    assert len(tries) == 1


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
            run = instance.get_run_by_id(context.run.run_id)
            assert run is not None
            seen.append(run.run_id)

    scenario.load(dg.Definitions(assets=[look]))
    scenario.materialize("look")
    scenario.run_until_quiet()
    assert seen == [scenario.instance.get_runs()[0].run_id]


def test_settings_come_from_the_projects_dagster_yaml(tmp_path: Path) -> None:
    settings = tmp_path / "dagster.yaml"
    settings.write_text("run_monitoring: {enabled: true}\nrun_retries: {enabled: true}\n", encoding="utf-8")
    with Scenario(settings=settings) as scenario:
        assert scenario.instance.run_monitoring_enabled
        assert scenario.instance.run_retries_enabled
    with pytest.raises(ScenarioError, match=r"nowhere\.yaml: can't be read as a dagster\.yaml: No such file"):
        Scenario(settings="nowhere.yaml")


# What projects have


def project(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


DEFS_FOLDER = """
from pathlib import Path
import dagster as dg

@dg.definitions
def defs() -> dg.Definitions:
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""

A_COMPONENT = """
import dagster as dg

class Shelf(dg.Component, dg.Model, dg.Resolvable):
    fruit: str

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        @dg.asset(name=self.fruit)
        def shelf() -> None: ...
        return dg.Definitions(assets=[shelf])
"""


@pytest.fixture
def components(tmp_path: Path) -> Iterator[Path]:
    """A project as `dg` makes it, which is not installed."""
    yield project(
        tmp_path / "orchard",
        {
            "pyproject.toml": '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "company_dg"\n',
            "src/company_dg/__init__.py": "",
            "src/company_dg/definitions.py": DEFS_FOLDER,
            "src/company_dg/defs/__init__.py": "",
            "src/company_dg/defs/plain.py": "import dagster as dg\n@dg.asset\ndef pear() -> None: ...\n",
            "src/company_dg/defs/shelf/defs.yaml": "type: company_dg.shelf.Shelf\nattributes: {fruit: apple}\n",
            "src/company_dg/shelf.py": A_COMPONENT,
        },
    )
    for name in list(sys.modules):
        if name.startswith("company_"):
            del sys.modules[name]


@pytest.mark.parametrize("what", ["", "pyproject.toml"])
def test_a_project_of_components_loads_from_its_folder(scenario: Scenario, components: Path, what: str) -> None:
    scenario.load(components / what)
    scenario.materialize("apple", "pear")
    scenario.run_until_quiet()
    scenario.expect("apple").materialized(times=1)
    scenario.expect("pear").materialized(times=1)
    assert {run.location for run in scenario.timeline.runs.values()} == {"orchard"}


def test_definitions_that_dg_finds_by_itself_load(scenario: Scenario, components: Path) -> None:
    settings = components / "pyproject.toml"
    settings.write_text(settings.read_text() + "autoload_defs = true\ncode_location_name = 'fruit'\n")
    (components / "src/company_dg/definitions.py").unlink()
    scenario.load(str(components))
    scenario.materialize("apple")
    scenario.run_until_quiet()
    assert {run.location for run in scenario.timeline.runs.values()} == {"fruit"}
    scenario.expect_runs().none_failed()


def test_a_workspace_of_dg_loads_all_its_projects(scenario: Scenario, components: Path) -> None:
    project(
        components.parent,
        {
            "dg.toml": '[workspace]\nprojects = [{path = "orchard"}, {path = "plain"}]\n',
            "plain/pyproject.toml": '[tool.dagster]\nmodule_name = "company_plain"\ncode_location_name = "plain"\n',
            "plain/company_plain.py": DEFINITIONS.format(name="plain"),
        },
    )
    scenario.load(components.parent)
    for asset in ("apple", "plain"):
        scenario.materialize(asset)
    scenario.run_until_quiet()
    assert {run.location for run in scenario.timeline.runs.values()} == {"orchard", "plain"}


def test_a_python_file_loads_and_finds_its_neighbours(scenario: Scenario, package: Path) -> None:
    project(
        package / "apart",
        {
            "definitions.py": DEFINITIONS.format(name="beside").replace("...", "import company_neighbour"),
            "company_neighbour.py": "",
        },
    )
    for source in (package / "apart" / "definitions.py", str(package / "apart" / "definitions.py")):
        scenario.load(apart=source)
    scenario.materialize("beside")
    scenario.run_until_quiet()
    scenario.expect_runs().none_failed()


def test_the_locations_of_a_dagster_cloud_file_load(scenario: Scenario, package: Path) -> None:
    project(
        package,
        {
            "company_a.py": DEFINITIONS.format(name="a"),
            "sub/company_b.py": DEFINITIONS.format(name="b"),
            "dagster_cloud.yaml": "locations:\n"
            "  - {location_name: north, code_source: {module_name: company_a}, build: {directory: .}}\n"
            "  - {location_name: south, working_directory: sub, code_source: {python_file: company_b.py}}\n",
        },
    )
    scenario.load(package / "dagster_cloud.yaml")
    for asset in ("a", "b"):
        scenario.materialize(asset)
    scenario.run_until_quiet()
    assert {run.location for run in scenario.timeline.runs.values()} == {"north", "south"}


@dg.definitions
def lazily() -> dg.Definitions:
    return dg.Definitions(assets=[here])


def test_a_function_that_gives_definitions_loads(scenario: Scenario) -> None:
    scenario.load(lazily, company=lazily)
    scenario.materialize("here")
    scenario.run_until_quiet()
    scenario.expect("here").materialized(times=1)


def test_what_has_no_code_location_in_it_says_what_was_looked_for(scenario: Scenario, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="is not a Dagster project: it has no workspace"):
        scenario.load(tmp_path)
    settings = tmp_path / "pyproject.toml"
    settings.write_text("[project]\nname = 'shop'\n")
    with pytest.raises(ScenarioError, match=r"names no code location: it has neither \[tool\.dg\.project\]"):
        scenario.load(settings)
    settings.write_text("[project")
    with pytest.raises(ScenarioError, match=r"pyproject\.toml is not TOML"):
        scenario.load(settings)
    (tmp_path / "values.yaml").write_text("a: 1\n")
    with pytest.raises(ScenarioError, match=r"values\.yaml names no code locations: a workspace\.yaml has"):
        scenario.load(tmp_path / "values.yaml")


def test_two_repositories_of_one_module_are_both_there(scenario: Scenario, package: Path) -> None:
    name = write(
        package,
        "company_two",
        "import dagster as dg\n@dg.asset\ndef a() -> None: ...\n@dg.asset\ndef b() -> None: ...\n"
        "@dg.repository\ndef first():\n    return [a, dg.define_asset_job('job_a', [a])]\n"
        "@dg.repository\ndef second():\n    return [b, dg.define_asset_job('job_b', [b])]\n",
    )
    scenario.load(name)
    for job in ("job_a", "job_b"):
        scenario.launch(job)
    scenario.materialize("a")
    scenario.fail("b")
    scenario.run_until_quiet()
    assert [(run.job, run.status) for run in scenario.timeline.runs.values()] == [
        ("job_a", "succeeded"),
        ("job_b", "failed"),
        ("__ASSET_JOB", "succeeded"),
    ]


def test_a_python_file_that_does_not_load_says_the_same_again(scenario: Scenario, package: Path) -> None:
    file = project(package, {"company_file.py": "x = 1\nraise ValueError('no license')\n"}) / "company_file.py"
    workspace = package / "workspace.yaml"
    workspace.write_text("load_from: [{python_file: company_file.py}]\n", encoding="utf-8")
    for source in (workspace, workspace, file):
        with pytest.raises(ScenarioError) as error:
            scenario.load(source)
        assert "ValueError: no license" in str(error.value)
        assert "company_file.py:2: raise ValueError('no license')" in str(error.value)
    file.write_text(DEFINITIONS.format(name="a"), encoding="utf-8")
    scenario.load(workspace)
    scenario.expect("a").not_materialized()


# Around a scenario


def test_a_run_can_be_requested_in_an_async_test(scenario: Scenario) -> None:
    async def story() -> None:
        scenario.load(dg.Definitions(assets=[here]))
        scenario.materialize("here")
        scenario.run_until_quiet()

    asyncio.run(story())
    scenario.expect("here").materialized(times=1)


STRICT = """
import warnings
import dagster as dg

warnings.simplefilter("error")
from dagster_scenario import Scenario

DAYS = dg.DailyPartitionsDefinition("2024-01-01")

@dg.asset(partitions_def=DAYS, automation_condition=dg.AutomationCondition.eager())
def many() -> None: ...

@dg.sensor(target=many, default_status=dg.DefaultSensorStatus.RUNNING)
def looking():
    return dg.RunRequest(partition_key="2024-01-01", run_key="1")

nightly = dg.build_schedule_from_partitioned_job(dg.define_asset_job("job", [many]), name="nightly")

with Scenario(start="2024-01-05") as scenario:
    scenario.load(dg.Definitions(assets=[many], sensors=[looking], schedules=[nightly]))
    scenario.turn_on("nightly", "looking", "default_automation_condition_sensor")
    scenario.backfill("many", partitions=["2024-01-01", "2024-01-02"])
    scenario.launch("job", "2024-01-01")
    scenario.materialize("many", partition="2024-01-02")
    scenario.report("many", "2024-01-03")
    scenario.hold("many", partition="2024-01-04")
    scenario.materialize("many", partition="2024-01-04")
    scenario.run_until_quiet()
    scenario.cancel("many")
    scenario.advance(days=2)
    scenario.turn_off("nightly")
    str(scenario.timeline), scenario.timeline.html()
"""


def test_nothing_of_it_warns(tmp_path: Path) -> None:
    (tmp_path / "story.py").write_text(STRICT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-X", "dev", "story.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_job_of_dynamic_partitions_can_be_launched(scenario: Scenario) -> None:
    @dg.asset(partitions_def=dg.DynamicPartitionsDefinition(name="shops"))
    def sales() -> None: ...

    scenario.load(dg.Definitions(assets=[sales], jobs=[dg.define_asset_job("job", [sales])]))
    scenario.instance.add_dynamic_partitions("shops", ["lyon"])
    scenario.launch("job", "lyon")
    scenario.run_until_quiet()
    scenario.expect("sales").materialized("lyon")
    with pytest.raises(ScenarioError, match=r"job has no partition 'paris' .* Its partitions are added by the code"):
        scenario.launch("job", "paris")
