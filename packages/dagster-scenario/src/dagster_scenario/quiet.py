"""What Dagster says about itself while a scenario drives it, and what is therefore not shown."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_dagsters_warnings() -> Iterator[None]:
    """What Dagster warns of about its own code is not the project's to mend."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"dagster(\.|_shared\b|$)")
        yield


@contextmanager
def quiet_logs() -> Iterator[None]:
    """The timeline tells what happens; Dagster's loggers would tell it again, in real ids and hundreds of lines."""
    loggers = [logging.getLogger("dagster"), logging.getLogger("dagster.daemon")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
