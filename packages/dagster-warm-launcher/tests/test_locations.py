"""Which locations get a template, when they get a new one, and what is said where they can't have one."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PLAIN, Deployment, wait_until
from dagster import DagsterRunStatus

# Each test starts several code servers or templates.
pytestmark = pytest.mark.slow
WRITES = "import os, pathlib; pathlib.Path(PATH).write_text(str(os.getppid()) + ' ' + str(VALUE))"


@pytest.fixture(scope="module")
def deployment(deploy: Callable[..., Deployment]) -> Deployment:
    made = deploy(
        {
            "plain": "import settings\n" + PLAIN,
            "threaded": "import starts_a_thread\n" + PLAIN,
            "connected": "import socket\nkept = socket.socketpair()\n" + PLAIN,
            "numeric": "import numpy\n" + PLAIN,
            "lake": "try:\n    import deltalake, pyarrow\nexcept ImportError:\n    pass\n" + PLAIN,
        }
    )
    (made.folder / "settings.py").write_text(
        "import pathlib\nvalue = 1\nquery = pathlib.Path(__file__).with_name('query.sql').read_text()"
    )
    (made.folder / "query.sql").write_text("select 1")
    (made.folder / "starts_a_thread.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=[3600], daemon=True).start()"
    )
    return made.start()


def value_in_a_run(deployment: Deployment, value: str, location: str = "plain") -> tuple[int, str]:
    """Return the parent's pid of a run, and what an expression is in it."""
    path = deployment.folder / "written"
    source = WRITES.replace("PATH", repr(str(path))).replace("VALUE", value)
    assert deployment.wait(deployment.launch(source, location)) == DagsterRunStatus.SUCCESS
    parent, found = path.read_text().split(" ", 1)
    return int(parent), found


def test_a_changed_file_is_in_the_next_run(deployment: Deployment) -> None:
    settings, query = deployment.folder / "settings.py", deployment.folder / "query.sql"
    assert value_in_a_run(deployment, "__import__('settings').value")[1] == "1"
    first = deployment.template()

    settings.write_text(settings.read_text().replace("value = 1", "value = 22"))
    assert value_in_a_run(deployment, "__import__('settings').value") == (deployment.template(), "22")
    assert deployment.template() != first

    # A file that was only read counts, too.
    query.write_text("select 33")
    assert value_in_a_run(deployment, "__import__('settings').query") == (deployment.template(), "select 33")


def test_code_that_changes_while_a_run_is_under_way_leaves_that_run_alone(deployment: Deployment) -> None:
    began, go_on = deployment.folder / "began", deployment.folder / "go on"
    source = (
        f"import pathlib, time, settings; pathlib.Path({str(began)!r}).touch()\n"
        f"while not pathlib.Path({str(go_on)!r}).exists(): time.sleep(0.05)\n"
        "assert settings.query != 'changed', settings.query"
    )
    run_id = deployment.launch(source)
    wait_until(began.exists, "the step")

    (deployment.folder / "query.sql").write_text("changed")
    assert value_in_a_run(deployment, "__import__('settings').query")[1] == "changed"
    go_on.touch()
    assert deployment.wait(run_id) == DagsterRunStatus.SUCCESS


def test_a_reloaded_location_has_a_new_template(deployment: Deployment) -> None:
    value_in_a_run(deployment, "1")
    before = deployment.template()

    assert deployment.process is not None
    deployment.process.reload_code_location("plain")
    parent, _ = value_in_a_run(deployment, "1")
    assert parent == deployment.template() != before


def test_a_location_that_starts_a_thread_at_import_is_named_and_runs_in_fresh_processes(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "dagster.warm_launcher"):
        for _ in range(2):
            assert deployment.wait(deployment.launch("pass", "threaded")) == DagsterRunStatus.SUCCESS

    said = [record.message for record in caplog.records if "threaded" in record.message]
    assert len(said) == 1
    assert "fresh process" in said[0]
    assert "starts_a_thread (1, imported by" in said[0]
    assert deployment.template("threaded") is None


def test_a_location_that_opens_a_connection_at_import_runs_in_fresh_processes(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "dagster.warm_launcher"):
        assert deployment.wait(deployment.launch("pass", "connected")) == DagsterRunStatus.SUCCESS

    assert "leaves socket:[" in caplog.text


def test_threads_that_end_before_a_fork_are_no_obstacle_and_runs_draw_their_own_numbers(deployment: Deployment) -> None:
    draw = "__import__('numpy').random.rand()"
    (first_parent, first), (second_parent, second) = (value_in_a_run(deployment, draw, "numeric") for _ in range(2))

    assert first_parent == second_parent == deployment.template("numeric")
    assert first != second


DELTA = """
import deltalake, pyarrow as pa, pyarrow.compute
table = pa.table({"number": range(1_000_000)})
deltalake.write_deltalake(PATH, table)
found = deltalake.DeltaTable(PATH).to_pyarrow_table()
assert pyarrow.compute.sum(found["number"]).as_py() == 499999500000
"""


def test_runs_of_a_location_that_imports_arrow_and_delta_are_forks_and_can_use_them(deployment: Deployment) -> None:
    pytest.importorskip("deltalake")
    pytest.importorskip("pyarrow")
    runs = [deployment.launch(DELTA.replace("PATH", repr(str(deployment.folder / str(n)))), "lake") for n in range(3)]
    assert {deployment.wait(run_id) for run_id in runs} == {DagsterRunStatus.SUCCESS}
    assert deployment.template("lake")


def test_a_location_that_can_no_longer_be_imported_says_so(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    numeric = deployment.folder / "numeric.py"
    good = numeric.read_text()
    numeric.write_text("raise RuntimeError('a broken deploy')\n" + good)
    with caplog.at_level(logging.INFO, "dagster.warm_launcher"):
        run_id = deployment.launch("pass", "numeric")
        assert deployment.wait(run_id) == DagsterRunStatus.FAILURE
    assert "a broken deploy" in caplog.text
    # As without this launcher: the run's process finds what its code server could import, and says so in the run.
    assert "a broken deploy" in str([event.dagster_event for event in deployment.instance.all_logs(run_id)])

    numeric.write_text(good)
    assert value_in_a_run(deployment, "1", "numeric")[1] == "1"


def test_a_run_of_an_environment_without_this_package_starts_in_a_fresh_process(tmp_path: Path) -> None:
    from dagster_warm_launcher._client import Location, NotWarm, Template

    python = tmp_path / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path], check=True)
    location = Location("bare", str(python), "", None, "", {}, str(tmp_path), False, None)
    with pytest.raises(NotWarm, match=f"Is dagster-warm-launcher installed for {python}"):
        Template(location, max_runs=1, startup_timeout=60)


def test_the_launcher_can_be_switched_off(deploy: Callable[..., Deployment]) -> None:
    deployment = deploy({"plain": PLAIN}, {"enabled": False}).start()
    run_id = deployment.launch("pass")
    assert deployment.wait(run_id) == DagsterRunStatus.SUCCESS
    assert deployment.template() is None
    assert ".dagster/warm_run" not in deployment.run(run_id).tags
    assert json.loads(deployment.run(run_id).tags[".dagster/grpc_info"])
