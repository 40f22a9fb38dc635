"""Runs whose process was killed are told from runs that take long."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster_scenario import Scenario

from dedp_assets import run_processes

# A code location whose one asset kills its own process in the middle.
KILLED = """
import os, signal
import dagster as dg
from dedp_assets.run_processes import in_process_executor

@dg.asset
def counts(context):
    os.kill(os.getpid(), signal.SIGKILL)

defs = dg.Definitions(assets=[counts], executor=in_process_executor)
"""


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        yield instance


def status_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def elsewhere(**changes: object) -> str:
    """This process as a tag, with something else in it."""
    *_, process, began = json.loads(run_processes.process_tag()[run_processes.TAG])
    place = run_processes.here()._asdict()
    return json.dumps(
        [
            *(changes.get(name, value) for name, value in place.items()),
            changes.get("process", process),
            changes.get("began", began),
        ]
    )


def test_a_run_of_the_command_line_that_was_killed_is_reported_as_failed(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    command = ["-m", "dagster", "asset", "materialize", "-f", str(tmp_path / "killed.py"), "--select", "counts"]
    subprocess.run([sys.executable, *command], capture_output=True)
    (run,) = instance.get_runs()
    assert run.status == dg.DagsterRunStatus.STARTED
    assert run_processes.fail_ended_runs(instance) == [run.run_id]
    assert status_of(instance, run) == dg.DagsterRunStatus.FAILURE
    assert run_processes.fail_ended_runs(instance) == []


def test_a_killed_run_that_was_being_canceled_is_canceled_and_not_retried(instance: dg.DagsterInstance) -> None:
    tags = {run_processes.TAG: elsewhere(process=2**22 + 1)}
    run = instance.create_run_for_job(_job(), tags=tags)
    for event in (dg.DagsterEventType.RUN_START, dg.DagsterEventType.RUN_CANCELING):
        instance.report_dagster_event(dg.DagsterEvent(event.value, run.job_name), run.run_id)
    assert run_processes.fail_ended_runs(instance) == [run.run_id]
    assert status_of(instance, run) == dg.DagsterRunStatus.CANCELED


def _job() -> dg.JobDefinition:
    @dg.op
    def work() -> None: ...

    @dg.job
    def job() -> None:
        work()

    return job


def test_a_run_that_is_under_way_is_left_alone(instance: dg.DagsterInstance) -> None:
    seen = []

    @dg.asset
    def counts(context: dg.AssetExecutionContext) -> None:
        tags = context.instance.get_run_by_id(context.run.run_id).tags
        seen.append((run_processes.TAG in tags, run_processes.fail_ended_runs(context.instance)))

    defs = dg.Definitions(assets=[counts], executor=run_processes.in_process_executor)
    job = defs.resolve_implicit_global_asset_job_def()
    assert execute_run(InMemoryJob(job), instance.create_run_for_job(job), instance).success
    assert seen == [(True, [])]


def test_assets_are_materialized_without_a_code_location_too(instance: dg.DagsterInstance) -> None:
    @dg.asset
    def counts() -> None: ...

    assert dg.materialize([counts], instance=instance).success
    assert run_processes.fail_ended_runs(instance) == []


def test_a_scenario_plays_runs_with_the_executor_and_they_are_tagged(scenario: Scenario) -> None:
    @dg.asset
    def counts() -> None: ...

    scenario.start("2024-01-01")
    scenario.load(dg.Definitions(assets=[counts], executor=run_processes.in_process_executor))
    scenario.materialize("counts")
    scenario.run_until_quiet()
    scenario.expect("counts").materialized()
    (run,) = scenario.instance.get_runs()
    assert not run_processes.has_ended(run.tags[run_processes.TAG])


def test_what_runs_on_another_host_or_machine_is_not_known_to_have_ended() -> None:
    assert run_processes.has_ended(elsewhere(process=2**22 + 1))
    assert not run_processes.has_ended(elsewhere(process=2**22 + 1, host="another"))
    assert not run_processes.has_ended(elsewhere(process=2**22 + 1, machine="another"))


def test_a_process_id_that_is_used_again_is_another_process() -> None:
    assert not run_processes.has_ended(elsewhere())
    assert run_processes.has_ended(elsewhere(began=1.0))


def test_when_the_clock_is_set_a_process_is_still_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    tag = elsewhere()
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: 0.0)
    assert not run_processes.has_ended(tag)


def test_no_process_survives_the_start_of_its_machine_or_container(monkeypatch: pytest.MonkeyPatch) -> None:
    for place, boot, namespace in [
        # host, machine: ended after another boot, ended in another namespace
        (("laptop", "8d4e"), True, False),
        (("4f0c2b7a91de", ""), True, True),
        (("localhost", ""), False, False),  # there are many of that name
    ]:
        own = run_processes.Place(*place, "this boot", "this namespace")
        monkeypatch.setattr(run_processes, "here", lambda own=own: own)
        began = json.loads(run_processes.process_tag()[run_processes.TAG])[-1]
        for change, ended in [({}, False), ({"boot": "before"}, boot), ({"namespace": "another"}, namespace)]:
            tag = json.dumps([*own._replace(**change), os.getpid(), began])
            assert run_processes.has_ended(tag) == ended, (place, change)


def test_a_tag_of_an_earlier_version_still_says_whose_it_is() -> None:
    host = socket.gethostname()
    created = round(psutil.Process().create_time(), 2)
    assert not run_processes.has_ended(json.dumps([host, os.getpid(), created]))
    assert run_processes.has_ended(json.dumps([host, 2**22 + 1, created]))
    assert not run_processes.has_ended(json.dumps(["another", 2**22 + 1, created]))


@pytest.mark.parametrize(
    "tag", ["", "rubbish", "{}", "[]", "[1]", "null", '["host", "x", 1]', '["a", 1, 2, 3, 4, 5, 6, 7]']
)
def test_of_a_tag_that_is_not_ours_nothing_is_known(tag: str) -> None:
    assert not run_processes.has_ended(tag)
