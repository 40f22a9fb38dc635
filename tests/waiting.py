"""Waits in tests for something that has to come."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(found: Callable[[], T], what: str = "what has to come") -> T:
    """Ask again and again until the answer is true, and return it. Fails after minutes: the machine may be busy."""
    give_up = time.monotonic() + 300
    while not (value := found()):
        assert time.monotonic() < give_up, f"waited in vain for {what}"
        time.sleep(0.02)
    return value
