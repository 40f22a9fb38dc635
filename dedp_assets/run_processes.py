"""Whether the process of a run still exists: what tells a run that was killed from one that takes long.

Dagster notices the death of a process that its code server has started. One that a command line started, or whose code
server died with it, stays 'started' for ever.
"""

import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import psutil

# With this prefix, the UI does not show it.
TAG = ".dagster/dedp_process"

_PROC = Path("/proc")


class Place(NamedTuple):
    """Where process ids mean something: until the machine or the container starts anew.

    Each is empty where there is no such thing; none tells a machine from another for sure.
    """

    host: str
    machine: str
    boot: str
    namespace: str

    @property
    def is_like_no_other(self) -> bool:
        """Whether no other machine or container has the same host and machine."""
        return bool(self.machine) or self.is_container

    @property
    def is_container(self) -> bool:
        """Whether the host name is one that Docker makes: the container's id, which stays when it is started again."""
        return re.fullmatch("[0-9a-f]{12}", self.host) is not None


def here() -> Place:
    """The place of this process."""
    try:
        namespace = os.readlink(_PROC / "self" / "ns" / "pid")
    except OSError:
        namespace = ""
    boot = _text(_PROC / "sys" / "kernel" / "random" / "boot_id")
    return Place(socket.gethostname(), _text(Path("/etc/machine-id")), boot, namespace)


def process_tag() -> dict[str, str]:
    """This process as a run's tag: its place, process id, and when it began, since ids are used again."""
    return {TAG: json.dumps([*here(), os.getpid(), _began(os.getpid())])}


def has_ended(tag: str) -> bool:
    """Whether the process of a tag is known to have ended. Of what runs elsewhere, and of a tag that is not ours, it is
    not known."""
    try:
        *where, process, began = json.loads(tag)
        if len(where) == 1:  # as it was written before there were places
            return bool(where[0] == socket.gethostname() and _created(int(process)) != began)
        place, now = Place(*map(str, where)), here()
        if (place.host, place.machine) != (now.host, now.machine):
            return False
        if place.boot != now.boot:
            return place.is_like_no_other
        if place.namespace != now.namespace:
            return place.is_container
        return bool(_began(int(process)) != began)
    except (TypeError, ValueError):
        return False


def fail_ended_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report every run under way whose process has ended as failed, or as canceled if it was to be; returns their ids.

    Retries of the failed ones follow.
    """
    under_way = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    reported = []
    for run in instance.get_runs(dg.RunsFilter(statuses=under_way)):
        if TAG in run.tags and has_ended(run.tags[TAG]):
            # It may have come to its end between the two questions.
            now = instance.get_run_by_id(run.run_id)
            if now is None or now.status not in under_way:
                continue
            if now.status == dg.DagsterRunStatus.CANCELING:
                instance.report_run_canceled(now, "The process of this run has ended while it was being canceled.")
            else:
                instance.report_run_failed(now, "The process of this run has ended, and the run had not.")
            reported.append(run.run_id)
    return reported


class _Tagging(dg.Executor):
    """Tags a run with this process, then lets another executor execute it."""

    def __init__(self, executor: Any) -> None:
        self._executor = executor

    @property
    def retries(self) -> Any:
        return self._executor.retries

    @property
    def step_dependency_config(self) -> Any:
        return self._executor.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        plan_context.instance.add_run_tags(plan_context.run_id, process_tag())
        yield from self._executor.execute(plan_context, execution_plan)


def _tagging(context: dg.InitExecutorContext) -> dg.Executor:
    make = dg.in_process_executor.executor_creation_fn
    assert make
    return _Tagging(make(context))


# For every code location: a run's steps in one process, which the run's tags name. With Dagster's own name for it: it
# takes the same config, and who knows that one knows what this is.
in_process_executor = dg.ExecutorDefinition(
    name=dg.in_process_executor.name,
    config_schema=dg.in_process_executor.config_schema,  # type: ignore[arg-type]
    executor_creation_fn=_tagging,
    description="Executes all steps of a run in one process, and tags the run with it.",
)


def _began(process: int) -> float | None:
    """When a process began, as a number that no change of the clock alters; None if it is not there, or a zombie."""
    stat = _text(_PROC / str(process) / "stat")
    if not stat:
        return _created(process)
    # The second field is a name in parentheses, which may hold spaces. The third is the state, the 22nd the beginning.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else float(fields[19])


def _created(process: int) -> float | None:
    try:
        found = psutil.Process(process)
        return None if found.status() == psutil.STATUS_ZOMBIE else round(found.create_time(), 2)
    except (psutil.NoSuchProcess, OverflowError):
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
