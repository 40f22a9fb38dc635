"""What is taken from Dagster's private modules is still there, and is used as it is meant."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import dagster
from dagster._core.launcher import default_run_launcher
from dagster._grpc import impl, server
from dagster_warm_launcher import _dagster

PACKAGE = Path(_dagster.__file__).parent
CHANGED = (
    "Dagster {} changed this. Look at what the code that uses it relies on, then at the tests of the running system."
)


def test_only_one_module_imports_private_names_of_dagster() -> None:
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("dagster.", "dagster_shared")):
                assert path.name == "_dagster.py", f"{path.name} imports from {node.module}"


def test_the_supported_releases_are_those_of_the_package() -> None:
    project = (PACKAGE.parent.parent / "pyproject.toml").read_text()
    assert f'dependencies = ["dagster{_dagster.SUPPORTED}"]' in project


def test_a_code_server_starts_runs_as_the_forks_know_it() -> None:
    changed = CHANGED.format(dagster.__version__)
    start_run = inspect.getsource(server.DagsterApiServer.StartRun)
    for used in ("_mp_ctx.Queue()", "_mp_ctx.Event()", "_mp_ctx.Process(", "get_nowait()", "queue.Empty", "is_alive()"):
        assert used in start_run, changed
    assert "if not process.is_alive():" in inspect.getsource(server.DagsterApiServer._check_for_orphaned_runs), changed
    parameters = list(inspect.signature(impl.start_run_in_subprocess).parameters)
    assert parameters == ["serialized_execute_run_args", "recon_pipeline", "event_queue", "termination_event"], changed
    assert "capture_interrupts" in inspect.getsource(impl.start_run_in_subprocess), changed


def test_the_default_launcher_is_what_the_fall_back_relies_on() -> None:
    source = inspect.getsource(default_run_launcher.DefaultRunLauncher)
    assert "self._run_ids" in source
    assert "GRPC_INFO_TAG" in source
