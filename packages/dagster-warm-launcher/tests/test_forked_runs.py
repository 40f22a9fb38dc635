"""A run is a fork of its location's template, and all that a run's own process is."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator

import psutil
import pytest
from conftest import PLAIN, Deployment, wait_until
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.errors import DagsterLaunchFailedError
from dagster_warm_launcher import _client

# What happens at the next fork, for the tests that let it go wrong. A file is taken away before it has its effect.
LOCATION = (
    PLAIN
    + """
import atexit, os, pathlib, signal

here = pathlib.Path(__file__).parent

def take(name):
    try:
        (here / name).unlink()
    except FileNotFoundError:
        return False
    return True

os.register_at_fork(
    before=lambda: take("template dies") and os.kill(os.getpid(), signal.SIGKILL),
    after_in_child=lambda: take("run dies") and os.kill(os.getpid(), signal.SIGKILL),
    after_in_parent=lambda: take("template dies after") and os.kill(os.getpid(), signal.SIGKILL),
)

def dies(name, module, function):
    original = getattr(module, function)
    def replaced(*args, **kwargs):
        take(name) and os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    setattr(module, function, replaced)

import dagster._grpc.impl
dies("run dies before it is loaded", dagster._grpc.impl, "_run_in_subprocess")
dies("run dies before it says so", dagster._grpc.impl, "core_execute_run")
atexit.register(lambda: (here / f"ended {os.getpid()}").touch())
"""
)
FACTS = """
import json, os, random, signal, sys, threading, uuid
json.dump({
    "pid": os.getpid(), "ppid": os.getppid(), "random": random.random(), "uuid": str(uuid.uuid4()),
    "cwd": os.getcwd(), "environment": dict(os.environ), "threads": threading.active_count(),
    "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "descriptors": len(os.listdir("/proc/self/fd")),
}, open(PATH, "w"))
print("said by the run")
print("and on stderr", file=sys.stderr)
"""
ENDLESS = "import time, pathlib; pathlib.Path(PATH).touch(); time.sleep(3600)"


@pytest.fixture(scope="module")
def deployment(deploy: Callable[..., Deployment]) -> Iterator[Deployment]:
    # The code server has this variable, and the test's process no longer: whose environment does a run have?
    os.environ["OF_THE_CODE_SERVER"] = "yes"
    try:
        yield deploy({"plain": LOCATION}).start()
    finally:
        os.environ.pop("OF_THE_CODE_SERVER", None)


def facts(deployment: Deployment, job_name: str = "work") -> tuple[str, dict[str, object]]:
    path = deployment.folder / "facts.json"
    run_id = deployment.launch(FACTS.replace("PATH", repr(str(path))), job_name=job_name)
    assert deployment.wait(run_id) == DagsterRunStatus.SUCCESS
    return run_id, json.loads(path.read_text())


def start_endless(deployment: Deployment, name: str, job_name: str = "work") -> tuple[str, int]:
    """Start a run whose step never ends. Returns its id and pid, when the step executes."""
    path = deployment.folder / name
    run_id = deployment.launch(ENDLESS.replace("PATH", repr(str(path))), job_name=job_name)
    wait_until(path.exists, "the step")
    return run_id, json.loads(deployment.run(run_id).tags[".dagster/warm_run"])["pid"]


def test_a_run_is_a_child_of_the_template_with_a_pid_of_its_own(deployment: Deployment) -> None:
    _, first = facts(deployment)
    _, second = facts(deployment)

    assert first["ppid"] == second["ppid"] == deployment.template()
    assert len({os.getpid(), first["pid"], second["pid"], deployment.template()}) == 4


def test_runs_of_one_template_draw_different_random_numbers(deployment: Deployment) -> None:
    _, first = facts(deployment)
    _, second = facts(deployment)

    assert first["random"] != second["random"]
    assert first["uuid"] != second["uuid"]


def test_a_run_has_the_environment_and_directory_of_the_code_server(deployment: Deployment) -> None:
    _, found = facts(deployment)

    assert found["environment"]["OF_THE_CODE_SERVER"] == "yes"  # type: ignore[index]
    assert found["cwd"] == os.getcwd()
    assert found["blocked"] == []


def test_what_a_run_prints_is_in_its_own_logs(deployment: Deployment) -> None:
    run_id, _ = facts(deployment)

    captured = deployment.home / "storage" / run_id / "compute_logs"
    assert "said by the run" in "".join(path.read_text() for path in captured.glob("*.out"))
    assert "and on stderr" in "".join(path.read_text() for path in captured.glob("*.err"))


def test_what_a_location_registers_for_its_exit_is_done_at_the_end_of_each_run(deployment: Deployment) -> None:
    _, found = facts(deployment)

    wait_until((deployment.folder / f"ended {found['pid']}").exists, "the handler of atexit")


def test_a_run_that_never_ends_is_terminated(deployment: Deployment) -> None:
    run_id, pid = start_endless(deployment, "endless")

    assert deployment.launcher.terminate(run_id)
    assert deployment.wait(run_id) == DagsterRunStatus.CANCELED
    wait_until(lambda: not psutil.pid_exists(pid), "the process to end")


def test_another_process_can_terminate_a_run(deployment: Deployment) -> None:
    run_id, _ = start_endless(deployment, "of another")

    with DagsterInstance.from_config(str(deployment.home)) as web_server:
        assert web_server.run_launcher.terminate(run_id)
    assert deployment.wait(run_id) == DagsterRunStatus.CANCELED


def test_a_killed_run_is_reported_and_hurts_no_other(deployment: Deployment) -> None:
    killed, pid = start_endless(deployment, "killed")
    other, _ = start_endless(deployment, "unhurt")

    os.kill(pid, signal.SIGKILL)
    assert deployment.wait(killed) == DagsterRunStatus.FAILURE
    assert "killed by signal 9 (SIGKILL)" in deployment.said(killed)
    assert deployment.run(other).status == DagsterRunStatus.STARTED

    deployment.launcher.terminate(other)
    assert deployment.wait(other) == DagsterRunStatus.CANCELED


def test_runs_outlive_their_template(deployment: Deployment) -> None:
    run_id, pid = start_endless(deployment, "outlives")
    template = deployment.template()
    assert template

    os.kill(template, signal.SIGKILL)
    _, found = facts(deployment)  # the next run has another template
    assert found["ppid"] == deployment.template() != template
    assert psutil.pid_exists(pid)
    assert deployment.run(run_id).status == DagsterRunStatus.STARTED

    deployment.launcher.terminate(run_id)
    assert deployment.wait(run_id) == DagsterRunStatus.CANCELED


def test_a_run_that_is_killed_after_its_template_is_reported(deployment: Deployment) -> None:
    run_id, pid = start_endless(deployment, "orphan")
    template = deployment.template()
    assert template

    os.kill(template, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    assert deployment.wait(run_id) == DagsterRunStatus.FAILURE


@pytest.mark.slow
@pytest.mark.parametrize("when", ["template dies", "template dies after"])
def test_a_template_that_is_killed_while_it_forks_costs_no_run(deployment: Deployment, when: str) -> None:
    facts(deployment)
    before = deployment.template()
    (deployment.folder / when).touch()

    run_id, _ = facts(deployment)
    facts(deployment)

    assert not (deployment.folder / when).exists()
    assert deployment.template() != before
    starts = [line for line in deployment.said(run_id).splitlines() if line.startswith("Started execution of run")]
    assert len(starts) == 1


def test_a_template_that_answers_too_late_does_not_start_the_run_once_more(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts(deployment)
    slow = deployment.template()
    assert slow
    monkeypatch.setattr(_client, "FORK_SECONDS", 0.3)
    os.kill(slow, signal.SIGSTOP)
    run_id = deployment.launch("pass")
    os.kill(slow, signal.SIGCONT)

    assert deployment.wait(run_id) == DagsterRunStatus.SUCCESS
    # It has forked the process that was asked for, and has seen its end.
    wait_until(lambda: not psutil.pid_exists(slow), "the end of the template that was too slow")
    said = deployment.said(run_id)
    assert said.count("Started process for run") == 1, said


def test_a_run_that_is_killed_between_its_fork_and_its_first_event_does_not_hang(deployment: Deployment) -> None:
    facts(deployment)
    (deployment.folder / "run dies").touch()

    # Nobody heard of that process: the run is started once more.
    facts(deployment)
    assert not (deployment.folder / "run dies").exists()


def test_a_run_that_is_killed_before_it_is_loaded_has_failed_to_launch(deployment: Deployment) -> None:
    facts(deployment)
    (deployment.folder / "run dies before it is loaded").touch()

    run_id = deployment.create("pass")
    with pytest.raises(DagsterLaunchFailedError, match="ended before it started the run, killed by signal 9"):
        deployment.instance.launch_run(run_id, deployment.workspace())
    assert deployment.run(run_id).status == DagsterRunStatus.FAILURE


def test_a_run_that_is_killed_before_its_first_event_is_reported(deployment: Deployment) -> None:
    facts(deployment)
    (deployment.folder / "run dies before it says so").touch()

    run_id = deployment.launch("pass")
    assert deployment.wait(run_id) == DagsterRunStatus.FAILURE
    assert "killed by signal 9 (SIGKILL)" in deployment.said(run_id)


def test_steps_of_the_multiprocess_executor_are_forks_of_the_template(deployment: Deployment) -> None:
    run_id, found = facts(deployment, "work_in_steps")

    process = json.loads(deployment.run(run_id).tags[".dagster/warm_run"])["pid"]
    assert found["ppid"] == deployment.template()
    assert found["pid"] != process
    assert found["blocked"] == []


def test_a_run_with_steps_in_processes_is_terminated(deployment: Deployment) -> None:
    run_id, _ = start_endless(deployment, "endless step", "work_in_steps")

    assert deployment.launcher.terminate(run_id)
    assert deployment.wait(run_id) == DagsterRunStatus.CANCELED
    wait_until(lambda: not psutil.Process(deployment.template()).children(), "the processes to end")


def test_a_step_outlives_its_template(deployment: Deployment) -> None:
    go_on = deployment.folder / "go on"
    began = deployment.folder / "step began"
    wait = (
        f"import pathlib, time; pathlib.Path({str(began)!r}).touch()\n"
        f"while not pathlib.Path({str(go_on)!r}).exists(): time.sleep(0.05)"
    )
    run_id = deployment.launch(wait, job_name="work_in_steps")
    wait_until(began.exists, "the step")
    template = deployment.template()
    assert template
    os.kill(template, signal.SIGKILL)
    go_on.touch()
    assert deployment.wait(run_id) == DagsterRunStatus.SUCCESS


def test_a_killed_step_fails_its_run(deployment: Deployment) -> None:
    run_id = deployment.launch("import os; os.kill(os.getpid(), 9)", job_name="work_in_steps")
    assert deployment.wait(run_id) == DagsterRunStatus.FAILURE
    assert "was terminated by signal 9 (SIGKILL)" in deployment.said(run_id)


@pytest.mark.slow
def test_two_hundred_runs_leave_nothing_behind(deployment: Deployment) -> None:
    def use() -> dict[str, float]:
        template, here = psutil.Process(deployment.template()), psutil.Process()
        return {
            "template's descriptors": template.num_fds(),
            "template's children": len(template.children()),
            "template's MiB": template.memory_info().rss / 2**20,
            "launcher's threads": here.num_threads(),
            "launcher's descriptors": here.num_fds(),
            "zombies": sum(child.status() == psutil.STATUS_ZOMBIE for child in here.children(recursive=True)),
        }

    for _ in range(3):
        deployment.wait(deployment.launch("pass"))
    wait_until(lambda: not psutil.Process(deployment.template()).children(), "the first runs")
    before, template = use(), deployment.template()

    started = [deployment.launch("pass") for _ in range(200)]
    assert {deployment.wait(run_id) for run_id in started} == {DagsterRunStatus.SUCCESS}
    assert deployment.template() == template

    def is_left() -> dict[str, float]:
        """What is in use still: the template and the launcher let go of a run a moment after it has ended."""
        now = use()
        return {name: now[name] for name in now if now[name] > before[name] + (4 if name.endswith("MiB") else 2)}

    wait_until(lambda: not is_left(), "what the runs have used to be free again")
