"""What the code locations deploy, and what importing them does not do."""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.assets.graph.asset_graph import AssetNode

import dedp_assets
from dedp_assets.client_uploads import contract as uploads
from dedp_assets.flight_search import contract as flights
from dedp_assets.isolated_sequencer import contract
from dedp_assets.late_data_integrator import contract as lake
from dedp_assets.promotions import contract as promotions
from dedp_assets.run_processes import in_process_executor
from dedp_assets.user_intake import contract as users
from jobs import (
    client_uploads,
    cookbook,
    devices_aggregator,
    devices_loader,
    flight_search,
    late_data_integrator,
    promotion_reports,
    user_intake,
)
from jobs import promotions as promotion_deliveries

REPOSITORY = Path(dedp_assets.__file__).parent.parent
LOCATIONS = {
    "jobs.devices_loader": devices_loader.defs,
    "jobs.devices_aggregator": devices_aggregator.defs,
    "jobs.late_data_integrator": late_data_integrator.defs,
    "jobs.client_uploads": client_uploads.defs,
    "jobs.promotions": promotion_deliveries.defs,
    "jobs.promotion_reports": promotion_reports.defs,
    "jobs.user_intake": user_intake.defs,
    "jobs.cookbook": cookbook.defs,
    "jobs.flight_search": flight_search.defs,
}
# The locations of pipelines. The cookbook has examples, which rest until somebody turns them on.
PIPELINES = [location for location in LOCATIONS if location != "jobs.cookbook"]
# A part of what each location must not import.
OTHERS = {
    "jobs.devices_loader": "aggregator",
    "jobs.devices_aggregator": "loader",
    "jobs.late_data_integrator": "isolated_sequencer",
    "jobs.client_uploads": "isolated_sequencer",
    "jobs.promotions": "promotions.reports",
    "jobs.promotion_reports": "promotions.deliveries",
    "jobs.user_intake": "client_uploads",
    "jobs.cookbook": "isolated_sequencer",
}
ASSETS = {
    contract.DEVICES_FILE: "jobs.devices_loader",
    contract.DEVICES_RAW: "jobs.devices_aggregator",
    contract.DEVICES_AGGREGATES: "jobs.devices_aggregator",
}
LAKE = [lake.DEVICE_COUNTS, lake.PARTITIONS_STATE, lake.BACKFILLING_CONFIGURATION]


def modules_of(package: str) -> Iterator[tuple[str, Path]]:
    """Each module of a package: its name and its path."""
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


# A part of a program: notes what the process opens for writing, or in our home, and what it connects to or starts.
WATCH = """
events = []

def note(kind, arguments):
    if kind == "open":
        path, _, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and path != os.devnull
        if writes or str(path).startswith(os.environ["DEDP_HOME"]):
            events.append([kind, str(path)])
    elif kind in ("os.mkdir", "socket.connect", "socket.bind", "subprocess.Popen"):
        events.append([kind, str(arguments)])
"""


# Each location is imported by a fork of a process that has imported Dagster, which takes most of the time.
IMPORT_EACH = f"""
import json, os, psutil, sys, threading
import dagster
{WATCH}
assert threading.active_count() == 1
for module in sys.argv[1:]:
    if os.fork() == 0:
        sys.addaudithook(note)
        __import__(module)
        report = dict(events=events, modules=sorted(sys.modules), threads=threading.active_count() - 1)
        children = [child.cmdline() for child in psutil.Process().children(recursive=True)]
        print(json.dumps([module, report | dict(children=children)]), flush=True)
        sys.exit()
    assert os.wait()[1] == 0, module
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, dict[str, Any]], str, Path]:
    """What a process reports after it has imported a location, by location; their errors; and their home."""
    home = tmp_path_factory.mktemp("import") / "never made"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DEDP_")}
    done = subprocess.run(
        # -B: the interpreter writes no compiled modules.
        [sys.executable, "-B", "-c", IMPORT_EACH, *OTHERS],
        cwd=REPOSITORY,
        env={**environment, "DEDP_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(map(json.loads, done.stdout.splitlines())), done.stderr, home


@pytest.fixture(params=PIPELINES)
def location(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("location", LOCATIONS)
def test_every_code_location_loads(location: str) -> None:
    dg.Definitions.validate_loadable(LOCATIONS[location])


def test_every_job_tags_its_runs_with_their_process_and_their_origin(location: str) -> None:
    for job in LOCATIONS[location].get_repository_def().get_all_jobs():
        assert job.executor_def is in_process_executor, job.name


def test_the_workspace_names_exactly_the_modules_under_jobs() -> None:
    workspace = yaml.safe_load((REPOSITORY / "workspace.yaml").read_text())
    named = [entry["python_module"] for entry in workspace["load_from"]]
    assert sorted(named) == sorted(module for module, path in modules_of("jobs") if path.name != "__init__.py")
    assert set(named) == set(LOCATIONS)


def test_dagsters_newer_command_line_knows_the_locations_of_the_workspace_by_the_same_names() -> None:
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    settings = toml.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["dg"]
    assert settings["directory_type"] == "workspace"
    modules = []
    for folder in (REPOSITORY / entry["path"] for entry in settings["workspace"]["projects"]):
        project = toml.loads((folder / "dg.toml").read_text())["project"]
        module = project["code_location_target_module"]
        modules.append(module)
        assert project["code_location_name"] == project["defs_module"] == module
        assert (folder / f"{module.replace('.', '/')}.py").samefile(str(importlib.import_module(module).__file__))
    workspace = yaml.safe_load((REPOSITORY / "workspace.yaml").read_text())
    assert modules == [entry["python_module"] for entry in workspace["load_from"]]


def test_the_picture_and_the_page_of_the_architecture_show_what_is_deployed() -> None:
    docs = REPOSITORY / "docs"
    shown = set(re.findall(r"[\w.]+", (docs / "images" / "architecture.svg").read_text()))
    page = (docs / "architecture.md").read_text()
    for location in LOCATIONS:
        assert location in shown
        assert f"`{location.removeprefix('jobs.')}`" in page
    for location in PIPELINES:
        repository = LOCATIONS[location].get_repository_def()
        names = {key.path[-1] for key in repository.asset_graph.executable_asset_keys}
        names |= {sensor.name for sensor in repository.sensor_defs} | {each.name for each in repository.schedule_defs}
        assert names <= shown, f"docs/images/architecture.svg lacks what {location} has"


@pytest.mark.parametrize(("location", "other"), OTHERS.items())
def test_a_location_loads_nothing_of_the_other_and_starts_and_touches_nothing(
    imported: tuple[dict[str, dict[str, Any]], str, Path], location: str, other: str
) -> None:
    reports, complaints, home = imported
    report = reports[location]
    ours = [name for name in report["modules"] if name.split(".")[0] in ("jobs", "sensors", "dedp_assets")]
    assert location in ours
    assert [name for name in ours if other in name] == []
    # They cost 70 MB and start threads of their own, after which a process must not be forked.
    if location != "jobs.late_data_integrator":
        assert {"deltalake", "numpy", "pandas", "pyarrow", "pyspark"}.isdisjoint(report["modules"])
    # Libraries of others may run a short command while they are imported. What still runs is in "children".
    assert [event for event in report["events"] if event[0] != "subprocess.Popen"] == []
    assert report["threads"] == 0
    assert report["children"] == []
    assert complaints == ""
    assert not home.exists()


IMPORT_EVERYTHING = """
import importlib, json, os, psutil, sys, threading, warnings

modules = sys.argv[1:]
environment, threads = dict(os.environ), threading.active_count()
filters = list(warnings.filters)
for module in modules:
    importlib.import_module(module)
# Import our modules again. Packages of others set filters, too, but only at their first import.
for module in [name for name in sys.modules if name.split(".")[0] in ("dedp_assets", "sensors", "jobs")]:
    del sys.modules[module]
warnings.filters[:] = filters
"""

IMPORT_EVERYTHING_AGAIN = """
sys.addaudithook(note)
for module in modules:
    importlib.import_module(module)
names = {*environment, *os.environ}
print(json.dumps({
    "environment": [name for name in names if environment.get(name) != os.environ.get(name)],
    "filters": [str(entry) for entry in warnings.filters if entry not in filters],
    "filters gone": [str(entry) for entry in filters if entry not in warnings.filters],
    "events": events,
    "threads": threading.active_count() - threads,
    "children": [child.cmdline() for child in psutil.Process().children(recursive=True)],
}))
"""


def test_importing_every_module_changes_and_starts_nothing(tmp_path: Path) -> None:
    modules = [module for package in ("dedp_assets", "sensors", "jobs") for module, _ in modules_of(package)]
    assert {"jobs.late_data_integrator", "sensors.automation", "dedp_assets.cli"} <= set(modules)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DEDP_", "DAGSTER_"))}
    done = subprocess.run(
        [sys.executable, "-B", "-c", IMPORT_EVERYTHING + WATCH + IMPORT_EVERYTHING_AGAIN, *modules],
        cwd=REPOSITORY,
        env={**environment, "DEDP_HOME": str(tmp_path / "never made")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "environment": [],
        "filters": [],
        "filters gone": [],
        "events": [],
        "threads": 0,
        "children": [],
    }
    assert not (tmp_path / "never made").exists()


def test_each_asset_is_materialized_by_one_location_and_known_by_its_key_to_others() -> None:
    made_by: dict[dg.AssetKey, str] = {}
    for location, defs in LOCATIONS.items():
        graph = defs.resolve_asset_graph()
        for key in graph.materializable_asset_keys:
            assert key not in made_by
            made_by[key] = location
    assert made_by == {
        **ASSETS,
        **dict.fromkeys([*LAKE, lake.LATE_DATA_PICTURE], "jobs.late_data_integrator"),
        **dict.fromkeys([uploads.RECEIVED, uploads.RECORDS, uploads.REPORT], "jobs.client_uploads"),
        **dict.fromkeys([promotions.RAW, promotions.CLEANED, promotions.METRICS], "jobs.promotions"),
        **dict.fromkeys(
            [promotions.DIFFERENCES, promotions.DASHBOARD, promotions.NOTIFICATION], "jobs.promotion_reports"
        ),
        **dict.fromkeys([users.RAW, users.USERS], "jobs.user_intake"),
        **dict.fromkeys(cookbook.defs.resolve_asset_graph().materializable_asset_keys, "jobs.cookbook"),
        **dict.fromkeys([flights.SEARCHES, flights.PER_ROUTE, flights.PER_HOUR], "jobs.flight_search"),
    }
    aggregator = devices_aggregator.defs.resolve_asset_graph()
    assert aggregator.external_asset_keys == {contract.DEVICES_FILE}
    assert aggregator.get(contract.DEVICES_RAW).parent_keys == {contract.DEVICES_FILE}
    assert aggregator.get(contract.DEVICES_AGGREGATES).parent_keys == {contract.DEVICES_RAW}


@pytest.fixture(params=ASSETS, ids=lambda key: key.to_user_string())
def node(request: pytest.FixtureRequest) -> AssetNode:
    key: dg.AssetKey = request.param
    return LOCATIONS[ASSETS[key]].resolve_asset_graph().get(key)


def test_an_asset_names_its_owner_and_describes_what_it_holds(node: AssetNode) -> None:
    owner = {"jobs.devices_loader": "team:devices-loading", "jobs.devices_aggregator": "team:devices-aggregating"}
    location = ASSETS[node.key]
    assert node.group_name == location.removeprefix("jobs.")
    assert node.owners == [owner[location]]
    assert len(node.description or "") > 40
    assert node.kinds
    columns = node.metadata["dagster/column_schema"].columns
    assert [column.name for column in columns][:3] == list(contract.DEVICES_FORMAT.names)
    assert all(column.type for column in columns)


def test_an_asset_has_the_daily_partitions_and_takes_a_range_of_them_in_one_run(node: AssetNode) -> None:
    assert node.partitions_def == contract.LOADS
    assert contract.LOADS.timezone == "UTC"
    assert node.backfill_policy == dg.BackfillPolicy.single_run()


def test_the_kinds_name_what_stores_an_asset() -> None:
    kinds = {key: LOCATIONS[location].resolve_asset_graph().get(key).kinds for key, location in ASSETS.items()}
    assert kinds == {
        contract.DEVICES_FILE: {"csv", "file"},
        contract.DEVICES_RAW: {"postgres", "table"},
        contract.DEVICES_AGGREGATES: {"postgres", "view"},
    }


def test_every_asset_of_the_aggregator_is_checked_and_follows_its_inputs_by_itself() -> None:
    graph = devices_aggregator.defs.resolve_asset_graph()
    assert {(key.asset_key, key.name) for key in graph.asset_check_keys} == {
        (contract.DEVICES_RAW, "lines_accounted_for"),
        (contract.DEVICES_RAW, "all_loads_accounted_for"),
        (contract.DEVICES_AGGREGATES, "totals_balance"),
        (contract.DEVICES_AGGREGATES, "totals_equal_recount"),
    }
    for key in graph.materializable_asset_keys:
        assert graph.get(key).automation_condition is not None


def test_every_check_says_what_it_checks() -> None:
    graph = devices_aggregator.defs.resolve_asset_graph()
    for key in graph.asset_check_keys:
        assert len(graph.get_check_spec(key).description or "") > 30


def test_every_sensor_runs_from_the_start_and_those_that_follow_events_tick_every_second(location: str) -> None:
    sensors = {sensor.name: sensor for sensor in LOCATIONS[location].sensors or ()}
    assert sensors
    assert all(sensor.default_status == dg.DefaultSensorStatus.RUNNING for sensor in sensors.values())
    # These look at what lasts. The API of the users is somebody else's: it is not asked every second.
    over_time = {name for name in sensors if "reconciled" in name or "quarantine" in name or name == "users_api_up"}
    assert {sensor.minimum_interval_seconds for name, sensor in sensors.items() if name not in over_time} <= {1}


def test_the_examples_of_the_cookbook_rest_until_somebody_turns_them_on() -> None:
    examples = [*(cookbook.defs.sensors or ()), *(cookbook.defs.schedules or ())]
    assert len(examples) > 5
    assert all("STOPPED" in str(getattr(example, "default_status", "")) for example in examples)


def test_the_assets_of_the_lake_share_their_days_and_follow_by_themselves() -> None:
    graph = late_data_integrator.defs.resolve_asset_graph()
    assert graph.external_asset_keys == {lake.DEVICES}
    for key in LAKE:
        node = graph.get(key)
        assert node.partitions_def == lake.DAYS
        assert node.backfill_policy == dg.BackfillPolicy.single_run()
        assert node.automation_condition is not None
        assert len(node.description or "") > 40
        assert node.kinds
    assert graph.get(lake.DEVICE_COUNTS).parent_keys == {lake.DEVICES}


def test_no_schedule_stands_between_a_file_and_its_load(location: str) -> None:
    schedules = {schedule.name for schedule in LOCATIONS[location].schedules or ()}
    assert schedules == ({"uploads_report"} if location == "jobs.client_uploads" else set())


def test_the_tables_of_the_lake_say_what_columns_they_have() -> None:
    graph = late_data_integrator.defs.resolve_asset_graph()
    columns = {
        key.path[-1]: [
            (column.name, column.type) for column in graph.get(key).metadata["dagster/column_schema"].columns
        ]
        for key in (lake.DEVICES, lake.DEVICE_COUNTS, lake.PARTITIONS_STATE)
    }
    devices = [("event_time", "date"), *((name, "string") for name in ("type", "full_name", "version"))]
    assert columns == {
        "devices": devices,
        "device_counts": [*devices, ("count", "long")],
        "partitions_state": [("partition", "string"), ("isProcessed", "boolean"), ("lastProcessedVersion", "long")],
    }


@pytest.mark.slow
@pytest.mark.parametrize("location", PIPELINES)
def test_no_sensor_of_a_system_that_has_just_been_made_names_an_error(
    location: str, instance: dg.DagsterInstance, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    defs = LOCATIONS[location]
    for sensor in defs.get_repository_def().sensor_defs:
        if not isinstance(sensor, dg.AutomationConditionSensorDefinition):
            resources = dict(defs.resources or {})
            with dg.build_sensor_context(instance, definitions=defs, resources=resources) as context:
                said = sensor.evaluate_tick(context).skip_message or ""
            assert not said.startswith("error: "), sensor.name
