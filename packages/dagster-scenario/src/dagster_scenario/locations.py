"""Code locations, loaded into this process, and what is in them. Where they come from is said in `sources`."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg

from dagster_scenario import _dagster as dagster_
from dagster_scenario import sources as sources_
from dagster_scenario.clock_readers import clock_read_by
from dagster_scenario.dry_run import PlannedRun, PlannedTick
from dagster_scenario.errors import ScenarioError, unknown
from dagster_scenario.executors import replaced
from dagster_scenario.faults import END, START
from dagster_scenario.graphs import Step, steps_of
from dagster_scenario.importing import does_not_load, import_target
from dagster_scenario.runs import Job
from dagster_scenario.stubs import StandIns
from dagster_scenario.tracebacks import message_of

# Sensors that evaluate automation conditions, in the daemon or in the code location.
AUTOMATION = {"AUTO_MATERIALIZE", "AUTOMATION"}


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


@dataclass(frozen=True)
class Computation:
    """The op or graph that computes assets, with its steps."""

    location: str
    name: str
    assets: frozenset[str]
    steps: tuple[Step, ...]


class Locations:
    """The code locations of a scenario, and what is in them."""

    def __init__(self) -> None:
        self._origins: dict[str, Any] = {}
        self._made_modules: list[str] = []
        self._import_paths: list[str] = []
        # By location and name: a location can have several repositories.
        self.repositories: dict[tuple[str, str], dg.RepositoryDefinition] = {}
        self.workspace: Any = None
        self._known_computations: list[Computation] | None = None
        self.stand_ins = StandIns()
        # By location, as the project has them.
        self._own_resources: dict[str, dict[str, Any]] = {}
        self._undo: list[Callable[[], None]] = []
        # How often each sensor looks at most, by location and name.
        self.sensor_intervals: dict[tuple[str, str], timedelta] = {}
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

    def add(self, sources: Iterable[Any], named: Mapping[str, Any]) -> list[str]:
        """Note what is to be loaded; a name that is there already is replaced. Returns the names."""
        added = []
        for name, source in [*((None, source) for source in sources), *named.items()]:
            origins = sources_.origins_of(source, name, len(self._origins) + 1)
            self.add_origins(origins)
            added += [origin.location_name for origin in origins]
        return added

    def add_origins(self, origins: Iterable[Any]) -> None:
        """Note what another process has loaded."""
        for origin in origins:
            self._origins[origin.location_name] = origin
            if module := sources_.made_here(origin):
                self._made_modules.append(module)
                self.importable = False

    def load(self, instance: dg.DagsterInstance) -> None:
        """Load everything that was noted, as Dagster's daemon would, but into this process."""
        for name, origin in self._origins.items():
            self._import(name, origin.loadable_target_origin)
        if self.workspace is not None:
            self.workspace.__exit__(None, None, None)
        target = dagster_.InProcessWorkspaceLoadTarget(list(self._origins.values()))
        self.workspace = dagster_.WorkspaceProcessContext(instance, target, grpc_server_registry=None)
        self.repositories, self._known_computations = {}, None
        for name, entry in self.workspace.create_request_context().get_code_location_entries().items():
            if entry.load_error:
                raise ScenarioError(does_not_load(name, entry.load_error))
            for repository in entry.code_location.get_repositories():
                self.repositories[name, repository] = entry.code_location._get_repo_def(repository)
            # Dagster plans a run of the job that is to execute, not of one whose password is not there.
            entry.code_location.get_reconstructable_job = partial(self._job_to_plan, name)
        self._swap_resources()
        self.sensor_intervals = {
            key: timedelta(seconds=sensor.min_interval_seconds) for key, sensor in self.sensors().items()
        }

    def _import(self, location: str, target: Any) -> None:
        """Import a location's module before Dagster does, which first takes the first entry off sys.path.

        What a module imports later, in a run or a sensor, is found as it is in a deployment that was started in the
        location's working directory.
        """
        folder = target.working_directory
        if folder is not None and folder not in sys.path:
            # At the end: Dagster takes the first entry off while it loads.
            sys.path.append(folder)
            self._import_paths.append(folder)
        import_target(location, target)

    def swap_resources(self, locations: Iterable[str], resources: Mapping[str, Any] | None) -> None:
        """Let these locations have other resources from the next load on, or their own."""
        for location in locations:
            self.stand_ins.swap(location, resources or {})

    def _swap_resources(self) -> None:
        """Let sensors and schedules have the resources that stand in for others; runs are prepared one by one."""
        self._undo_swaps()
        self._own_resources = {}
        for (location, _), repository in self.repositories.items():
            self._own_resources.setdefault(location, {}).update(repository.get_top_level_resources())
        for location in self.stand_ins.resources:
            swapped = self.stand_ins.swapped(location)
            there = [repository for (place, _), repository in self.repositories.items() if place == location]
            known = {key for repository in there for key in repository.get_top_level_resources()}
            known |= {key for repository in there for job in repository.get_all_jobs() for key in job.resource_defs}
            for key in swapped:
                if key not in known:
                    raise unknown("resource", key, known, where=f" in code location {location!r}")
            for repository in there if swapped else []:
                own = repository.get_top_level_resources()
                resources = self.stand_ins.swapped_in(location, own, self._own_resources[location])
                self._undo.append(_with_top_level_resources(repository, resources))

    def _undo_swaps(self) -> None:
        for undo in self._undo:
            undo()
        self._undo = []

    def _job_to_plan(self, location: str, repository: str, name: str) -> Job:
        there = self.repositories[location, repository]
        return Job(there.get_job(name), there, self.prepared)

    def prepared(self, job: dg.JobDefinition, repository: dg.RepositoryDefinition) -> dg.JobDefinition:
        """A job of a repository as it is to execute, with what stands in for some of it."""
        locations = [location for (location, _), there in self.repositories.items() if there is repository]
        location = locations[0] if locations else ""
        return self.stand_ins.put_into(job, location, self._own_resources.get(location, {}))

    def close(self) -> None:
        self._undo_swaps()
        if self.workspace is not None:
            self.workspace.__exit__(None, None, None)
            self.workspace = None
        for module in self._made_modules:
            sys.modules.pop(module, None)
        for folder in self._import_paths:
            if folder in sys.path:
                sys.path.remove(folder)
        self._made_modules, self._import_paths = [], []

    def request_context(self) -> Any:
        """The workspace as it is now."""
        return self.workspace.create_request_context()

    def origins(self) -> list[Any]:
        """What a child process needs to load the same locations."""
        return list(self._origins.values())

    def replaced_executors(self) -> Iterator[tuple[str, str, list[str]]]:
        """The locations and executors whose steps would leave this process, with the jobs that ask for them."""
        for (location, _), repository in self.repositories.items():
            for executor, jobs in replaced(repository.get_all_jobs()).items():
                yield location, executor, jobs

    # What is in them

    def assets(self) -> dict[str, Asset]:
        """Every asset by name. One that several locations know belongs to the one that executes it."""
        found: dict[str, Asset] = {}
        for (location, _), repository in self.repositories.items():
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
            self.check_partition_of(asset.name, asset.partitions, partition, instance)

    def check_partition_of(
        self, name: str, partitions: dg.PartitionsDefinition, partition: str, instance: dg.DagsterInstance
    ) -> None:
        """Refuse a partition that an asset or job of this name does not have at this moment."""
        with dagster_.partition_loading_context(dynamic_partitions_store=instance):
            if partitions.has_partition_key(partition):
                return
        keys = partitions.get_partition_keys(dynamic_partitions_store=instance)
        there = f"it has {len(keys)}, {keys[0]!r} to {keys[-1]!r}" if keys else "it has none yet"
        raise ScenarioError(
            f"{name} has no partition {partition!r} at this simulated time: {there}. {_how_partitions_come(partitions)}"
        )

    def checks_of(self, asset: str) -> set[str]:
        """The names of the checks of an asset."""
        return {
            key.name
            for repository in self.repositories.values()
            for key in repository.asset_graph.asset_check_keys
            if key.asset_key.to_user_string() == asset
        }

    def sensors(self) -> dict[tuple[str, str], Any]:
        """Every sensor, by location and name."""
        return dict(self._instigators("get_sensors"))

    def sensors_that_read_the_clock(self) -> Iterator[tuple[tuple[str, str], str]]:
        """The sensors, by location and name, that read the clock, each with the place where it does."""
        for (location, _), repository in self.repositories.items():
            for sensor in repository.sensor_defs:
                function = getattr(sensor, "__wrapped__", None) or getattr(sensor, "_raw_fn", None)
                if callable(function) and (where := clock_read_by(function)):
                    yield (location, sensor.name), where

    def schedules(self) -> dict[tuple[str, str], Any]:
        """Every schedule, by location and name."""
        return dict(self._instigators("get_schedules"))

    def tickers(self, name: str) -> list[Any]:
        """The definitions of the sensors and schedules of this name, whose ticks are functions of the project."""
        found: list[Any] = []
        for repository in self.repositories.values():
            found += [*repository.sensor_defs, *repository.schedule_defs]
        return [
            definition
            for definition in found
            if definition.name == name and not isinstance(definition, dg.AutomationConditionSensorDefinition)
        ]

    def ticks_of(self, schedule: Any, begin: datetime, end: datetime) -> Iterator[datetime]:
        """When a schedule ticks from one moment on until before another, in its own time zone."""
        cron, zone = schedule.cron_schedule, schedule.execution_timezone or "UTC"
        for at in dagster_.schedule_execution_time_iterator(begin.timestamp(), cron, zone):
            if at.timestamp() >= end.timestamp():
                return
            if at.timestamp() >= begin.timestamp():
                yield at

    def planned_tick(self, location: str, schedule: Any, at: datetime, instance: dg.DagsterInstance) -> PlannedTick:
        """What a schedule would do at this moment."""
        entry = self.request_context().get_code_location_entries()[location]
        moment = dagster_.TimestampWithTimezone(at.timestamp(), schedule.execution_timezone or "UTC")
        try:
            data = entry.code_location.get_schedule_execution_data(
                instance, schedule.handle.repository_handle, schedule.name, moment, None
            )
        except dagster_.DagsterUserCodeProcessError as error:
            root = error.user_code_process_error_infos[-1]
            return PlannedTick(at, error=message_of(root))
        runs = tuple(
            PlannedRun(request.run_key, request.partition_key, dict(request.tags), dict(request.run_config))
            for request in data.run_requests or ()
        )
        return PlannedTick(at, runs, "" if runs else data.skip_message or "")

    def check_dynamic_partitions(self, name: str) -> None:
        """Refuse a name that no asset's dynamic partitions have."""
        known = {
            partitions.name
            for asset in self.assets().values()
            for partitions in _dynamic(asset.partitions)
            if partitions.name is not None
        }
        if name not in known:
            raise unknown("dynamic partitions definition", name, known)

    def switched_off(self, location: str, instance: dg.DagsterInstance) -> list[str]:
        """The names of the sensors and schedules of a location that are off."""
        found = {**self.sensors(), **self.schedules()}
        return [
            name
            for (place, name), instigator in found.items()
            if place == location
            and not instigator.get_current_instigator_state(
                instance.get_instigator_state(instigator.get_remote_origin_id(), instigator.selector_id)
            ).is_running
        ]

    def job(self, name: str) -> tuple[str, dg.JobDefinition]:
        """The job of this name, and its code location."""
        jobs = {
            job.name: (location, job)
            for (location, _), repository in self.repositories.items()
            for job in repository.get_all_jobs()
        }
        if name not in jobs:
            raise unknown("job", name, (job for job in jobs if not job.startswith("__")))
        return jobs[name]

    def prepared_job(self, location: str, name: str) -> dg.JobDefinition:
        """A job of a location as it is to execute."""
        there = self._with_job(location, name)
        return self.prepared(there.get_job(name), there)

    def job_of_assets(self, assets: Sequence[Asset]) -> dg.JobDefinition:
        """The job that materializes these assets of one location."""
        keys = {asset.key for asset in assets}
        for (location, _), there in self.repositories.items():
            if location == assets[0].location and keys <= there.asset_graph.get_all_asset_keys():
                job = there.get_implicit_job_def_for_assets(list(keys))
                assert job is not None
                return self.prepared(job.get_subset(asset_selection=keys), there)
        raise AssertionError(f"no repository of {assets[0].location} has all of these assets")

    def remote_job(self, location: str, name: str) -> Any:
        """The job as Dagster's daemons see it."""
        entry = self.request_context().get_code_location_entries()[location]
        repositories = entry.code_location.get_repositories().values()
        return next(found for found in repositories if found.has_job(name)).get_full_job(name)

    def op_definitions(self, target: str) -> list[dg.OpDefinition]:
        """The ops that compute an asset, those of a graph asset included, or that have this name."""
        found: dict[int, dg.OpDefinition] = {}
        names = set()
        for computation in self._computations():
            names |= {computation.name, *computation.assets}
            if target in (computation.name, *computation.assets):
                found.update({id(step.op): step.op for step in computation.steps})
        for repository in self.repositories.values():
            for job in repository.get_all_jobs():
                for step in steps_of(job.graph):
                    names |= {step.op.name, step.name}
                    if target in (step.op.name, step.name):
                        found[id(step.op)] = step.op
        if not found:
            raise unknown("asset or op", target, names)
        return list(found.values())

    def assets_of(self, op: str, point: str = "") -> frozenset[str]:
        """The names of the assets that an op computes.

        A graph asset begins with its first steps and ends with those that give its results. So `point`, when it is
        "start" or "end", leaves out the graph assets of which the op is another step.
        """
        return frozenset(
            asset
            for computation in self._computations()
            for step in computation.steps
            if op in (step.name, step.op.name) and (step.first or point != START) and (step.last or point != END)
            for asset in computation.assets
        )

    def ops_of(self, location: str, job: str, assets: Iterable[str]) -> set[str]:
        """The names of the ops that a run of these assets, or of the whole job, executes."""
        chosen = set(assets)
        if chosen:
            return {
                step.op.name
                for computation in self._computations()
                if computation.location == location and chosen & computation.assets
                for step in computation.steps
            }
        return {step.op.name for step in steps_of(self._with_job(location, job).get_job(job).graph)}

    def _computations(self) -> list[Computation]:
        """What computes the assets of all locations; found once for each load."""
        if self._known_computations is None:
            definitions = {
                id(definition): (location, definition)
                for (location, _), repository in self.repositories.items()
                for definition in repository.assets_defs_by_key.values()
                if definition.is_executable
            }
            self._known_computations = [
                Computation(
                    location,
                    definition.node_def.name,
                    frozenset(key.to_user_string() for key in definition.keys),
                    tuple(steps_of(definition.node_def)),
                )
                for location, definition in definitions.values()
            ]
        return self._known_computations

    def repository_of(self, run: dg.DagsterRun) -> dg.RepositoryDefinition:
        """The repository that a run belongs to."""
        origin = run.remote_job_origin
        location = origin.location_name if origin else ""
        name = origin.repository_origin.repository_name if origin else ""
        if (location, name) not in self.repositories:
            loaded = ", ".join(sorted({location for location, _ in self.repositories}))
            raise ScenarioError(
                f"a run of job {run.job_name!r} belongs to code location {location!r}, which is not loaded; "
                f"loaded are {loaded or 'none'}"
            )
        return self.repositories[location, name]

    def _with_job(self, location: str, job: str) -> dg.RepositoryDefinition:
        """The repository of a location that has this job."""
        there = [repository for (place, _), repository in self.repositories.items() if place == location]
        return next((found for found in there if found.has_job(job)), there[0])

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


def _with_top_level_resources(repository: Any, resources: Mapping[str, Any]) -> Callable[[], None]:
    """Let a repository give other resources to its sensors and schedules. Returns what ends that."""
    repository.get_top_level_resources = lambda: resources
    return lambda: delattr(repository, "get_top_level_resources")


def _dynamic(partitions: dg.PartitionsDefinition | None) -> Iterator[dg.DynamicPartitionsDefinition]:
    if isinstance(partitions, dg.DynamicPartitionsDefinition):
        yield partitions
    elif isinstance(partitions, dg.MultiPartitionsDefinition):
        for dimension in partitions.partitions_defs:
            yield from _dynamic(dimension.partitions_def)


def _how_partitions_come(partitions: dg.PartitionsDefinition) -> str:
    """What makes a partition of this kind, for an error about one that is not there."""
    if any(_time_windows(partitions)):
        return "A day's partition is there once the day is over; move the clock, or name another"
    if isinstance(partitions, dg.DynamicPartitionsDefinition):
        return (
            f"Its partitions are added by the code under test, or by scenario.add_partitions({partitions.name!r}, ...)"
        )
    return "Its partitions are fixed in its definition; name another"


def _time_windows(partitions: dg.PartitionsDefinition | None) -> Iterator[dg.TimeWindowPartitionsDefinition]:
    if isinstance(partitions, dg.TimeWindowPartitionsDefinition):
        yield partitions
    elif isinstance(partitions, dg.MultiPartitionsDefinition):
        for dimension in partitions.partitions_defs:
            yield from _time_windows(dimension.partitions_def)
