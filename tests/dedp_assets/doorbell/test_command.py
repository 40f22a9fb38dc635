"""`python -m dedp_assets.doorbell` stands in for `dagster-daemon run`."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from dedp_assets import settings
from dedp_assets.errors import SettingError
from tests.dedp_assets.doorbell import watched_location
from tests.waiting import wait_until


@pytest.mark.parametrize(("value", "is_on"), [("", True), ("on", True), ("off", False)])
def test_the_doorbell_is_on_unless_it_is_switched_off(value: str, is_on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDP_DOORBELL", value)
    assert settings.doorbell_is_on() == is_on


def test_a_setting_of_the_doorbell_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDP_DOORBELL", "maybe")
    with pytest.raises(SettingError, match="DEDP_DOORBELL is 'maybe'; expected on or off"):
        settings.doorbell_is_on()
    for wrong in ("soon", "4.9", "nan", "inf"):
        monkeypatch.setenv("DEDP_DOORBELL_NET_SECONDS", wrong)
        with pytest.raises(SettingError, match="expected a number of seconds, 5 or more"):
            settings.doorbell_net_seconds()


@pytest.mark.slow
def test_the_command_ticks_on_a_rename_between_two_hours_without_a_tick_and_ends_with_sigterm(
    empty_dsn: str, own_home: Path, left_running: Callable[[Path], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    landing = own_home / "landing"
    landing.mkdir()
    (own_home / "dagster.yaml").write_text(
        f"storage: {{postgres: {{postgres_url: '{empty_dsn}'}}}}\ntelemetry: {{enabled: false}}\n"
    )
    monkeypatch.setenv("DEDP_LANDING", str(landing))
    monkeypatch.setenv("DEDP_DOORBELL_NET_SECONDS", "3600")
    monkeypatch.setenv("DAGSTER_HOME", str(own_home))
    log = own_home / "daemon.log"
    with dg.DagsterInstance.get() as instance, open(log, "wb") as output:
        location = ["-f", watched_location.__file__]
        process = subprocess.Popen(
            [sys.executable, "-m", "dedp_assets.doorbell", *location], stdout=output, stderr=output, env={**os.environ}
        )

        def said() -> list[str]:
            for state in instance.all_instigator_state():
                if state.instigator_name == "landed":
                    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id)
                    return [tick.skip_reason or "" for tick in ticks]
            return []

        try:
            wait_until(lambda: "the doorbell listens to the directories" in log.read_text() and "nothing" in said())
            (own_home / "draft").touch()
            (own_home / "draft").rename(landing / "dataset.csv")
            wait_until(lambda: "dataset.csv" in said())
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(300) == 0
    wait_until(lambda: not left_running(own_home))
