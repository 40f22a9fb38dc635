"""`dedp demo` passes on the real system, leaves nothing running, and does not touch the user's data."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import dagster as dg
import pytest

from dedp_assets import local_stack
from dedp_assets.demo import _demo_home, _use_own_home, timeline
from dedp_assets.demo.timeline import Act, DemoFailed, Timeline
from tests.dedp_command import DEDP

LeftRunning: TypeAlias = Callable[[Path], list[str]]
AssetTimeline: TypeAlias = tuple[Timeline, dg.DagsterInstance]


@pytest.fixture
def new_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that does not exist yet. If root runs the tests, the embedded server has another user, who can open it."""
    with tempfile.TemporaryDirectory(prefix="dedp-tests-") as folder:
        Path(folder).chmod(0o755)
        home = Path(folder) / "home"
        monkeypatch.setenv("DEDP_HOME", str(home))
        yield home


@pytest.mark.slow  # whoever runs `make test` has seen `make demo`, which checks its results
def test_the_demo_passes_and_leaves_nothing_running(new_home: Path, left_running: LeftRunning) -> None:
    demo = subprocess.run([DEDP, "demo"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "expected" not in demo.stdout
    assert demo.stderr == ""
    assert left_running(new_home) == []


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_the_demo_leaves_nothing_running(new_home: Path, left_running: LeftRunning) -> None:
    demo = subprocess.Popen([DEDP, "demo"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = b""
    with demo:
        assert demo.stdout
        while b"started " not in said:
            line = demo.stdout.readline()
            assert line, said.decode()
            said += line
        demo.send_signal(signal.SIGINT)
        said += demo.stdout.read()
    assert demo.returncode == 130, said.decode()
    assert left_running(new_home) == []


def test_a_new_or_empty_home_is_the_demos_own(tmp_path: Path) -> None:
    assert _demo_home(tmp_path / "new") == tmp_path / "new"
    assert _demo_home(tmp_path) == tmp_path


def test_the_demo_takes_its_own_home_again(tmp_path: Path) -> None:
    (tmp_path / "demo").touch()
    (tmp_path / "landing").mkdir()
    assert _demo_home(tmp_path) == tmp_path


@pytest.mark.parametrize("content", ["landing/devices/dataset.csv", "created", ".hidden", "demo/dataset.csv"])
def test_the_demo_moves_aside_for_a_home_that_is_somebodys(tmp_path: Path, content: str) -> None:
    kept = tmp_path / content
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("somebody's")
    assert _demo_home(tmp_path) == tmp_path / "demo_home"


def test_the_demo_moves_aside_from_a_folder_of_its_name_that_is_somebodys(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "demo_home"):
        folder.mkdir(exist_ok=True)
        (folder / "kept").write_text("somebody's")
    assert _demo_home(tmp_path) == tmp_path / "demo_home" / "demo_home"


def test_the_demo_wipes_what_it_made_before_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "dataset.csv").write_text("somebody's")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "dataset.csv").write_text("somebody's")
    monkeypatch.setenv("DEDP_HOME", str(tmp_path))
    monkeypatch.setenv("DEDP_LANDING", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("DEDP_POSTGRES_DSN", "postgresql://somebodys-server/database")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "somebodys instance"))

    _use_own_home()
    demo_home = tmp_path / "demo_home"
    (demo_home / "left by the demo").touch()
    monkeypatch.setenv("DEDP_HOME", str(tmp_path))
    _use_own_home()

    assert os.environ["DEDP_HOME"] == str(demo_home)
    assert {name for name in os.environ if name.startswith("DEDP_")} == {"DEDP_HOME"}
    assert "DAGSTER_HOME" not in os.environ
    assert sorted(path.name for path in demo_home.iterdir()) == ["created", "demo"]
    for folder in ("landing", "elsewhere"):
        assert (tmp_path / folder / "dataset.csv").read_text() == "somebody's"


def test_the_demo_refuses_a_home_whose_system_is_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDP_HOME", str(tmp_path))
    (tmp_path / "demo").touch()
    with (
        local_stack.lock_of_system(tmp_path),
        pytest.raises(local_stack.StackError, match="is running; stop it first"),
    ):
        _use_own_home()
    assert (tmp_path / "demo").exists()


@pytest.fixture
def asset_timeline() -> Iterator[AssetTimeline]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Timeline(instance, [dg.AssetKey("asset")]), instance


def test_acts_play_side_by_side_and_each_at_its_own_pace(asset_timeline: AssetTimeline) -> None:
    played, instance = asset_timeline
    order = []

    def slow() -> Act:
        order.append("slow begins")
        yield lambda: played.counts[dg.AssetKey("asset")] == 1
        order.append("slow goes on")
        return True

    def quick() -> Act:
        order.append("quick begins")
        yield lambda: True
        order.append("quick goes on")
        instance.report_runless_asset_event(dg.AssetMaterialization("asset"))
        return True

    assert played.play([slow(), quick()])
    assert order == ["slow begins", "quick begins", "quick goes on", "slow goes on"]


def test_one_act_that_is_not_as_it_should_be_fails_the_demo_and_the_others_end(asset_timeline: AssetTimeline) -> None:
    ended = []

    def act(result: bool) -> Act:
        yield lambda: True
        ended.append(result)
        return result

    assert not asset_timeline[0].play([act(False), act(True)])
    assert ended == [False, True]


def test_a_demo_that_fails_ends_every_act(asset_timeline: AssetTimeline) -> None:
    ended = []

    def fails() -> Act:
        yield lambda: True
        raise DemoFailed("a run failed")

    def waits() -> Act:
        try:
            yield lambda: False
            return True
        finally:
            ended.append("waits")

    acts = [waits(), fails()]  # keep a reference: the garbage collector must not be what ends them
    with pytest.raises(DemoFailed, match="a run failed"):
        asset_timeline[0].play(acts)
    assert ended == ["waits"]


def test_a_demo_in_which_nothing_happens_any_more_is_given_up(
    asset_timeline: AssetTimeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "_PATIENCE_SECONDS", 0)

    def waits() -> Act:
        yield lambda: False
        return True

    with pytest.raises(DemoFailed, match="nothing has happened"):
        asset_timeline[0].play([waits()])
