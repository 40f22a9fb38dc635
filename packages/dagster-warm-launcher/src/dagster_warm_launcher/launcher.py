"""The run launcher of `dagster.yaml`."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

from dagster import DagsterRun, DagsterRunStatus, DefaultRunLauncher, Field
from typing_extensions import Self

from dagster_warm_launcher import _dagster, _proc
from dagster_warm_launcher._client import ForkedRun, Location, NotWarm, Templates, Watcher, shared_template
from dagster_warm_launcher._process import may_fork_runs

# Tags that begin like this are not shown.
TAG = ".dagster/warm_run"
KEPT_PLANS = 256
logger = logging.getLogger("dagster.warm_launcher")


class WarmRunLauncher(DefaultRunLauncher):
    """Starts a run as a fork of a template process, which has imported the run's code location.

    A run whose location can't have a template on this machine is started by its code server, as without this launcher.
    """

    def __init__(
        self,
        inst_data: _dagster.ConfigurableClassData | None = None,
        enabled: bool = True,
        startup_timeout: float = 60,
        start_run_timeout: float = 180,
        max_runs_per_template: int = 1000,
    ) -> None:
        super().__init__(inst_data)
        self._enabled = enabled and may_fork_runs()
        self._start_run_timeout = start_run_timeout
        self._templates = Templates(logger.info, max_runs_per_template, startup_timeout)
        self._watcher = Watcher()
        self._under_way: set[str] = set()
        self._load_data_of_plan: dict[str, str | None] = {}

    @classmethod
    def config_type(cls) -> Any:
        return {
            "enabled": Field(
                bool, is_required=False, default_value=True, description="false: Dagster's default launcher."
            ),
            "startup_timeout": Field(
                float,
                is_required=False,
                default_value=60.0,
                description="Seconds that the import of a location may take.",
            ),
            "start_run_timeout": Field(
                float,
                is_required=False,
                default_value=180.0,
                description="Seconds that a run's process may take to find its instance and run.",
            ),
            "max_runs_per_template": Field(
                int,
                is_required=False,
                default_value=1000,
                description="After so many runs a template is replaced.",
            ),
        }

    @classmethod
    def from_config_value(cls, inst_data: _dagster.ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: _dagster.LaunchRunContext) -> None:
        run = context.dagster_run
        loaded = _dagster.loaded_location(context) if self._enabled else None
        location = self._location(loaded, run) if loaded else None
        if loaded is None or location is None:
            super().launch_run(context)
            return
        try:
            forked = self._templates.fork(
                location,
                {
                    "arguments": _dagster.run_arguments(run, self._instance.get_ref()),
                    "job_origin": _dagster.serialize_value(loaded.job),
                },
            )
        except NotWarm:
            super().launch_run(context)
            return
        try:
            self._instance.add_run_tags(run.run_id, {TAG: _tag(run.run_id, forked)})
        except BaseException:
            # Dagster reports the run as failed, or queues it again: no process may go on with it.
            forked.kill()
            raise
        self._wait_until_started(run, forked)
        self._run_ids.add(run.run_id)
        self._under_way.add(run.run_id)
        self._watcher.watch(forked, lambda ended: self._ended(run.run_id, ended))

    def _location(self, loaded: _dagster.LoadedLocation, run: DagsterRun) -> Location | None:
        """Return what a template needs; `None` where its environment is not this machine's or can't be read."""
        origin, executable = loaded.origin, loaded.code.executable_path
        environment: Mapping[str, str] | None = None
        directory: str | None = None
        shared: str | None = None
        if isinstance(origin, _dagster.ManagedGrpcPythonEnvCodeLocationOrigin):
            environment, directory = dict(os.environ), os.getcwd()
        # `dagster dev` starts a code server on a unix socket. Its runs get its environment, and so do ours.
        elif (
            isinstance(origin, _dagster.GrpcServerCodeLocationOrigin)
            and origin.socket
            and (server := _proc.listener(origin.socket))
        ):
            environment, directory = _proc.environment(server), _proc.working_directory(server)
            shared = shared_template(origin.socket)
        if environment is None or directory is None or not os.path.exists(executable):
            return None
        load_data = self._load_data(run)
        return Location(
            name=origin.location_name,
            executable=executable,
            origin=_dagster.serialize_value(loaded.code),
            load_data=load_data,
            instance_ref=_dagster.serialize_value(self._instance.get_ref()),
            environment=_with_path_of(executable, environment),
            working_directory=directory,
            inject_environment=True,
            version=loaded.server_id,
            shared_template=shared if shared and os.path.exists(shared) and not _dagster.is_needed(load_data) else None,
        )

    def _load_data(self, run: DagsterRun) -> str | None:
        """Return what the run's definitions are rebuilt from. Runs of the same job and selection share a plan."""
        plan = run.execution_plan_snapshot_id
        if not run.has_repository_load_data or plan is None:
            return None
        if plan not in self._load_data_of_plan:
            if len(self._load_data_of_plan) >= KEPT_PLANS:
                self._load_data_of_plan.clear()
            self._load_data_of_plan[plan] = _dagster.load_data_of(self._instance, plan)
        return self._load_data_of_plan[plan]

    def _wait_until_started(self, run: DagsterRun, forked: ForkedRun) -> None:
        try:
            message = forked.next_message(self._start_run_timeout)
        except TimeoutError:
            forked.kill()
            raise _dagster.launch_failed(
                f"The process of run {run.run_id} (pid {forked.pid}) did not start it within"
                f" {self._start_run_timeout:g} s (`start_run_timeout`), and was killed."
            ) from None
        if message and "started" in message:
            return
        if message and "failed" in message:
            raise _dagster.launch_failed(message["failed"], message["error"])
        raise _dagster.launch_failed(
            f"The process of run {run.run_id} (pid {forked.pid}) ended before it started the run, {forked.ending()}."
        )

    def _ended(self, run_id: str, forked: ForkedRun) -> None:
        """Say so, if the process has ended and the run has not."""
        try:
            run = self._instance.get_run_by_id(run_id) if self.has_instance else None
            if run is None or run.is_finished:
                return
            self._instance.report_engine_event(
                f"The process of run {run_id} (pid {forked.pid}) ended, {forked.ending()}.", run, cls=type(self)
            )
            if run.status == DagsterRunStatus.CANCELING:
                self._instance.report_run_canceled(run)
            else:
                self._instance.report_run_failed(run)
        except Exception:
            logger.exception("could not report the end of run %s; run monitoring will", run_id)
        finally:
            self._under_way.discard(run_id)

    def terminate(self, run_id: str) -> bool:
        run = self._instance.get_run_by_id(run_id) if self.has_instance else None
        process = _process_of(run)
        if run is None or process is None:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        if run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        if not _on_this_machine(process):
            self._instance.report_engine_event(
                f"The run's process (pid {process['pid']} on {process['host']}) can't be reached from"
                f" {_proc.machine()['host']}, and was not interrupted.",
                run,
                cls=type(self),
            )
            return False
        return _proc.interrupt(process["pid"], process["start_time"])

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> _dagster.CheckRunHealthResult:
        process = _process_of(run)
        running, failed = _dagster.WorkerStatus.RUNNING, _dagster.WorkerStatus.FAILED
        if process is None:
            return _dagster.CheckRunHealthResult(running, "the run's code server looks after it")
        if run.run_id in self._under_way:
            return _dagster.CheckRunHealthResult(running, "this process hears when it ends")
        pid = process["pid"]
        if not _on_this_machine(process):
            if process["host"] != _proc.machine()["host"]:
                return _dagster.CheckRunHealthResult(running, f"pid {pid} of {process['host']} can't be seen from here")
            return _dagster.CheckRunHealthResult(failed, f"{process['host']} was restarted since pid {pid} executed it")
        if _proc.start_time(pid) != process["start_time"]:
            return _dagster.CheckRunHealthResult(failed, f"its process (pid {pid}) is gone")
        return _dagster.CheckRunHealthResult(running, f"pid {pid}", run_worker_id=str(pid))

    def dispose(self) -> None:
        self._templates.close()
        self._watcher.close()
        super().dispose()


def _tag(run_id: str, forked: ForkedRun) -> str:
    return json.dumps({"run_id": run_id, "pid": forked.pid, "start_time": forked.start_time, **_proc.machine()})


def _process_of(run: DagsterRun | None) -> dict[str, Any] | None:
    """Return which process executes a run; `None` if it was not started by this launcher."""
    if run is None or TAG not in run.tags:
        return None
    process: dict[str, Any] = json.loads(run.tags[TAG])
    # A retried run has its parent's tags.
    return process if process["run_id"] == run.run_id else None


def _on_this_machine(process: Mapping[str, Any]) -> bool:
    return all(process[name] == value for name, value in _proc.machine().items())


def _with_path_of(executable: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the interpreter's virtual environment activated, as Dagster does for code servers."""
    if executable == sys.executable or not _dagster.is_likely_venv_executable(executable):
        return dict(environment)
    path = environment.get("PATH")
    directory = os.path.dirname(executable)
    return {**environment, "PATH": f"{directory}{os.pathsep}{path}" if path else directory}
