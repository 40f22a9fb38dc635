"""What a run shows of an error that we can name."""

import dagster as dg
import pytest

from dedp_assets.errors import DedpError, PermanentError, TransientError
from dedp_assets.failures import named_failures


def attempts_until_it_fails(error: DedpError) -> tuple[int, str]:
    """Materialize an asset that raises `error`, with two retries: how often it ran, and what its failure says."""
    attempts: list[int] = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=2))
    def tides(context: dg.AssetExecutionContext) -> None:
        attempts.append(context.retry_number)
        with named_failures(context.log):
            raise error

    result = dg.materialize([tides], raise_on_error=False)
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.user_failure_data is not None
    return len(attempts), failure.step_failure_data.user_failure_data.description or ""


def test_a_permanent_error_fails_the_step_at_once_with_its_text() -> None:
    assert attempts_until_it_fails(PermanentError("tides.csv has no header")) == (1, "tides.csv has no header")


def test_an_error_that_may_pass_is_retried() -> None:
    assert attempts_until_it_fails(TransientError("the gauge does not answer")) == (3, "the gauge does not answer")


def test_an_error_that_we_cannot_name_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), named_failures(dg.build_asset_context().log):
        _ = 1 / 0
