"""Everything that this package takes from Dagster's private modules. `tests/test_supported_dagster.py` watches it."""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from dagster import DagsterRun
from dagster._core.errors import DagsterLaunchFailedError
from dagster._core.events import EngineEventData
from dagster._core.instance import InstanceRef
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, ManagedGrpcPythonEnvCodeLocationOrigin
from dagster._grpc.types import ExecuteExternalJobArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData, deserialize_value, serialize_value
from dagster._utils import get_run_crash_explanation
from dagster._utils.hosted_user_process import recon_job_from_origin, recon_repository_from_origin
from dagster._utils.interrupts import capture_interrupts
from dagster._utils.path import is_likely_venv_executable

# The releases that the tests have seen. pyproject.toml says the same.
SUPPORTED = ">=1.12,<1.14"

__all__ = [
    "SUPPORTED",
    "CheckRunHealthResult",
    "ConfigurableClass",
    "ConfigurableClassData",
    "EngineEventData",
    "GrpcServerCodeLocationOrigin",
    "InstanceRef",
    "JobPythonOrigin",
    "LaunchRunContext",
    "ManagedGrpcPythonEnvCodeLocationOrigin",
    "RepositoryPythonOrigin",
    "WorkerStatus",
    "capture_interrupts",
    "deserialize_value",
    "execute_run",
    "get_run_crash_explanation",
    "import_instance_classes",
    "import_repository",
    "inject_environment",
    "is_likely_venv_executable",
    "launch_failed",
    "run_arguments",
    "serialize_value",
    "server_id",
]

# What a run imports between its start and its first step, besides its location: 0.2 s. Not every release has all.
IMPORTED_BY_A_RUN = (
    "dagster._core.execution.plan.active",
    "dagster._core.executor.in_process",
    "dagster._core.executor.multiprocess",
    "dagster._core.instance.factory",
    "dagster._core.storage.migration.utils",
    "dagster._core.system_config.composite_descent",
    "dagster._grpc.impl",
    "multiprocessing.synchronize",
    "multiprocessing.util",
    "upath.implementations.local",
)


def import_repository(serialized_origin: str) -> str:
    """Import a code location, as a run's process does before its first step.

    Returns:
        The repository's name.
    """
    origin = deserialize_value(serialized_origin, RepositoryPythonOrigin)
    return recon_repository_from_origin(origin).get_definition().name


def import_instance_classes(serialized_instance_ref: str) -> None:
    """Import the classes of an instance's storages, and nothing else: no connection is opened."""
    reference = deserialize_value(serialized_instance_ref, InstanceRef)
    for value in reference._asdict().values():
        if isinstance(value, ConfigurableClassData):
            importlib.import_module(value.module_name)
    for module in IMPORTED_BY_A_RUN:
        with suppress(ImportError):
            importlib.import_module(module)


def inject_environment(serialized_instance_ref: str, location_name: str) -> dict[str, str]:
    """Return the environment variables that the instance gives to a code location: `.env`, by default."""
    loader = deserialize_value(serialized_instance_ref, InstanceRef).secrets_loader
    return dict(loader.get_secrets_for_environment(location_name)) if loader else {}


def execute_run(
    serialized_arguments: str,
    serialized_job_origin: str,
    started: Callable[[], None],
    failed: Callable[[str | None, str], None],
) -> None:
    """Execute a run, exactly as the process does that Dagster's code server starts for one.

    Args:
        serialized_arguments: `ExecuteExternalJobArgs`.
        serialized_job_origin: `JobPythonOrigin`.
        started: Called when the instance and the run are found, before anything is executed.
        failed: Called with a message and a serialized error if they are not.
    """
    from dagster._grpc.impl import IPCErrorMessage, StartRunInSubprocessSuccessful, start_run_in_subprocess

    class Events:
        def put(self, event: object) -> None:
            if isinstance(event, StartRunInSubprocessSuccessful):
                started()
            elif isinstance(event, IPCErrorMessage):
                failed(event.message, serialize_value(event.serializable_error_info))

    job = recon_job_from_origin(deserialize_value(serialized_job_origin, JobPythonOrigin))
    # This process is terminated by a signal, and not by that event: it needs no connection to anybody for it.
    start_run_in_subprocess(serialized_arguments, job, Events(), multiprocessing.Event())  # type: ignore[no-untyped-call]


def run_arguments(run: DagsterRun, instance_ref: InstanceRef) -> str:
    """Return what a code server is told about a run that it has to start, serialized."""
    assert run.remote_job_origin is not None
    return serialize_value(
        ExecuteExternalJobArgs(job_origin=run.remote_job_origin, run_id=run.run_id, instance_ref=instance_ref)
    )


def launch_failed(message: str | None, serialized_error: str | None = None) -> DagsterLaunchFailedError:
    """Return the error of a run that could not be started."""
    error = deserialize_value(serialized_error) if serialized_error else None
    return DagsterLaunchFailedError(message, serializable_error_info=error)  # type: ignore[no-untyped-call]


def server_id(context: LaunchRunContext, run: DagsterRun) -> str | None:
    """Return the id of the code server that a run's location was loaded from. Each reload makes a new one."""
    from dagster._core.remote_representation.code_location import GrpcServerCodeLocation

    if context.workspace is None or run.remote_job_origin is None:
        return None
    name = run.remote_job_origin.repository_origin.code_location_origin.location_name
    location: Any = context.workspace.get_code_location(name)
    return location.server_id if isinstance(location, GrpcServerCodeLocation) else None
