"""Which releases of Dagster the harness works with, and which of the private names that it takes are gone.

Nothing here imports Dagster, so it can be asked when `_dagster` itself can't be imported.
"""

import ast
import importlib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

# The releases of Dagster that the harness is tested with; pyproject.toml asks for the same.
SUPPORTED = ">=1.12,<1.14"

# What the harness reads or sets on Dagster's objects, beside the names that `_dagster` imports.
_ATTRIBUTES = [
    ("dagster._daemon.daemon", "DagsterDaemon", "core_loop"),
    ("dagster._core.remote_representation.code_location", "InProcessCodeLocation", "_get_repo_def"),
    ("dagster._core.remote_representation.code_location", "InProcessCodeLocation", "get_reconstructable_job"),
    ("dagster._core.definitions.job_definition", "JobDefinition", "_copy"),
    ("dagster._core.definitions.repository_definition", "RepositoryDefinition", "get_top_level_resources"),
    (
        "dagster._core.storage.event_log.sqlite.consolidated_sqlite_event_log",
        "ConsolidatedSqliteEventLogStorage",
        "_connect",
    ),
    ("dagster._core.storage.runs.sqlite.sqlite_run_storage", "SqliteRunStorage", "connect"),
    ("dagster._core.storage.schedules.sqlite.sqlite_schedule_storage", "SqliteScheduleStorage", "connect"),
    ("dagster._core.workspace.context", "WorkspaceProcessContext", "create_request_context"),
    ("dagster._core.scheduler.instigation", "InstigatorState", "with_data"),
    ("dagster._core.execution.backfill", "PartitionBackfill", "from_asset_partitions"),
    ("dagster._core.execution.plan.active", "ActiveExecution", "sleep_til_ready"),
    ("dagster._core.execution.plan.active", "ActiveExecution", "get_steps_to_execute"),
    ("dagster._core.execution.plan.active", "ActiveExecution", "concurrency_event_iterator"),
    ("dagster._core.execution.plan.active", "ActiveExecution", "plan_events_iterator"),
    ("dagster._core.execution.plan.active", "ActiveExecution", "verify_complete"),
    ("dagster._core.execution.plan.plan", "ExecutionPlan", "build_subset_plan"),
    ("dagster._core.execution.plan.plan", "ExecutionPlan", "get_steps_to_execute_by_level"),
    (
        "dagster._core.definitions.declarative_automation.automation_condition",
        "AutomationResult",
        "get_new_cursor",
    ),
    (
        "dagster._core.definitions.declarative_automation.automation_context",
        "AutomationContext",
        "evaluate_async",
    ),
    ("dagster", "AutomationCondition", "has_rule_condition"),
    ("dagster", "AutomationCondition", "get_node_unique_ids"),
    ("dagster._core.remote_representation.external", "RemoteSensor", "get_remote_origin_id"),
    ("dagster._core.remote_representation.external", "RemoteSchedule", "get_remote_origin_id"),
]


def moved(source: str | None = None) -> list[str]:
    """What the harness takes from Dagster and the installed release does not have, in words.

    Args:
        source: Python source whose `from dagster... import ...` lines are tried; that of `_dagster` by default.
    """
    text = Path(__file__).with_name("_dagster.py").read_text(encoding="utf-8") if source is None else source
    names = list(_imports(text))
    gone = [f"{module}.{name}" for module, name in names if _get(module, name) is None]
    for module, class_, attribute in _ATTRIBUTES if source is None else []:
        owner = _get(module, class_)
        if owner is not None and not hasattr(owner, attribute):
            gone.append(f"{class_}.{attribute}")
    return [f"{name} is gone in Dagster {version('dagster')}; supported is {SUPPORTED}" for name in gone]


def explanation(error: ImportError) -> str:
    """Why the harness can't be imported beside the installed Dagster, and what to do."""
    gone = [line.partition(" is gone")[0] for line in moved()]
    return (
        f"dagster-scenario does not work with the installed Dagster {version('dagster')} ({error}). "
        f"It works with Dagster {SUPPORTED}: pip install 'dagster{SUPPORTED}'. "
        f"Not in this release: {', '.join(gone) or 'no name that is known of'}"
    )


def _imports(source: str) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] in ("dagster", "dagster_shared")
        ):
            yield from ((node.module, alias.name) for alias in node.names)


def _get(module: str, name: str) -> object | None:
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
