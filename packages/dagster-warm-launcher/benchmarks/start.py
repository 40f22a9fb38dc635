"""How long a run takes from its request to its first step: forks against Dagster's default launcher, in turns.

    python benchmarks/start.py [runs]

A trivial asset on SQLite, in a code server that Dagster starts, with each of the two common executors. The first run of
each location is not counted: it starts the template.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus
from dagster._core.test_utils import create_run_for_test, poll_for_finished_run
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

LOCATION = """
import dagster as dg

@dg.asset
def trivial():
    pass

defs = dg.Definitions(assets=[trivial], executor=dg.EXECUTOR)
"""
EXECUTORS = ("in_process_executor", "multiprocess_executor")
WARM = {"module": "dagster_warm_launcher", "class": "WarmRunLauncher"}


@contextmanager
def deployment(folder: Path, launcher: dict[str, str] | None) -> Iterator[WorkspaceProcessContext]:
    folder.mkdir()
    settings = {"telemetry": {"enabled": False}, **({"run_launcher": launcher} if launcher else {})}
    (folder / "dagster.yaml").write_text(yaml.dump(settings))
    targets = []
    for executor in EXECUTORS:
        (folder / f"{executor}.py").write_text(LOCATION.replace("EXECUTOR", executor))
        targets.append({"python_module": {"module_name": executor, "working_directory": str(folder)}})
    (folder / "workspace.yaml").write_text(yaml.dump({"load_from": targets}))
    with (
        DagsterInstance.from_config(str(folder)) as instance,
        WorkspaceProcessContext(instance, WorkspaceFileTarget([str(folder / "workspace.yaml")])) as process,
    ):
        yield process


def first_step_and_end(process: WorkspaceProcessContext, location: str) -> tuple[float, float]:
    """Return the seconds from a run's request to its first step, and to its end."""
    workspace, instance = process.create_request_context(), process.instance
    repository = next(iter(workspace.get_code_location(location).get_repositories().values()))
    job = repository.get_full_job("__ASSET_JOB")
    run = create_run_for_test(
        instance,
        job_name="__ASSET_JOB",
        remote_job_origin=job.get_remote_origin(),
        job_code_origin=job.get_python_origin(),
    )
    instance.launch_run(run.run_id, workspace)
    assert poll_for_finished_run(instance, run.run_id).status == DagsterRunStatus.SUCCESS
    at: dict[DagsterEventType, float] = {}
    for event in instance.all_logs(run.run_id):
        if event.dagster_event:
            at.setdefault(event.dagster_event.event_type, event.timestamp)
    asked = at[DagsterEventType.PIPELINE_STARTING]
    return at[DagsterEventType.STEP_START] - asked, at[DagsterEventType.PIPELINE_SUCCESS] - asked


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    print(f"{runs} runs each, medians (worst)")
    print(f"{'executor':24}{'':14}{'stock':>16}{'forks':>16}{'ratio':>8}")
    with (
        tempfile.TemporaryDirectory() as folder,
        deployment(Path(folder) / "stock", None) as stock,
        deployment(Path(folder) / "warm", WARM) as warm,
    ):
        for executor in EXECUTORS:
            measured: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
            for number in range(runs + 1):
                for forks, process in ((False, stock), (True, warm)):
                    seconds = first_step_and_end(process, executor)
                    if number:
                        measured[forks].append(seconds)
            for index, what in enumerate(("first step", "end of run")):
                times = {forks: [pair[index] for pair in pairs] for forks, pairs in measured.items()}
                medians = {forks: statistics.median(values) for forks, values in times.items()}
                cells = [f"{medians[forks]:.2f} s ({max(times[forks]):.2f})" for forks in (False, True)]
                print(f"{executor:24}{what:14}{cells[0]:>16}{cells[1]:>16}{medians[True] / medians[False]:>8.2f}")


if __name__ == "__main__":
    main()
