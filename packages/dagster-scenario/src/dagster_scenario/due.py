"""What falls due, and when: schedules, ends of partitions, cron conditions, freshness. Of these, only what is on."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

import dagster as dg

from dagster_scenario import _dagster as dagster_
from dagster_scenario.locations import AUTOMATION

# A cron expression and its time zone.
Cron = tuple[str, str]


class Due:
    """The moments at which something is to happen in the loaded code locations.

    repositories: by location. sensors, schedules: as Dagster's daemons see them.
    """

    def __init__(
        self,
        instance: Any,
        repositories: Iterable[dg.RepositoryDefinition],
        sensors: Iterable[Any],
        schedules: Iterable[Any],
    ) -> None:
        self._instance = instance
        self._sensors, self._schedules = list(sensors), list(schedules)
        nodes = [node for repository in repositories for node in _nodes(repository)]
        self._partitions = {cron for node in nodes for cron in _partition_crons(node.partitions_def)}
        self._conditions = {cron for node in nodes for cron in _condition_crons(node.automation_condition)}
        self._freshness = {
            node.key.to_user_string(): policy
            for node in nodes
            if (policy := getattr(node, "freshness_policy_or_from_metadata", None)) is not None
        }
        # The next moment of each cron, and from when on it is the next one.
        self._next: dict[Cron, tuple[datetime, datetime]] = {}

    def after(
        self, now: datetime, daemons: Collection[str], materialized: Mapping[str, datetime]
    ) -> Iterator[datetime]:
        """The next moments after now, in UTC. daemons: those that run. materialized: each asset's last time."""
        for cron in self._crons(daemons):
            yield self._next_after(now, cron)
        if "freshness" in daemons:
            yield from self._freshness_changes(now, materialized)

    @property
    def has_freshness(self) -> bool:
        """Whether an asset has a freshness policy."""
        return bool(self._freshness)

    def running(self, instigators: Iterable[Any]) -> Iterator[Any]:
        """Those of these sensors and schedules that are on."""
        states = {state.selector_id: state for state in self._instance.all_instigator_state()}
        for instigator in instigators:
            if instigator.get_current_instigator_state(states.get(instigator.selector_id)).is_running:
                yield instigator

    def running_sensors(self) -> list[Any]:
        """The sensors that are on, those of automation conditions among them."""
        return list(self.running(self._sensors))

    def _crons(self, daemons: Collection[str]) -> set[Cron]:
        crons: set[Cron] = set()
        if "schedules" in daemons:
            for schedule in self.running(self._schedules):
                expressions = schedule.cron_schedule
                zone = schedule.execution_timezone or "UTC"
                crons |= {(cron, zone) for cron in ([expressions] if isinstance(expressions, str) else expressions)}
        if sensors := self.running_sensors():
            # Any sensor may ask which partitions there are.
            crons |= self._partitions
            if any(sensor.sensor_type.value in AUTOMATION for sensor in sensors):
                crons |= self._conditions
        return crons

    def _next_after(self, now: datetime, cron: Cron) -> datetime:
        since, moment = self._next.get(cron, (now, now))
        if not since <= now < moment:
            moment = next(
                moment
                for moment in dagster_.cron_string_iterator(now.timestamp(), *cron)
                if moment.timestamp() > now.timestamp()
            ).astimezone(timezone.utc)
            self._next[cron] = (now, moment)
        return moment

    def _freshness_changes(self, now: datetime, materialized: Mapping[str, datetime]) -> Iterator[datetime]:
        """When assets are late by their freshness policies."""
        for asset, policy in self._freshness.items():
            if deadline := getattr(policy, "deadline_cron", None):
                yield self._next_after(now, (deadline, policy.timezone))
            elif last := materialized.get(asset):
                for window in (policy.warn_window, policy.fail_window):
                    late = last + window.to_timedelta() if window is not None else now
                    if late > now:
                        yield late


def _nodes(repository: dg.RepositoryDefinition) -> list[Any]:
    graph = repository.asset_graph
    return [*graph.asset_nodes, *(graph.get(key) for key in graph.asset_check_keys)]


def _partition_crons(partitions: dg.PartitionsDefinition | None) -> Iterator[Cron]:
    if isinstance(partitions, dg.TimeWindowPartitionsDefinition):
        yield partitions.cron_schedule, partitions.timezone
    elif isinstance(partitions, dg.MultiPartitionsDefinition):
        for dimension in partitions.partitions_defs:
            yield from _partition_crons(dimension.partitions_def)


def _condition_crons(condition: Any) -> Iterator[Cron]:
    if condition is not None:
        if hasattr(condition, "cron_schedule"):
            yield condition.cron_schedule, condition.cron_timezone
        for child in condition.children:
            yield from _condition_crons(child)
