"""`dedp demo`: passes on the real system, leaves nothing running, and keeps its hands off other people's data."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import dagster as dg
import pytest

from dedp_assets import local_stack
from dedp_assets.demo import _demo_home, _use_own_home, timeline
from dedp_assets.demo.timeline import DemoFailed, Timeline

DEDP = str(Path(sys.executable).with_name("dedp"))


@pytest.fixture
def new_home(monkeypatch):
    """A home that is not there yet, where the embedded server, which under root is another user's, can reach it."""
    with tempfile.TemporaryDirectory(prefix="dedp-tests-") as folder:
        Path(folder).chmod(0o755)
        home = Path(folder) / "home"
        monkeypatch.setenv("DEDP_HOME", str(home))
        yield home


def test_the_demo_passes_and_leaves_nothing_running(new_home, left_running):
    demo = subprocess.run([DEDP, "demo"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "expected" not in demo.stdout
    assert demo.stderr == ""
    assert left_running(new_home) == []


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_the_demo_leaves_nothing_running(new_home, left_running):
    demo = subprocess.Popen([DEDP, "demo"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = b""
    with demo:
        while b"started " not in said:
            line = demo.stdout.readline()
            assert line, said.decode()
            said += line
        demo.send_signal(signal.SIGINT)
        said += demo.stdout.read()
    assert demo.returncode == 130, said.decode()
    assert left_running(new_home) == []


def test_a_new_or_empty_home_is_the_demos_own(tmp_path):
    assert _demo_home(tmp_path / "new") == tmp_path / "new"
    assert _demo_home(tmp_path) == tmp_path


def test_the_demo_takes_its_own_home_again(tmp_path):
    (tmp_path / "demo").touch()
    (tmp_path / "landing").mkdir()
    assert _demo_home(tmp_path) == tmp_path


@pytest.mark.parametrize("content", ["landing/devices/dataset.csv", "created", ".hidden", "demo/dataset.csv"])
def test_the_demo_moves_aside_for_a_home_that_is_somebodys(tmp_path, content):
    kept = tmp_path / content
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("somebody's")
    assert _demo_home(tmp_path) == tmp_path / "demo_home"


def test_the_demo_moves_aside_from_a_folder_of_its_name_that_is_somebodys(tmp_path):
    for folder in (tmp_path, tmp_path / "demo_home"):
        folder.mkdir(exist_ok=True)
        (folder / "kept").write_text("somebody's")
    assert _demo_home(tmp_path) == tmp_path / "demo_home" / "demo_home"


def test_the_demo_wipes_what_it_made_before_and_nothing_else(tmp_path, monkeypatch):
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


def test_the_demo_refuses_a_home_whose_system_is_running(tmp_path, monkeypatch):
    monkeypatch.setenv("DEDP_HOME", str(tmp_path))
    (tmp_path / "demo").touch()
    with (
        local_stack._lock_of_system(tmp_path),
        pytest.raises(local_stack.StackError, match="is running; stop it first"),
    ):
        _use_own_home()
    assert (tmp_path / "demo").exists()


@pytest.fixture
def asset_timeline():
    with dg.DagsterInstance.ephemeral() as instance:
        yield Timeline(instance, [dg.AssetKey("asset")]), instance


def test_acts_play_side_by_side_and_each_at_its_own_pace(asset_timeline):
    played, instance = asset_timeline
    order = []

    def slow():
        order.append("slow begins")
        yield lambda: played.counts[dg.AssetKey("asset")] == 1
        order.append("slow goes on")
        return True

    def quick():
        order.append("quick begins")
        yield lambda: True
        order.append("quick goes on")
        instance.report_runless_asset_event(dg.AssetMaterialization("asset"))
        return True

    assert played.play([slow(), quick()])
    assert order == ["slow begins", "quick begins", "quick goes on", "slow goes on"]


def test_one_act_that_is_not_as_it_should_be_fails_the_demo_and_the_others_end(asset_timeline):
    ended = []

    def act(result):
        yield lambda: True
        ended.append(result)
        return result

    assert not asset_timeline[0].play([act(False), act(True)])
    assert ended == [False, True]


def test_a_demo_that_fails_ends_every_act(asset_timeline):
    ended = []

    def fails():
        yield lambda: True
        raise DemoFailed("a run failed")

    def waits():
        try:
            yield lambda: False
        finally:
            ended.append("waits")

    acts = [waits(), fails()]  # held, so that it is not the garbage collector who ends them
    with pytest.raises(DemoFailed, match="a run failed"):
        asset_timeline[0].play(acts)
    assert ended == ["waits"]


def test_a_demo_in_which_nothing_happens_any_more_is_given_up(asset_timeline, monkeypatch):
    monkeypatch.setattr(timeline, "_PATIENCE_SECONDS", 0)

    def waits():
        yield lambda: False
        return True

    with pytest.raises(DemoFailed, match="nothing has happened"):
        asset_timeline[0].play([waits()])
