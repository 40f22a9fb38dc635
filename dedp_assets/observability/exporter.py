"""`dedp metrics`: all figures as Prometheus reads them, printed once or served."""

import threading
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from dedp_assets.resources.postgres import DatabaseUnavailable


class Figures(Collector):
    """Reads the figures when it is asked. While one answer is read, another one waits: PostgreSQL has work to do.

    Args:
        read: Reads all figures.
        without: Gives the figures that are left when the database does not answer; None to raise its error.
    """

    def __init__(
        self, read: Callable[[], Iterator[Metric]], without: Callable[[], Iterator[Metric]] | None = None
    ) -> None:
        self._read, self._without = read, without
        self._reading = threading.Lock()

    def collect(self) -> Iterable[Metric]:
        with self._reading:
            try:
                return list(self._read())
            except DatabaseUnavailable:
                if self._without is None:
                    raise
                return list(self._without())


def registry_of(figures: Figures) -> CollectorRegistry:
    """A registry that reads nothing until it is asked."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(figures)
    return registry


def serve(registry: CollectorRegistry, host: str, port: int) -> threading.Thread:
    """Serve the figures on `http://host:port/metrics`, in a thread."""
    _, thread = start_http_server(port, host, registry)
    return thread
