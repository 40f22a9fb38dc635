"""The figures of the client uploads as Prometheus reads them."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from dedp_assets.client_uploads.figures import DAY_SECONDS, WINDOW_DAYS, WINDOW_SECONDS, Arrivals, Overview

# The times that the figures of the ledger are given for, in s. Counters of all time would cost more with each file.
WINDOWS = {"1h": 3600, "1d": DAY_SECONDS, f"{WINDOW_DAYS}d": WINDOW_SECONDS}


def upload_metrics(overview: Overview, arrivals: Mapping[str, Arrivals]) -> Iterator[Metric]:
    """The figures of the client uploads.

    Args:
        overview: What the last tick found.
        arrivals: What was done with files, for each window.
    """
    yield from _of_arrivals(arrivals)
    yield from _of_directories(overview)
    yield from _of_tick(overview)


def _of_arrivals(arrivals: Mapping[str, Arrivals]) -> Iterator[Metric]:
    files = GaugeMetricFamily(
        "dedp_uploads_files", "Files that were dealt with in the window, by state", labels=["window", "state"]
    )
    lines = GaugeMetricFamily(
        "dedp_uploads_lines", "Lines of these files, by what became of them", labels=["window", "state"]
    )
    rates = GaugeMetricFamily(
        "dedp_uploads_success_ratio",
        "Share of the window's files that were not refused, 0 to 1; absent without files",
        labels=["window"],
    )
    means = GaugeMetricFamily(
        "dedp_uploads_wait_mean_seconds",
        "Mean wait from the first sight of a file until its run was requested; absent without files",
        labels=["window"],
    )
    quantiles = GaugeMetricFamily(
        "dedp_uploads_wait_seconds",
        "Quantiles of the waits of the window's files; absent without files",
        labels=["window", "quantile"],
    )
    for window, each in arrivals.items():
        for state, number in (("loaded", each.loaded), ("received", each.received), ("refused", each.refused)):
            files.add_metric([window, state], number)
        for state, number in (("loaded", each.rows_loaded), ("quarantined", each.rows_quarantined)):
            lines.add_metric([window, state], number)
        if each.success_rate is not None:
            rates.add_metric([window], each.success_rate)
        if each.waits is not None:
            means.add_metric([window], each.waits.mean)
            quantiles.add_metric([window, "0.5"], each.waits.p50)
            quantiles.add_metric([window, "0.95"], each.waits.p95)
    yield from (files, lines, rates, means, quantiles)


def _of_directories(overview: Overview) -> Iterator[Metric]:
    directories = GaugeMetricFamily(
        "dedp_uploads_directories", "Watched directories, by what the last tick found", labels=["state"]
    )
    for state, number in overview.states.items():
        directories.add_metric([state], number)
    # Not of the healthy ones: there may be thousands.
    since = GaugeMetricFamily(
        "dedp_uploads_directory_not_healthy_since_seconds",
        "Since when a directory has been failing, silent or given up, in s since the epoch; absent while it is healthy",
        labels=["client", "state"],
    )
    for directory in overview.directories:
        if directory.state != "healthy":
            since.add_metric([directory.client, directory.state], _epoch(directory.since))
    waiting = GaugeMetricFamily(
        "dedp_uploads_files_waiting", "Files that are not in the ledger yet, complete or not", value=overview.waiting
    )
    yield from (directories, since, waiting)


def _of_tick(overview: Overview) -> Iterator[Metric]:
    tick = overview.tick
    if tick is None:
        return
    yield GaugeMetricFamily(
        "dedp_uploads_queue_depth", "Complete files that wait for a free run", value=tick.queue_depth
    )
    yield GaugeMetricFamily("dedp_uploads_tick_duration_seconds", "How long the last tick took", value=tick.seconds)
    yield GaugeMetricFamily(
        "dedp_uploads_last_tick_timestamp_seconds",
        "When the last tick ended, in s since the epoch",
        value=_epoch(tick.ended_at),
    )
    yield CounterMetricFamily(
        "dedp_uploads_timeouts", "Directories that were reported because nothing had arrived", value=tick.timeouts
    )


def _epoch(time: datetime) -> float:
    return time.timestamp()
