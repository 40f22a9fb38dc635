"""The state table says what was seen last, whoever else writes it at the same time."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from dedp_assets.delta import overtaken
from dedp_assets.late_data_integrator import state
from dedp_assets.late_data_integrator.device_counts import InputVersion
from dedp_assets.late_data_integrator.state import PartitionState


def seen(version: int, *in_progress: str) -> state.Progress:
    """The progress of one day that was counted as of a version."""
    snapshot = SimpleNamespace(version=version, table_id="", files={}, fingerprint=lambda day: 0)
    return state.Progress(snapshot, {"2024-01-01": InputVersion(version, 0)}, (), {}, in_progress)  # type: ignore[arg-type]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "partitions_state")


def test_it_is_written_when_something_has_changed_and_only_then(uri: str) -> None:
    assert state.read_state(uri, {}) == []
    assert state.publish(uri, lambda: seen(3, "2024-01-01"), {})[1] is True
    assert state.read_state(uri, {}) == [PartitionState("event_time=2024-01-01", True, 3)]
    assert state.publish(uri, lambda: seen(3, "2024-01-01"), {})[1] is False
    assert state.publish(uri, lambda: seen(3), {})[1] is True
    assert state.read_state(uri, {}) == [PartitionState("event_time=2024-01-01", False, 3)]


def test_what_was_seen_earlier_does_not_replace_what_was_seen_later(uri: str) -> None:
    observations = iter([seen(3, "2024-01-01"), seen(4)])

    def observe() -> state.Progress:
        found = next(observations)
        if found.recorded["2024-01-01"].version == 3:
            # Meanwhile somebody else writes what came after that.
            state.publish(uri, lambda: seen(4), {})
        return found

    progress, written = state.publish(uri, observe, {})
    assert not written
    assert progress.recorded["2024-01-01"].version == 4
    assert state.read_state(uri, {}) == [PartitionState("event_time=2024-01-01", False, 4)]


def test_a_table_that_others_never_leave_alone_is_an_error_that_says_so(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overtaken, "ATTEMPTS", 2)
    versions = iter(range(100))

    def observe() -> state.Progress:
        state.publish(uri, lambda: seen(next(versions)), {})
        return seen(1000)

    with pytest.raises(
        overtaken.OvertakenTooOften, match=r"partitions_state could not be written: .* 2 times in a row"
    ):
        state.publish(uri, observe, {})
