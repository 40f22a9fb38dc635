import time
from collections.abc import Callable


def until(condition: Callable[[], object]) -> None:
    """Wait for something that has to come."""
    give_up = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < give_up, "it did not come"
        time.sleep(0.01)
