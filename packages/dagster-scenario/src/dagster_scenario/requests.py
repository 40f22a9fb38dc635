"""What the people around a pipeline do by hand: request runs and backfills, report data, flip switches."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dagster as dg

from dagster_scenario import _dagster as dagster_
from dagster_scenario import timeline as timeline_
from dagster_scenario.clock import Clock
from dagster_scenario.errors import ScenarioError, unknown
from dagster_scenario.locations import Asset, Locations
from dagster_scenario.quiet import without_dagsters_warnings
from dagster_scenario.run_config import in_plain_words
from dagster_scenario.timeline import Timeline

_log = logging.getLogger("dagster_scenario")


class Requests:
    """What a user does in Dagster's UI, as verbs of a scenario. Everything begins with the next tick."""

    clock: Clock
    timeline: Timeline
    instance: dg.DagsterInstance
    _locations: Locations
    _changed: Callable[[str, str], None]
    _requested: Callable[[], None]

    def materialize(
        self, *assets: str | dg.AssetKey, partition: str | None = None, run_config: Mapping[str, Any] | None = None
    ) -> None:
        """Request a run of these assets of one code location, as the UI's button does."""
        chosen = [self._locations.asset(asset) for asset in assets]
        if not chosen:
            raise ScenarioError("which assets? As in scenario.materialize('orders', partition='2024-01-31')")
        for asset in chosen:
            _refuse_external(asset)
            if partition is not None:
                self._locations.check_partitions(asset, [partition], self.instance)
            elif asset.partitions is not None:
                raise ScenarioError(f"{asset.name} is partitioned; say which: materialize(..., partition=...)")
        request = dg.RunRequest(
            asset_selection=[asset.key for asset in chosen],
            partition_key=partition,
            run_config=dict(run_config or {}),
            tags={"dagster/partition": partition} if partition is not None else {},
        )
        workspace, context = self._locations.workspace, self._locations.request_context()
        names = ", ".join(repr(asset.name) for asset in chosen)
        with in_plain_words(f"materialize({names})", lambda: self._locations.job_of_assets(chosen)):
            _until_done(dagster_.submit_asset_run(None, request, 0, self.instance, workspace, context, {}, {}, _log))
        self._requested()

    def launch(
        self,
        job: str,
        partition: str | None = None,
        *,
        run_config: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Request a run of a job, as the UI's launchpad does.

        Without a run_config it has the job's own, for this partition if the job is partitioned.
        """
        location, definition = self._locations.job(job)
        config, all_tags = dict(run_config or {}), dict(tags or {})
        if definition.partitions_def is not None:
            if partition is None:
                raise ScenarioError(f"job {job!r} is partitioned; say which: launch({job!r}, '2024-01-31')")
            self._locations.check_partition_of(job, definition.partitions_def, partition, self.instance)
            partitioned: Any = definition.partitioned_config
            config = config or dict(partitioned.get_run_config_for_partition_key(partition))
            all_tags = {**partitioned.get_tags_for_partition_key(partition, job_name=job), **all_tags}
        elif partition is not None:
            raise ScenarioError(f"job {job!r} is not partitioned; leave the partition out")
        context = self._locations.request_context()
        remote = self._locations.remote_job(location, job)
        with in_plain_words(f"launch({job!r})", lambda: self._locations.prepared_job(location, job)):
            plan = context.get_execution_plan(remote, config, step_keys_to_execute=None, known_state=None)
        run = self.instance.create_run(
            job_name=job,
            run_id=None,
            run_config=config,
            status=dg.DagsterRunStatus.NOT_STARTED,
            tags={**remote.tags, **all_tags},
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=None,
            execution_plan_snapshot=plan.execution_plan_snapshot,
            job_snapshot=remote.job_snapshot,
            parent_job_snapshot=remote.parent_job_snapshot,
            asset_selection=None,
            asset_check_selection=None,
            resolved_op_selection=None,
            op_selection=None,
            remote_job_origin=remote.get_remote_origin(),
            job_code_origin=remote.get_python_origin(),
            asset_graph=context.asset_graph,
        )
        self.instance.submit_run(run.run_id, context)
        self._requested()

    def backfill(self, *assets: str | dg.AssetKey, partitions: Sequence[str]) -> None:
        """Request a backfill of these partitions. Dagster's backfill daemon takes it from there."""
        if isinstance(partitions, str):
            raise ScenarioError(f"partitions={partitions!r} is one text; give a list: partitions=[{partitions!r}]")
        if not assets or not partitions:
            raise ScenarioError(
                "which assets, and which of their partitions? As in scenario.backfill('orders', partitions=[...])"
            )
        chosen = [self._locations.asset(asset) for asset in assets]
        for asset in chosen:
            _refuse_external(asset)
            self._locations.check_partitions(asset, partitions, self.instance)
        with without_dagsters_warnings():
            backfill = self._backfill_of([asset.key for asset in chosen], partitions)
        self.instance.add_backfill(backfill)
        self._requested()

    def _backfill_of(self, assets: list[dg.AssetKey], partitions: Sequence[str]) -> Any:
        return dagster_.PartitionBackfill.from_asset_partitions(
            backfill_id=dagster_.make_new_backfill_id(),
            asset_graph=self._locations.request_context().asset_graph,
            partition_names=list(partitions),
            asset_selection=assets,
            backfill_timestamp=self.clock.instant.timestamp(),
            tags={},
            dynamic_partitions_store=self.instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )

    def report(
        self,
        asset: str | dg.AssetKey,
        partition: str | None = None,
        data_version: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Report a materialization of an asset, as its owner would through Dagster's API."""
        known = self._locations.asset(asset)
        if partition is not None:
            self._locations.check_partitions(known, [partition], self.instance)
        elif known.partitions is not None:
            raise ScenarioError(f"{known.name} is partitioned; say which: report({known.name!r}, '2024-01-31')")
        tags = {"dagster/data_version": data_version} if data_version else {}
        event = dg.AssetMaterialization(known.key, partition=partition, tags=tags, metadata=metadata)
        self.instance.report_runless_asset_event(event)
        self._requested()

    def add_partitions(self, name: str, *partitions: str) -> None:
        """Add partitions to the DynamicPartitionsDefinition of this name."""
        self._locations.check_dynamic_partitions(name)
        self.instance.add_dynamic_partitions(name, list(partitions))
        self._requested()

    def remove_partitions(self, name: str, *partitions: str) -> None:
        """Remove partitions from the DynamicPartitionsDefinition of this name."""
        self._locations.check_dynamic_partitions(name)
        for partition in partitions:
            if not self.instance.has_dynamic_partition(name, partition):
                raise unknown("partition", partition, self.instance.get_dynamic_partitions(name), where=f" in {name}")
            self.instance.delete_dynamic_partition(name, partition)
        self._requested()

    def cancel(self, target: str) -> None:
        """Terminate the runs of this asset or job that are queued or under way, as the UI's button does."""
        runs = [
            run
            for run in self.timeline.runs.values()
            if run.ended is None and (target in run.assets or target == run.job)
        ]
        if not runs:
            raise ScenarioError(f"no run of {target!r} is queued or under way")
        for run in runs:
            self.instance.run_coordinator.cancel_run(run.id)
        self._requested()

    def turn_on(self, *names: str) -> None:
        """Turn sensors and schedules on, all by default, as the UI's switch does."""
        for instigator in self._sensors_and_schedules(names):
            if isinstance(instigator, dagster_.RemoteSensor):
                self.instance.start_sensor(instigator)
            else:
                self.instance.start_schedule(instigator)
        self._changed(timeline_.DAEMON, f"turned on: {', '.join(names) or 'everything'}")

    def turn_off(self, *names: str) -> None:
        """Turn sensors and schedules off, all by default."""
        for instigator in self._sensors_and_schedules(names):
            origin, selector = instigator.get_remote_origin_id(), instigator.selector_id
            if isinstance(instigator, dagster_.RemoteSensor):
                self.instance.stop_sensor(origin, selector, instigator)
            else:
                self.instance.stop_schedule(origin, selector, instigator)
        self._changed(timeline_.DAEMON, f"turned off: {', '.join(names) or 'everything'}")

    def _sensors_and_schedules(self, names: Sequence[str]) -> list[Any]:
        found = {**self._locations.sensors(), **self._locations.schedules()}
        known = {name for _, name in found}
        for name in names:
            if name not in known:
                raise unknown("sensor or schedule", name, known)
        return [instigator for (_, name), instigator in found.items() if not names or name in names]


def _until_done(work: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine to its end, also where an event loop runs already, as in an `async def` test."""
    if _in_an_event_loop():
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, work).result()
    else:
        asyncio.run(work)


def _in_an_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _refuse_external(asset: Asset) -> None:
    if not asset.executable:
        raise ScenarioError(f"{asset.name} is an external asset, which no run materializes; report it instead")
