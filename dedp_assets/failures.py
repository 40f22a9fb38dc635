"""How an error that we can name becomes the failure of a run: with its text, and without a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from dedp_assets.errors import DedpError


@contextmanager
def named_failures(log: dg.DagsterLogManager) -> Iterator[None]:
    """Fail the step with the text of a DedpError that is raised in the block.

    Args:
        log: the log of the step; it gets the text as an error, because Dagster prints a failure inside a traceback.

    Raises:
        dg.Failure: with the text of the error. Dagster retries the step only if the error may pass.
    """
    try:
        yield
    except DedpError as error:
        log.error(str(error))
        raise dg.Failure(str(error), allow_retries=error.may_pass) from None
