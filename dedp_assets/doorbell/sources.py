"""Keeps what rings the bell running: what fails is said, and starts again after a pause."""

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger("dagster.daemon.doorbell")

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0


def next_pause(pause: float) -> float:
    """The pause after the one that was in vain, in s."""
    return min(2 * pause, LONGEST_PAUSE_SECONDS)


class Source:
    """A thread that listens to something. If it fails, it says so and starts again, with growing pauses.

    Args:
        name: what it listens to, for messages.
        listen: listens until `stopped` is set. It calls its argument once it hears.
        stopped: set when the daemon stops.
    """

    def __init__(
        self,
        name: str,
        listen: Callable[[Callable[[], None]], None],
        stopped: threading.Event,
    ) -> None:
        self._name, self._listen, self._stopped = name, listen, stopped
        self._hears = False
        self._pause = FIRST_PAUSE_SECONDS
        self._thread = threading.Thread(target=self._run, name=f"doorbell-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def hears(self) -> bool:
        """Whether it listens now. False, too, if its thread has died."""
        return self._hears and self._thread.is_alive()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._listen(self._say_hearing)
            except Exception as error:
                if self._stopped.is_set():
                    return
                first_line = " ".join(str(error).split()) or type(error).__name__
                logger.warning(
                    "the doorbell hears nothing of %s: %s. Sensors are polled every 5 s; it tries again in %g s",
                    *(self._name, first_line, self._pause),
                )
            finally:
                self._hears = False
            self._stopped.wait(self._pause)
            self._pause = next_pause(self._pause)

    def _say_hearing(self) -> None:
        if not self._hears:
            logger.info("the doorbell listens to %s", self._name)
        self._hears, self._pause = True, FIRST_PAUSE_SECONDS
