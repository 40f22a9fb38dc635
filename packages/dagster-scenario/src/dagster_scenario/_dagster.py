"""Everything that the harness takes from Dagster's private modules, and nothing else does.

Dagster has no public way to step its daemons. What stands here is what its own daemon tests use. A release of
Dagster may move any of it: `SUPPORTED` says which releases are known to work, and `moved()` which names are gone.
"""

import sys

from dagster import AutomationCondition, Executor
from dagster._config.pythonic_config import ConfigurableResourceFactory
from dagster._core.asset_graph_view.serializable_entity_subset import SerializableEntitySubset
from dagster._core.decorator_utils import has_at_least_one_parameter
from dagster._core.definitions.declarative_automation.automation_condition import AutomationResult
from dagster._core.definitions.declarative_automation.automation_context import AutomationContext
from dagster._core.definitions.declarative_automation.serialized_objects import get_serializable_true_subset
from dagster._core.definitions.decorators.op_decorator import DecoratedOpFunction
from dagster._core.definitions.dependency import NodeHandle
from dagster._core.definitions.executor_definition import in_process_executor, multi_or_in_process_executor
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.definitions.scoped_resources_builder import ScopedResourcesBuilder
from dagster._core.definitions.selector import JobSubsetSelector, PartitionsByAssetSelector, PartitionsSelector
from dagster._core.definitions.sensor_definition import get_context_param_name
from dagster._core.definitions.timestamp import TimestampWithTimezone
from dagster._core.errors import DagsterSubprocessError, DagsterUserCodeProcessError
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.api import execute_plan_iterator, execute_run
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.execution.build_resources import wrap_resources_for_execution
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.retries import RetryMode
from dagster._core.execution.step_dependency_config import StepDependencyConfig
from dagster._core.execution.submit_asset_runs import get_job_execution_data_from_run_request, submit_asset_run
from dagster._core.executor.in_process import InProcessExecutor
from dagster._core.instance.config import dagster_instance_config_schema
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._core.remote_origin import InProcessCodeLocationOrigin, ManagedGrpcPythonEnvCodeLocationOrigin
from dagster._core.remote_representation.code_location import InProcessCodeLocation
from dagster._core.remote_representation.external import RemoteSchedule, RemoteSensor
from dagster._core.scheduler.instigation import InstigatorState, InstigatorTick, InstigatorType, TickData, TickStatus
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.event_log.schema import PendingStepsTable
from dagster._core.storage.event_log.sqlite.consolidated_sqlite_event_log import ConsolidatedSqliteEventLogStorage
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage
from dagster._core.system_config.objects import ResolvedRunConfig
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.utils import make_new_backfill_id
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget, WorkspaceFileTarget
from dagster._daemon.asset_daemon import (
    asset_daemon_cursor_from_instigator_serialized_cursor,
    asset_daemon_cursor_to_instigator_serialized_cursor,
)
from dagster._daemon.controller import create_daemon_of_type
from dagster._daemon.daemon import DagsterDaemon, SpanMarker
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster._time import get_timezone
from dagster._utils.error import serializable_error_info_from_exc_info
from dagster._utils.schedules import CroniterShim, cron_string_iterator, schedule_execution_time_iterator
from dagster.components.definitions import LazyDefinitions
from dagster_shared.error import SerializableErrorInfo

from dagster_scenario._supported import SUPPORTED, moved

# How an executor records a step that ended without an event of its own; a release of 1.13 has renamed it.
after_error = getattr(Executor, "log_failure_or_retry_event_after_error", None) or getattr(
    Executor, "get_failure_or_retry_event_after_error", None
)

# What is computed once while a scenario is open, for each object, or for what the object has under the third name. It
# depends on that alone.
REMEMBERED: list[tuple[object, str, str | None]] = [
    (RemoteSensor, "get_remote_origin_id", None),
    (RemoteSchedule, "get_remote_origin_id", None),
    (AutomationCondition, "has_rule_condition", None),
    (AutomationCondition, "get_node_unique_ids", None),
    (InstigatorState, "selector_id", "origin"),
    (ScopedResourcesBuilder, "build_empty", None),
    (sys.modules[get_context_param_name.__module__], "get_context_param_name", None),
]

# What tells the time at which a node of a condition began and ended.
TIMES_OF_NODES = [
    (sys.modules[AutomationContext.__module__], "get_current_datetime"),
    (sys.modules[AutomationResult.__module__], "get_current_timestamp"),
]

# The module of the automation daemon, and its functions that write and read the cursor of an automation sensor.
ASSET_DAEMON = sys.modules[asset_daemon_cursor_to_instigator_serialized_cursor.__module__]
WRITE_CURSOR = asset_daemon_cursor_to_instigator_serialized_cursor.__name__
READ_CURSOR = asset_daemon_cursor_from_instigator_serialized_cursor.__name__

# The module in which Dagster's iterator over the dates of a cron expression is, and its name.
SCHEDULES = sys.modules[cron_string_iterator.__module__]
CRON_DATES = "_croniter_string_iterator"

__all__ = [
    "ASSET_DAEMON",
    "CRON_DATES",
    "READ_CURSOR",
    "REMEMBERED",
    "SCHEDULES",
    "SUPPORTED",
    "TIMES_OF_NODES",
    "WRITE_CURSOR",
    "ActiveExecution",
    "AutomationContext",
    "AutomationResult",
    "CheckRunHealthResult",
    "ConfigurableClass",
    "ConfigurableClassData",
    "ConfigurableResourceFactory",
    "ConsolidatedSqliteEventLogStorage",
    "CroniterShim",
    "DagsterDaemon",
    "DagsterStorage",
    "DagsterSubprocessError",
    "DagsterUserCodeProcessError",
    "DecoratedOpFunction",
    "EventLogEntry",
    "InMemoryJob",
    "InProcessCodeLocation",
    "InProcessCodeLocationOrigin",
    "InProcessExecutor",
    "InProcessWorkspaceLoadTarget",
    "InstanceConcurrencyContext",
    "InstanceRef",
    "InstigatorState",
    "InstigatorTick",
    "InstigatorType",
    "JobSubsetSelector",
    "LaunchRunContext",
    "LazyDefinitions",
    "LoadableTargetOrigin",
    "ManagedGrpcPythonEnvCodeLocationOrigin",
    "NodeHandle",
    "PartitionBackfill",
    "PartitionsByAssetSelector",
    "PartitionsSelector",
    "PendingStepsTable",
    "RemoteSchedule",
    "RemoteSensor",
    "ResolvedRunConfig",
    "RetryMode",
    "RunLauncher",
    "SerializableEntitySubset",
    "SerializableErrorInfo",
    "SpanMarker",
    "SqliteRunStorage",
    "SqliteScheduleStorage",
    "StepDependencyConfig",
    "TickData",
    "TickStatus",
    "TimestampWithTimezone",
    "WorkerStatus",
    "WorkspaceFileTarget",
    "WorkspaceProcessContext",
    "after_error",
    "create_daemon_of_type",
    "cron_string_iterator",
    "dagster_instance_config_schema",
    "execute_plan_iterator",
    "execute_run",
    "get_job_execution_data_from_run_request",
    "get_serializable_true_subset",
    "get_timezone",
    "has_at_least_one_parameter",
    "in_process_executor",
    "make_new_backfill_id",
    "moved",
    "multi_or_in_process_executor",
    "partition_loading_context",
    "schedule_execution_time_iterator",
    "serializable_error_info_from_exc_info",
    "submit_asset_run",
    "wrap_resources_for_execution",
]
