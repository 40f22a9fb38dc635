"""Runs whose process was killed are told from runs that take long."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from dedp_assets import run_processes

# A run that says which process it is in, and is killed in the middle.
KILLED = """
import os, signal
import dagster as dg
from dedp_assets.run_processes import process_tag

@dg.asset
def counts(context):
    context.instance.add_run_tags(context.run.run_id, process_tag())
    os.kill(os.getpid(), signal.SIGKILL)

dg.materialize([counts], instance=dg.DagsterInstance.get())
"""


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        yield instance


def test_a_run_that_was_killed_is_reported_as_failed(instance):
    subprocess.run([sys.executable, "-c", KILLED], stderr=subprocess.DEVNULL)
    (run,) = instance.get_runs()
    assert run.status == dg.DagsterRunStatus.STARTED
    assert run_processes.fail_ended_runs(instance) == [run.run_id]
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
    assert run_processes.fail_ended_runs(instance) == []


def test_a_run_that_is_under_way_is_left_alone(instance):
    seen = []

    @dg.asset
    def counts(context: dg.AssetExecutionContext) -> None:
        context.instance.add_run_tags(context.run.run_id, run_processes.process_tag())
        seen.append(run_processes.fail_ended_runs(context.instance))

    assert dg.materialize([counts], instance=instance).success
    assert seen == [[]]


def test_what_runs_on_another_host_is_not_known_to_have_ended():
    ended = '["%s", 1, 0.0]'
    assert run_processes.has_ended(ended % run_processes.socket.gethostname())
    assert not run_processes.has_ended(ended % "another host")


def test_a_process_id_that_is_used_again_is_another_process():
    tag = run_processes.process_tag()[run_processes.TAG]
    assert not run_processes.has_ended(tag)
    assert run_processes.has_ended(tag.replace(tag.split(", ")[2], "1.0]"))
