"""Code locations, loaded into this process: from workspace.yaml, from modules, from Definitions objects."""

import importlib
import itertools
import sys
import traceback
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_scenario import _dagster as dagster_
from dagster_scenario.clock_readers import clock_read_by
from dagster_scenario.errors import ScenarioError, unknown

# Sensors that evaluate automation conditions, in the daemon or in the code location.
AUTOMATION = {"AUTO_MATERIALIZE", "AUTOMATION"}

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Asset:
    """An asset as a scenario knows it."""

    key: dg.AssetKey
    location: str
    partitions: dg.PartitionsDefinition | None
    executable: bool

    @property
    def name(self) -> str:
        return self.key.to_user_string()


class Locations:
    """The code locations of a scenario, and what is in them."""

    def __init__(self) -> None:
        self._origins: dict[str, Any] = {}
        self._modules: list[str] = []
        self.repositories: dict[str, dg.RepositoryDefinition] = {}
        self.workspace: Any = None
        # How often each sensor looks at most, by location and name.
        self.sensor_intervals: dict[tuple[str, str], timedelta] = {}
        self.in_process = False
        # Only what was loaded by name can be loaded again in a process of its own.
        self.importable = True

    @contextmanager
    def unless_it_fails(self) -> Iterator[None]:
        """What was noted within the `with` is forgotten if it does not load."""
        before = dict(self._origins)
        try:
            yield
        except BaseException:
            self._origins = before
            raise

    def add(self, sources: Iterable[str | Path | dg.Definitions], named: Mapping[str, Any]) -> list[str]:
        """Note what is to be loaded; a name that is there already is replaced. Returns the names."""
        added = []
        for name, source in [*((None, source) for source in sources), *named.items()]:
            origins = self._origins_of(source, name)
            self.add_origins(origins)
            added += [origin.location_name for origin in origins]
        return added

    def add_origins(self, origins: Iterable[Any]) -> None:
        """Note what another process has loaded."""
        self._origins.update({origin.location_name: origin for origin in origins})

    def load(self, instance: dg.DagsterInstance) -> None:
        """Load everything that was noted, as Dagster's daemon would, but into this process."""
        for name, origin in self._origins.items():
            _import(name, origin.loadable_target_origin.module_name)
        if self.workspace is not None:
            self.workspace.__exit__(None, None, None)
        target = dagster_.InProcessWorkspaceLoadTarget(list(self._origins.values()))
        self.workspace = dagster_.WorkspaceProcessContext(instance, target, grpc_server_registry=None)
        self.repositories = {}
        for name, entry in self.workspace.create_request_context().get_code_location_entries().items():
            if entry.load_error:
                raise ScenarioError(_does_not_load(name, entry.load_error))
            for repository in entry.code_location.get_repositories():
                definition = entry.code_location._get_repo_def(repository)
                self.repositories[name] = definition
                if not self.in_process:
                    _refuse_other_processes(name, definition)
        self.sensor_intervals = {
            key: timedelta(seconds=sensor.min_interval_seconds) for key, sensor in self.sensors().items()
        }

    def close(self) -> None:
        if self.workspace is not None:
            self.workspace.__exit__(None, None, None)
            self.workspace = None
        for module in self._modules:
            sys.modules.pop(module, None)

    def request_context(self) -> Any:
        """The workspace as it is now."""
        return self.workspace.create_request_context()

    def origins(self) -> list[Any]:
        """What a child process needs to load the same locations."""
        return list(self._origins.values())

    # What is in them

    def assets(self) -> dict[str, Asset]:
        """Every asset by name. One that several locations know belongs to the one that executes it."""
        found: dict[str, Asset] = {}
        for location, repository in self.repositories.items():
            for key in repository.asset_graph.get_all_asset_keys():
                node = repository.asset_graph.get(key)
                asset = Asset(key, location, node.partitions_def, node.is_executable)
                if asset.name not in found or asset.executable:
                    found[asset.name] = asset
        return found

    def asset(self, name: str | dg.AssetKey) -> Asset:
        """The asset of this name."""
        text = name.to_user_string() if isinstance(name, dg.AssetKey) else name
        assets = self.assets()
        if text not in assets:
            raise unknown("asset", text, assets)
        return assets[text]

    def check_partitions(self, asset: Asset, partitions: Iterable[str], instance: dg.DagsterInstance) -> None:
        """Refuse partitions that the asset does not have at this moment."""
        for partition in partitions:
            if asset.partitions is None:
                raise ScenarioError(
                    f"{asset.name} is not partitioned, so it has no partition {partition!r}; leave the partition out"
                )
            with dagster_.partition_loading_context(dynamic_partitions_store=instance):
                there_is_one = asset.partitions.has_partition_key(partition)
            if not there_is_one:
                keys = asset.partitions.get_partition_keys(dynamic_partitions_store=instance)
                there = f"it has {len(keys)}, {keys[0]!r} to {keys[-1]!r}" if keys else "it has none yet"
                raise ScenarioError(
                    f"{asset.name} has no partition {partition!r} at this simulated time: {there}. "
                    "A day's partition is there once the day is over; move the clock, or name another"
                )

    def sensors(self) -> dict[tuple[str, str], Any]:
        """Every sensor, by location and name."""
        return dict(self._instigators("get_sensors"))

    def sensors_that_read_the_clock(self) -> Iterator[tuple[tuple[str, str], str]]:
        """The sensors, by location and name, that read the clock, each with the place where it does."""
        for location, repository in self.repositories.items():
            for sensor in repository.sensor_defs:
                function = getattr(sensor, "__wrapped__", None) or getattr(sensor, "_raw_fn", None)
                if callable(function) and (where := clock_read_by(function)):
                    yield (location, sensor.name), where

    def schedules(self) -> dict[tuple[str, str], Any]:
        """Every schedule, by location and name."""
        return dict(self._instigators("get_schedules"))

    def job(self, name: str) -> tuple[str, dg.JobDefinition]:
        """The job of this name, and its code location."""
        jobs = {
            job.name: (location, job)
            for location, repository in self.repositories.items()
            for job in repository.get_all_jobs()
        }
        if name not in jobs:
            raise unknown("job", name, (job for job in jobs if not job.startswith("__")))
        return jobs[name]

    def remote_job(self, location: str, name: str) -> Any:
        """The job as Dagster's daemons see it."""
        entry = self.request_context().get_code_location_entries()[location]
        (repository,) = entry.code_location.get_repositories().values()
        return repository.get_full_job(name)

    def op_definitions(self, target: str) -> list[dg.OpDefinition]:
        """The ops that compute an asset, or that have this name."""
        found: dict[int, dg.OpDefinition] = {}
        names = set()
        for repository in self.repositories.values():
            for definition in repository.assets_defs_by_key.values():
                node = definition.node_def if definition.is_executable else None
                if isinstance(node, dg.OpDefinition):
                    names |= {node.name, *(key.to_user_string() for key in definition.keys)}
                    if target == node.name or target in {key.to_user_string() for key in definition.keys}:
                        found[id(node)] = node
            for job in repository.get_all_jobs():
                for node in job.all_node_defs:
                    if isinstance(node, dg.OpDefinition):
                        names.add(node.name)
                        if node.name == target:
                            found[id(node)] = node
        if not found:
            raise unknown("asset or op", target, names)
        return list(found.values())

    def assets_of(self, op: str) -> frozenset[str]:
        """The names of the assets that an op computes."""
        return frozenset(
            key.to_user_string()
            for repository in self.repositories.values()
            for definition in repository.assets_defs_by_key.values()
            if definition.is_executable and definition.node_def.name == op
            for key in definition.keys
        )

    def ops_of(self, location: str, job: str, assets: Iterable[str]) -> set[str]:
        """The names of the ops that a run of these assets, or of the whole job, executes."""
        repository = self.repositories[location]
        chosen = {dg.AssetKey.from_user_string(asset) for asset in assets}
        if chosen:
            definitions = repository.assets_defs_by_key.items()
            return {definition.node_def.name for key, definition in definitions if key in chosen}
        return {node.name for node in repository.get_job(job).all_node_defs}

    def repository_of(self, run: dg.DagsterRun) -> dg.RepositoryDefinition:
        """The repository that a run belongs to."""
        location = run.remote_job_origin.location_name if run.remote_job_origin else ""
        if location not in self.repositories:
            raise ScenarioError(
                f"a run of job {run.job_name!r} belongs to code location {location!r}, which is not loaded; "
                f"loaded are {', '.join(sorted(self.repositories)) or 'none'}"
            )
        return self.repositories[location]

    def assets_in(self, run: dg.DagsterRun) -> tuple[str, ...]:
        """The names of the assets, or else of the checks, that a run computes."""
        keys: Iterable[Any] = run.asset_selection or run.asset_check_selection or ()
        if not keys:
            keys = self.repository_of(run).get_job(run.job_name).asset_layer.selected_asset_keys
        return tuple(sorted(key.to_user_string() for key in keys))

    def partitions_of(self, run: dg.DagsterRun, instance: dg.DagsterInstance) -> tuple[str, ...]:
        """The partitions that a run is to do, in the order of their definition."""
        first = run.tags.get("dagster/asset_partition_range_start")
        if first is None:
            partition = run.tags.get("dagster/partition")
            return (partition,) if partition is not None else ()
        last = run.tags["dagster/asset_partition_range_end"]
        assets = self.assets()
        for name in self.assets_in(run):
            partitions = assets[name].partitions if name in assets else None
            if partitions is not None:
                between = dg.PartitionKeyRange(first, last)
                with dagster_.partition_loading_context(dynamic_partitions_store=instance):
                    return tuple(partitions.get_partition_keys_in_range(between))
        return (first, last)

    def instigators(self) -> dict[str, tuple[str, str, str]]:
        """Who requests runs: by origin id, as location, name, and sensor, automation or schedule."""
        found = {}
        for (location, name), sensor in self.sensors().items():
            kind = "automation" if sensor.sensor_type.value in AUTOMATION else "sensor"
            found[sensor.get_remote_origin_id()] = (location, name, kind)
        for (location, name), schedule in self.schedules().items():
            found[schedule.get_remote_origin_id()] = (location, name, "schedule")
        return found

    def _instigators(self, getter: str) -> Iterator[tuple[tuple[str, str], Any]]:
        for name, entry in self.request_context().get_code_location_entries().items():
            for repository in entry.code_location.get_repositories().values():
                for instigator in getattr(repository, getter)():
                    yield (name, instigator.name), instigator

    # Sources

    def _origins_of(self, source: Any, name: str | None) -> list[Any]:
        if isinstance(source, dg.Definitions):
            self.importable = False
            module = types.ModuleType(f"_dagster_scenario_{next(_numbers)}")
            module.defs = source  # type: ignore[attr-defined]
            sys.modules[module.__name__] = module
            self._modules.append(module.__name__)
            return [_in_process(name or f"location_{len(self._origins) + 1}", module_name=module.__name__)]
        if isinstance(source, types.ModuleType):
            source = source.__name__
        if isinstance(source, Path) or (isinstance(source, str) and source.endswith((".yaml", ".yml"))):
            return _from_workspace_file(Path(source))
        if isinstance(source, str):
            return [_in_process(name or source, module_name=source)]
        raise ScenarioError(
            f"{source!r} is not a code location; expected a path to workspace.yaml, the name of a module with "
            "Definitions in it, or a Definitions object"
        )


def _in_process(name: str, **target: Any) -> Any:
    target.setdefault("executable_path", sys.executable)
    return dagster_.InProcessCodeLocationOrigin(dagster_.LoadableTargetOrigin(**target), location_name=name)


def _from_workspace_file(file: Path) -> list[Any]:
    if not file.exists():
        raise ScenarioError(
            f"{file} does not exist (looked from {Path.cwd()}); give the path to the project's workspace.yaml"
        )
    origins = []
    for origin in dagster_.WorkspaceFileTarget([str(file)]).create_origins():
        if not isinstance(origin, dagster_.ManagedGrpcPythonEnvCodeLocationOrigin):
            raise ScenarioError(
                f"{file}: location {origin.location_name!r} is a code server that runs elsewhere, which can't see the "
                "simulated clock; load its module instead: scenario.load('package.definitions')"
            )
        origins.append(
            dagster_.InProcessCodeLocationOrigin(origin.loadable_target_origin, location_name=origin.location_name)
        )
    return origins


def _import(location: str, module: str | None) -> None:
    """Import a location's module before Dagster does, which first takes the first entry off sys.path."""
    if module is None:
        return
    try:
        importlib.import_module(module)
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
        where = [f"  at {frame.filename}:{frame.lineno}: {frame.line}" for frame in frames[1:][-1:]]
        said = f"  {type(error).__name__}: {error}"
        attempt = f"`python -c 'import {module}'` shows the same"
        if isinstance(error, ModuleNotFoundError) and error.name == module.split(".")[0]:
            attempt = 'its folder is not on sys.path; with pytest, set it in pyproject.toml: pythonpath = ["."]'
        message = "\n".join([f"code location {location!r} does not load; {attempt}:", said, *where])
        raise ScenarioError(message) from error


def _does_not_load(name: str, error: Any) -> str:
    while error.cause:
        error = error.cause
    return f"code location {name!r} does not load:\n  {error.message.strip()}"


def _refuse_other_processes(location: str, repository: dg.RepositoryDefinition) -> None:
    elsewhere = {
        job.name: job.executor_def.name
        for job in repository.get_all_jobs()
        if job.executor_def not in (dagster_.in_process_executor, dagster_.multi_or_in_process_executor)
        and job.executor_def.name != dagster_.in_process_executor.name
    }
    if elsewhere:
        job, executor = next(iter(elsewhere.items()))
        raise ScenarioError(
            f"job {job!r} of code location {location!r} asks for the executor {executor!r}, whose steps run in "
            "processes of their own and don't see the simulated clock. Give the project in_process_executor in tests, "
            "or let the scenario put it in its place: scenario.load(..., in_process=True)"
        )
