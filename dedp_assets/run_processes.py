"""Whether the process of a run still exists: what tells a run that was killed from one that takes long.

Dagster notices the death of a process that its code server has started. One that a command line started, or whose code
server died with it, stays 'started' for ever.
"""

import json
import os
import socket

import dagster as dg
import psutil

# With this prefix, the UI does not show it.
TAG = ".dagster/dedp_process"


def process_tag() -> dict[str, str]:
    """This process as a run's tag: host, process id, and when it began, since ids are used again."""
    return {TAG: json.dumps([socket.gethostname(), os.getpid(), _began(os.getpid())])}


def has_ended(tag: str) -> bool:
    """Whether the process of a tag is known to have ended. What runs on another host is not known."""
    host, process, began = json.loads(tag)
    return host == socket.gethostname() and _began(process) != began


def fail_ended_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report every run under way as failed whose process has ended; returns their ids. Their retries follow."""
    under_way = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    failed = []
    for run in instance.get_runs(dg.RunsFilter(statuses=under_way)):
        if TAG in run.tags and has_ended(run.tags[TAG]):
            # It may have come to its end between the two questions.
            now = instance.get_run_by_id(run.run_id)
            if now is not None and now.status in under_way:
                instance.report_run_failed(now, "The process of this run has ended, and the run had not.")
                failed.append(run.run_id)
    return failed


def _began(process: int) -> float | None:
    try:
        found = psutil.Process(process)
        return None if found.status() == psutil.STATUS_ZOMBIE else round(found.create_time(), 2)
    except psutil.NoSuchProcess:
        return None
