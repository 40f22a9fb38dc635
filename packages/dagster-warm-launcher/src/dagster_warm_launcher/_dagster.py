"""Everything that this package takes from Dagster's private modules. `tests/test_supported_dagster.py` watches it."""

from __future__ import annotations

import importlib
import inspect
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.context import SpawnContext
from typing import Any, NamedTuple, Protocol

from dagster import DagsterInstance, DagsterRun
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext
from dagster._core.errors import DagsterLaunchFailedError
from dagster._core.instance import InstanceRef
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT, JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import (
    CodeLocationOrigin,
    GrpcServerCodeLocationOrigin,
    ManagedGrpcPythonEnvCodeLocationOrigin,
)
from dagster._grpc.types import ExecuteExternalJobArgs
from dagster._serdes import ConfigurableClassData, deserialize_value, serialize_value
from dagster._utils.hosted_user_process import recon_job_from_origin, recon_repository_from_origin
from dagster._utils.interrupts import capture_interrupts
from dagster._utils.path import is_likely_venv_executable

# The releases that the tests have seen. pyproject.toml says the same.
SUPPORTED = ">=1.12,<1.14"

__all__ = [
    "SUPPORTED",
    "CheckRunHealthResult",
    "CodeServer",
    "ConfigurableClassData",
    "GrpcServerCodeLocationOrigin",
    "InstanceRef",
    "JobPythonOrigin",
    "LaunchRunContext",
    "LoadedLocation",
    "ManagedGrpcPythonEnvCodeLocationOrigin",
    "RepositoryPythonOrigin",
    "WorkerStatus",
    "capture_interrupts",
    "deserialize_value",
    "execute_run",
    "import_instance_classes",
    "import_repository",
    "inject_environment",
    "instance_ref_of",
    "is_likely_venv_executable",
    "is_needed",
    "launch_failed",
    "load_data_of",
    "loaded_location",
    "run_arguments",
    "run_code_server",
    "run_not_started",
    "run_started",
    "serialize_value",
    "socket_of",
    "steps_start_in",
    "use_code_server",
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


def import_repository(serialized_origin: str, serialized_load_data: str | None) -> None:
    """Import a code location, as a run's process does before its first step.

    Args:
        serialized_origin: `RepositoryPythonOrigin`.
        serialized_load_data: `RepositoryLoadData`, if the run has any.
    """
    origin = deserialize_value(serialized_origin, RepositoryPythonOrigin)
    repository = recon_repository_from_origin(origin)
    if serialized_load_data:
        load_data: Any = deserialize_value(serialized_load_data)
        repository = repository.with_repository_load_data(load_data)
    repository.get_definition()


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


def steps_start_in(multiprocessing_with_context: Any) -> None:
    """Let the multiprocess executor of this process take its contexts from there, instead of from `multiprocessing`."""
    from dagster._core.executor import multiprocess

    multiprocess.multiprocessing = multiprocessing_with_context  # type: ignore[attr-defined]


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


def load_data_of(instance: DagsterInstance, execution_plan_id: str) -> str | None:
    """Return what the definitions of a run with this plan are rebuilt from, serialized."""
    data = instance.get_execution_plan_snapshot(execution_plan_id).repository_load_data
    return serialize_value(data) if data else None


def is_needed(serialized_load_data: str | None) -> bool:
    """Return whether definitions can't be built without these data, `RepositoryLoadData`."""
    data: Any = deserialize_value(serialized_load_data) if serialized_load_data else None
    # The name of the code location is always there.
    return bool(data and (data.cacheable_asset_data or data.reconstruction_metadata or data.defs_state_info))


def instance_ref_of(serialized_arguments: str) -> str:
    """Return the instance of a run that a code server is told to start, serialized."""
    arguments: ExecuteExternalJobArgs = deserialize_value(serialized_arguments, ExecuteExternalJobArgs)
    assert arguments.instance_ref is not None
    return serialize_value(arguments.instance_ref)


def run_started() -> object:
    """Return what a run's process puts into its queue when it executes the run."""
    from dagster._grpc.impl import StartRunInSubprocessSuccessful

    return StartRunInSubprocessSuccessful()


def run_not_started(message: str | None, serialized_error: str) -> object:
    """Return what a run's process puts into its queue when it can't execute the run."""
    from dagster._grpc.impl import IPCErrorMessage

    error: Any = deserialize_value(serialized_error)
    return IPCErrorMessage(serializable_error_info=error, message=message)


class CodeServer(Protocol):
    """What `use_code_server` asks and tells."""

    def own_address(self, address: str) -> str: ...
    def before_it_starts(self, location_name: str, instance_ref: str | None, load: Callable[[], bool]) -> None: ...
    def serves(self) -> None: ...
    def is_replaced(self) -> bool: ...
    def reload(self, timeout: float) -> bool: ...
    def context(self, spawn: SpawnContext, load_data_for: Callable[[Any], str | None]) -> Any: ...


RELOAD_SECONDS = 120
# How long what a server that was replaced is asked already may take.
GRACE_SECONDS = 60
# How long clients may take to hear that a server serves nothing new.
GOODBYE_SECONDS = 0.3


def use_code_server(warm: CodeServer) -> None:
    """Let `dagster api grpc` in this process ask and tell `warm`."""
    from dagster._grpc import server
    from dagster._grpc.__generated__ import dagster_api_pb2

    listening: list[Any] = []

    class WarmApiServer(server.DagsterApiServer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            name = kwargs.get("location_name") or _target_name(kwargs["loadable_target_origin"])
            instance_ref = kwargs.get("instance_ref") or _instance_ref_of_the_environment()
            serialized = serialize_value(instance_ref) if instance_ref else None
            loaded: list[Any] = []

            def load() -> bool:
                if serialized and kwargs.get("inject_env_vars_from_instance"):
                    os.environ.update(inject_environment(serialized, name))
                loaded.append(_loaded_repositories(kwargs))
                return not _forget_the_load()

            # No thread runs yet, and no connection is open.
            warm.before_it_starts(name, serialized, load)
            module: Any = server
            load_again = module.LoadedRepositories
            if loaded:
                module.LoadedRepositories = lambda *_, **__: loaded[0]
            try:
                super().__init__(*args, **kwargs)
            finally:
                module.LoadedRepositories = load_again
            self._mp_ctx: Any = warm.context(self._mp_ctx, self._load_data_for)

        def ReloadCode(self, request: Any, context: Any) -> Any:
            if not warm.reload(RELOAD_SECONDS):
                return super().ReloadCode(request, context)
            # Clients that are connected to this server have to look for its successor, and before they get this answer.
            listening[0].stop(GRACE_SECONDS)
            self._server_termination_event.set()
            time.sleep(GOODBYE_SECONDS)
            return dagster_api_pb2.ReloadCodeReply()

        def _check_for_orphaned_runs(self) -> None:
            super()._check_for_orphaned_runs()
            if warm.is_replaced():
                self._server_termination_event.set()

        def _load_data_for(self, job: Any) -> str | None:
            loaded = self._loaded_repositories
            for name, repository in loaded.reconstructables_by_name.items() if loaded else ():
                if repository == job.repository and loaded:
                    data = loaded.definitions_by_name[name].repository_load_data
                    return serialize_value(data) if data else None
            return None

    class WarmGrpcServer(server.DagsterGrpcServer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            if kwargs.get("socket"):
                kwargs["socket"] = warm.own_address(kwargs["socket"])
            super().__init__(*args, **kwargs)
            listening.append(self.server)
            start = self.server.start

            def start_and_say_so() -> None:
                start()
                warm.serves()

            self.server.start = start_and_say_so

    # `dagster api grpc` takes them from there when it starts.
    server.DagsterApiServer = WarmApiServer  # type: ignore[misc]
    server.DagsterGrpcServer = WarmGrpcServer  # type: ignore[misc]


def _instance_ref_of_the_environment() -> InstanceRef | None:
    home = os.environ.get("DAGSTER_HOME")
    return InstanceRef.from_dir(home) if home and os.path.isdir(home) else None


def _loaded_repositories(options: Mapping[str, Any]) -> Any:
    """Import a code location and build its definitions, as its code server does with these options."""
    from dagster._grpc import server

    entry_point = options.get("entry_point")
    arguments = {
        "loadable_target_origin": options["loadable_target_origin"],
        "container_image": options.get("container_image"),
        "entry_point": DEFAULT_DAGSTER_ENTRY_POINT if entry_point is None else entry_point,
        "container_context": options.get("container_context"),
        "defs_state_info": options.get("defs_state_info"),
        "code_location_name": options.get("location_name"),
    }
    known = inspect.signature(server.LoadedRepositories).parameters
    return server.LoadedRepositories(**{name: value for name, value in arguments.items() if name in known})


def _forget_the_load() -> bool:
    """Let a run in a fork of this process build its definitions as it does in a fresh one.

    Returns:
        Whether the definitions are built from a state that only the instance knows: those that are here are wrong.
    """
    loaded = DefinitionsLoadContext._instance
    DefinitionsLoadContext._instance = None
    return bool(getattr(loaded, "_accessed_defs_state_keys", None))


def _target_name(target: Any) -> str:
    return str(
        next((value for value in (target.module_name, target.package_name, target.python_file) if value), "code")
    )


def socket_of(options: Sequence[str]) -> str | None:
    """Return the unix socket in the options, or in the environment, of `dagster api grpc`."""
    from dagster._cli.api import grpc_command

    found: str | None = grpc_command.make_context("grpc", list(options), resilient_parsing=True).params["socket"]
    return os.path.abspath(found) if found else None


def run_code_server(options: Sequence[str]) -> None:
    """Run `dagster api grpc`."""
    from dagster._cli.api import grpc_command

    grpc_command.main(list(options), prog_name="dagster-warm-launcher grpc")


def loaded_location(context: LaunchRunContext) -> LoadedLocation | None:
    """Return where a run's code comes from now; `None` if no code server serves it."""
    from dagster._core.remote_representation.code_location import GrpcServerCodeLocation

    run = context.dagster_run
    if context.workspace is None or run.remote_job_origin is None:
        return None
    repository = run.remote_job_origin.repository_origin
    location = context.workspace.get_code_location(repository.code_location_origin.location_name)
    if not isinstance(location, GrpcServerCodeLocation):
        return None
    code = location.get_repository(repository.repository_name).handle.get_python_origin()
    return LoadedLocation(location.origin, code, JobPythonOrigin(run.job_name, code), location.server_id)


class LoadedLocation(NamedTuple):
    """A code location, as it is loaded now.

    Attributes:
        origin: Its code server.
        code: Its code, on the machine of its code server.
        job: The run's job in that code.
        server_id: Each reload makes a new one.
    """

    origin: CodeLocationOrigin
    code: RepositoryPythonOrigin
    job: JobPythonOrigin
    server_id: str
