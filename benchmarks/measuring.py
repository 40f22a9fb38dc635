"""Measures two functions in turn, and compares their medians."""

import statistics
import time
from collections.abc import Callable


def seconds(work: Callable[[], object]) -> float:
    """Return how long one call takes, in seconds of wall time."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def cpu_and_wall(work: Callable[[], object]) -> tuple[float, float]:
    """Return the CPU time of this process during one call, and how long the call takes, both in s."""
    began, used = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - used, time.perf_counter() - began


def claim(what: str, found: float, at_most: float, unit: str = "s") -> bool:
    """Print what was found beside what is claimed, in a line. Returns whether the claim holds."""
    holds = found <= at_most
    of_unit = f" {unit}" if unit else ""
    print(f"{what}: {found:.2f}{of_unit}, at most {at_most:g} claimed: {'holds' if holds else 'FAILS'}", flush=True)
    return holds


def compare_pairs(
    names: tuple[str, str],
    measure: tuple[Callable[[int], tuple[float, float]], Callable[[int], tuple[float, float]]],
    *,
    rounds: int,
    at_most: float,
) -> bool:
    """As `compare`, on a machine that others use as well: judged is the median of the ratios of each round.

    The two calls of a round follow one another, so that what else the machine does hits both. An outlier spoils one
    round, and not a median of either side.

    Args:
        names: what to call the two functions in the output.
        measure: the functions. Each gets the number of the round, 0 being the warm-up, and returns CPU and wall time.
        rounds: how often to measure each function, after the warm-up.
        at_most: the largest ratio of wall time that the claim allows.

    Returns:
        Whether the claim holds.
    """
    taken: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    for number in range(rounds + 1):
        for which in (0, 1) if number % 2 else (1, 0):
            value = measure[which](number)
            if number:
                taken[which].append(value)
    width = max(map(len, names))
    for name, values in zip(names, taken, strict=True):
        cpu, wall = (statistics.median(column) * 1000 for column in zip(*values, strict=True))
        print(f"{name:<{width}}  median {wall:8.1f} ms   CPU {cpu:8.1f} ms   n={rounds}", flush=True)
    cpu, wall = (
        statistics.median(one[which] / other[which] for one, other in zip(*taken, strict=True)) for which in (0, 1)
    )
    verdict = "holds" if wall <= at_most else "FAILS"
    print(f"{'ratio':<{width}}  {wall:.2f}, at most {at_most} claimed: {verdict}   (CPU {cpu:.2f})", flush=True)
    return wall <= at_most


def compare(
    names: tuple[str, str],
    measure: tuple[Callable[[int], float], Callable[[int], float]],
    *,
    rounds: int,
    at_most: float,
) -> bool:
    """Measure two functions in turn, and print their medians and the ratio of these.

    The order alternates, because the second function of a round often finds warmer caches.

    Args:
        names: what to call the two functions in the output.
        measure: the functions. Each gets the number of the round, where 0 is the warm-up, and returns seconds.
        rounds: how often to measure each function, after the warm-up.
        at_most: the largest ratio that the claim allows.

    Returns:
        Whether the claim holds.
    """
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for which in (0, 1) if number % 2 else (1, 0):
            value = measure[which](number)
            if number:
                taken[which].append(value)
    medians = [statistics.median(values) for values in taken]
    width = max(map(len, names))
    for name, values, median in zip(names, taken, medians, strict=True):
        print(
            f"{name:<{width}}  median {median:8.3f} s   min {min(values):8.3f}   max {max(values):8.3f}   n={rounds}",
            flush=True,
        )
    ratio = medians[0] / medians[1]
    verdict = "holds" if ratio <= at_most else "FAILS"
    print(f"{'ratio':<{width}}  {ratio:.2f}, at most {at_most} claimed: {verdict}", flush=True)
    return ratio <= at_most
