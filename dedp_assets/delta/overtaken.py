"""What a writer of a Delta table does if somebody else commits first: it looks again, and tries again after a pause.

The commit is the lock. Of writers that opened the same version of a table, one commits, and the others are overtaken.
"""

import random
import time
from collections.abc import Iterator

from dedp_assets.errors import TransientError

# An attempt is lost if somebody else commits first, mostly a run of another day.
ATTEMPTS = 100


class OvertakenTooOften(TransientError):
    """A table could not be written, because others kept committing first."""


def pauses(what: str) -> Iterator[None]:
    """Make the pauses of a writer. `next()` waits after an attempt that was overtaken, longer each time, at most 0.5 s.

    Args:
        what: What is written, for the error.

    Raises:
        OvertakenTooOften: This was the last attempt.
    """
    for attempt in range(ATTEMPTS - 1):
        # At random: writers that were overtaken together do not meet again.
        time.sleep(random.uniform(0, min(0.02 * 2**attempt, 0.5)))
        yield
    raise OvertakenTooOften(
        f"{what} could not be written: somebody else committed first, {ATTEMPTS} times in a row. "
        "Let fewer runs write at the same time."
    )
