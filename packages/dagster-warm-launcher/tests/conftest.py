"""A Dagster instance with this launcher, real code servers, and runs that execute what a test wants."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.test_utils import create_run_for_test
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

# A location whose job executes Python source from its run config.
PLAIN = """
import dagster as dg

@dg.op(config_schema={"source": str})
def execute(context):
    exec(context.op_config["source"], {"context": context})

@dg.job(executor_def=dg.in_process_executor)
def work():
    execute()

@dg.job(executor_def=dg.multiprocess_executor)
def work_in_steps():
    execute()

defs = dg.Definitions(jobs=[work, work_in_steps])
"""
# Long, because the machine may be busy. A test ends its wait as soon as it can.
PATIENCE_SECONDS = 300.0
FINISHED = {DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED}


class Deployment:
    """An instance below `folder`, and a workspace of its Python files."""

    def __init__(
        self, folder: Path, locations: Mapping[str, str], config: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self.home = folder / "home"
        self.home.mkdir()
        launcher = {"module": "dagster_warm_launcher", "class": "WarmRunLauncher", "config": dict(config)}
        (self.home / "dagster.yaml").write_text(
            yaml.dump({"telemetry": {"enabled": False}, "run_launcher": launcher, **settings})
        )
        for name, source in locations.items():
            (folder / f"{name}.py").write_text(source)
        self.workspace_file = folder / "workspace.yaml"
        self.workspace_file.write_text(
            yaml.dump(
                {
                    "load_from": [
                        {"python_module": {"module_name": n, "working_directory": str(folder)}} for n in locations
                    ]
                }
            )
        )
        self.instance = self._stack.enter_context(DagsterInstance.from_config(str(self.home)))
        self.process: WorkspaceProcessContext | None = None

    def start(self) -> Deployment:
        self.process = self._stack.enter_context(
            WorkspaceProcessContext(self.instance, WorkspaceFileTarget([str(self.workspace_file)]))
        )
        return self

    def close(self) -> None:
        self._stack.close()

    @property
    def launcher(self) -> Any:
        return self.instance.run_launcher

    def template(self, location: str = "plain") -> int | None:
        """Return the pid of a location's template."""
        pid: int | None = self.launcher._templates.pids().get(location)
        return pid

    def create(self, source: str, location: str = "plain", job_name: str = "work") -> str:
        repository = next(iter(self.workspace().get_code_location(location).get_repositories().values()))
        job = repository.get_full_job(job_name)
        run = create_run_for_test(
            self.instance,
            job_name=job_name,
            run_config={"ops": {"execute": {"config": {"source": source}}}},
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
        )
        return str(run.run_id)

    def launch(self, source: str, location: str = "plain", job_name: str = "work") -> str:
        """Start a run whose step executes that source."""
        run_id = self.create(source, location, job_name)
        self.instance.launch_run(run_id, self.workspace())
        return run_id

    def workspace(self) -> Any:
        assert self.process is not None
        return self.process.create_request_context()

    def run(self, run_id: str) -> DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def wait(self, run_id: str, seconds: float = PATIENCE_SECONDS) -> DagsterRunStatus:
        """Return a run's status when it has finished."""
        wait_until(lambda: self.run(run_id).status in FINISHED, f"run {run_id} to finish", seconds)
        return self.run(run_id).status

    def said(self, run_id: str) -> str:
        """Return the messages of a run's events."""
        return "\n".join(
            event.dagster_event.message or "" if event.dagster_event else event.user_message
            for event in self.instance.all_logs(run_id)
        )


def wait_until(happened: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def deploy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Deployment]]:
    """A function that makes a `Deployment` of locations: name and source."""
    with ExitStack() as stack:

        def make(locations: Mapping[str, str], config: Mapping[str, Any] | None = None, **settings: Any) -> Deployment:
            deployment = Deployment(tmp_path_factory.mktemp("deployment"), locations, config or {}, settings)
            stack.callback(deployment.close)
            return deployment

        yield make
