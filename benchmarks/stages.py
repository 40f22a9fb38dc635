"""Where the time of a reaction goes: moments, the lags between them, and how many trials are summed up."""

import itertools
import statistics
from collections.abc import Sequence

# What happens between a file's rename and the totals, in order.
MOMENTS = (
    "file renamed",
    "run of devices_file created",
    "run starting",
    "first step",
    "devices_file materialized",
    "run of the aggregator created",
    "run starting",
    "first step",
    "totals refreshed",
)


def lags(moments: Sequence[float]) -> list[float]:
    """How long each moment came after the one before, in seconds. The first moment has no lag."""
    return [later - earlier for earlier, later in itertools.pairwise(moments)]


def p95(values: Sequence[float]) -> float:
    """The value that 95 % of the trials do not exceed, interpolated between two trials."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def table(trials: Sequence[Sequence[float]]) -> list[str]:
    """The lines of a table with the median and the 95th percentile of each stage, and of the whole.

    Args:
        trials: the moments of each trial, in s since the epoch.
    """
    stages = [f"{before} -> {after}" for before, after in itertools.pairwise(MOMENTS)]
    columns = [*zip(*(lags(trial) for trial in trials), strict=True), [trial[-1] - trial[0] for trial in trials]]
    width = max(map(len, stages))
    return [f"{'':<{width}}  median     p95"] + [
        f"{stage:<{width}}  {statistics.median(column):6.2f}  {p95(column):6.2f}"
        for stage, column in zip([*stages, "all"], columns, strict=True)
    ]


def missing(moments: Sequence[float]) -> str:
    """Which moment a trial did not reach."""
    return MOMENTS[len(moments)] if len(moments) < len(MOMENTS) else "nothing"
