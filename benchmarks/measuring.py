"""Times two things in turn and compares their medians."""

import statistics
import time
from collections.abc import Callable


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes, in seconds of wall time."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare(
    names: tuple[str, str],
    measure: tuple[Callable[[int], float], Callable[[int], float]],
    *,
    rounds: int,
    at_most: float,
) -> bool:
    """Measure one and the other, `rounds` times after a warm-up, and print medians and their ratio.

    Each function gets the number of the round (0 is the warm-up) and returns seconds. The order within a round
    alternates, because the second often finds warmer caches. True if the ratio of the medians is at most `at_most`.
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
        print(f"{name:<{width}}  median {median:8.3f} s   min {min(values):8.3f}   max {max(values):8.3f}   n={rounds}")
    ratio = medians[0] / medians[1]
    print(f"{'ratio':<{width}}  {ratio:.2f}, at most {at_most} claimed: {'holds' if ratio <= at_most else 'FAILS'}")
    return ratio <= at_most
