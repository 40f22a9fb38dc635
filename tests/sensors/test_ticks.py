"""A tick that meets an error that we can name says so in its message, keeps its cursor, and loses nothing."""

from collections.abc import Callable

import dagster as dg
import pytest

from dedp_assets.delta.problems import TableMissing
from dedp_assets.errors import PermanentError, TransientError
from sensors.ticks import TickReport, noting_errors, reporting_tick, some_of
from tests.ticks import SensorTicks

KEY = dg.AssetKey("devices")

# Fills in the report of a tick.
Evaluate = Callable[[TickReport], None]


def ticks_of(instance: dg.DagsterInstance, evaluate: Evaluate) -> SensorTicks:
    """A sensor that is evaluated like this, after ticks that have left a cursor."""

    def of_context(context: dg.SensorEvaluationContext, report: TickReport) -> None:
        evaluate(report)

    sensor = dg.sensor(name="some", target=dg.AssetSelection.assets(KEY))(reporting_tick(of_context))
    ticks = SensorTicks(sensor, instance)
    ticks.cursor = "before"
    return ticks


@pytest.mark.parametrize("error", [TransientError("it is away"), PermanentError("it is away")])
def test_an_error_keeps_the_cursor_and_is_the_message_of_the_tick(
    instance: dg.DagsterInstance, error: Exception
) -> None:
    def evaluate(report: TickReport) -> None:
        raise error

    tick = ticks_of(instance, evaluate)()
    assert tick.message == "error: it is away"
    assert tick.cursor == "before"


def test_what_was_found_before_the_error_is_not_lost(instance: dg.DagsterInstance) -> None:
    def evaluate(report: TickReport) -> None:
        report.notes.append("one run has ended")
        report.asset_events.append(dg.AssetMaterialization(KEY))
        report.cursor = "after the event"
        raise TransientError("it is away")

    tick = ticks_of(instance, evaluate)()
    assert tick.message == "error: it is away; one run has ended"
    assert [event.asset_key for event in tick.events] == [KEY]
    assert tick.cursor == "after the event"


def test_an_error_beside_run_requests_is_in_the_log_of_the_tick(
    instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    def evaluate(report: TickReport) -> None:
        report.run_requests.append(dg.RunRequest())
        raise TransientError("it is away")

    tick = ticks_of(instance, evaluate)()
    assert len(tick.run_requests) == 1
    assert tick.message == ""
    assert "it is away" in capfd.readouterr().err


def test_work_after_a_noted_error_goes_on(instance: dg.DagsterInstance) -> None:
    def evaluate(report: TickReport) -> None:
        with noting_errors(report.notes):
            raise TransientError("one table is away")
        report.notes.append("the other is read")

    assert ticks_of(instance, evaluate)().message == "error: one table is away; the other is read"


def test_what_only_is_not_there_yet_is_no_error(instance: dg.DagsterInstance) -> None:
    def evaluate(report: TickReport) -> None:
        raise TableMissing("there is no table yet")

    assert ticks_of(instance, evaluate)().message == "there is no table yet"


def test_an_error_that_we_cannot_name_fails_the_tick(instance: dg.DagsterInstance) -> None:
    def evaluate(report: TickReport) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ticks_of(instance, evaluate)()


def test_at_most_twenty_names_are_listed() -> None:
    assert some_of(["a", "b"]) == "a, b"
    assert some_of([str(number) for number in range(23)]).endswith(", 18, 19, and 3 more")
