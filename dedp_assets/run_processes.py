"""Finds out whether the process of a run still exists. This distinguishes a killed run from one that takes long.

Dagster notices the death of a process that its code server has started. A run that was started by a command line, or
whose code server died together with it, would stay 'started' for ever.
"""

import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import dagster as dg
import psutil

from dedp_assets.origin import ORIGIN_TAG, origin_of
from dedp_assets.request_ids import DUPLICATE_OF_TAG, REQUEST_TAG, earlier_run

# The UI does not show tags with this prefix.
TAG = ".dagster/dedp_process"

_PROC = Path("/proc")


class Place(NamedTuple):
    """The place in which a process id is valid: a machine or a container, from one start to the next.

    A field is empty if the system does not have it. No single field identifies a machine for certain.

    Attributes:
        host: The host name.
        machine: The content of /etc/machine-id.
        boot: The id of the kernel's last start.
        namespace: The namespace of process ids.
    """

    host: str
    machine: str
    boot: str
    namespace: str

    @property
    def is_like_no_other(self) -> bool:
        """Whether host and machine together identify this machine or container."""
        return bool(self.machine) or self.is_container

    @property
    def is_container(self) -> bool:
        """Whether the host name is a container id, as Docker makes it. It stays when the container is started again."""
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
    """A tag that identifies this process: its place, its id, and its start time, because ids are used again."""
    return {TAG: json.dumps([*here(), os.getpid(), _began(os.getpid())])}


def has_ended(tag: str) -> bool:
    """Whether the process of a tag is known to have ended.

    Args:
        tag: The value of the tag.

    Returns:
        True if the process has ended. False if it runs, if it is at another place, or if the tag is not ours.
    """
    try:
        *where, process, began = json.loads(tag)
        if len(where) == 1:  # a tag of an earlier version, which had the host name only
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
    """Report every run as failed that is under way and whose process has ended. Dagster then retries it.

    A run that was being canceled is reported as canceled.

    Returns:
        The ids of these runs.
    """
    under_way = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    reported = []
    for run in instance.get_runs(dg.RunsFilter(statuses=under_way)):
        if TAG in run.tags and has_ended(run.tags[TAG]):
            # The run may have ended properly since it was listed.
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
    """Tags a run with this process and its origin, and then passes it to another executor.

    A run of a request that another run does already is canceled instead.
    """

    def __init__(self, executor: Any) -> None:
        self._executor = executor

    @property
    def retries(self) -> Any:
        return self._executor.retries

    @property
    def step_dependency_config(self) -> Any:
        return self._executor.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        instance, run = plan_context.instance, plan_context.dagster_run
        instance.add_run_tags(run.run_id, {**process_tag(), ORIGIN_TAG: origin_of(run.tags)})
        duplicate_of = earlier_run(instance, run)
        if duplicate_of:
            _cancel(instance, run, duplicate_of)
        yield from self._executor.execute(plan_context, execution_plan)


def _cancel(instance: dg.DagsterInstance, run: dg.DagsterRun, duplicate_of: str) -> NoReturn:
    """End a run before its first step, because another run does the work of the same request."""
    reason = f"Run {duplicate_of} does the work of the same request, {run.tags[REQUEST_TAG]}. This run does nothing."
    instance.add_run_tags(run.run_id, {DUPLICATE_OF_TAG: duplicate_of})
    instance.report_run_canceling(run, reason)
    # With this error, Dagster ends a run that is being canceled as canceled. Any other end would be a failure.
    raise dg.DagsterExecutionInterruptedError(reason)


def _tagging(context: dg.InitExecutorContext) -> dg.Executor:
    make = dg.in_process_executor.executor_creation_fn
    assert make
    return _Tagging(make(context))


# The executor of every code location. It executes all steps in one process, and tags the run with the process and its
# origin. It has the name and the config of Dagster's own in_process_executor, so people know how to use it.
in_process_executor = dg.ExecutorDefinition(
    name=dg.in_process_executor.name,
    config_schema=dg.in_process_executor.config_schema,  # type: ignore[arg-type]
    executor_creation_fn=_tagging,
    description="Executes all steps of a run in one process, and tags the run with it.",
)


def _began(process: int) -> float | None:
    """The start time of a process, not affected by changes of the clock; None if it does not exist or is a zombie."""
    stat = _text(_PROC / str(process) / "stat")
    if not stat:
        return _created(process)
    # Field 2 is a name in parentheses, which may have spaces in it. Field 3 is the state, and field 22 the start time.
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
