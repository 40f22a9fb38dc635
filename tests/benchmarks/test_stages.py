"""The arithmetic of the benchmark of reactions."""

from benchmarks.stages import MOMENTS, missing, p95, table


def test_each_stage_is_the_time_since_the_moment_before_it() -> None:
    trial = [100.0 + number * number / 10 for number in range(len(MOMENTS))]

    heading, *stages, whole = table([trial, trial])

    assert heading.split() == ["median", "p95"]
    assert [line.split()[-2] for line in stages] == ["0.10", "0.30", "0.50", "0.70", "0.90", "1.10", "1.30", "1.50"]
    assert whole.split() == ["all", "6.40", "6.40"]


def test_one_slow_trial_of_many_shows_in_the_95th_percentile() -> None:
    assert p95([1.0] * 18 + [1.5, 9.0]) == 1.5 + (9.0 - 1.5) * 0.05
    assert p95([4.0]) == 4.0


def test_a_trial_that_stops_says_which_moment_it_did_not_reach() -> None:
    assert missing([1.0]) == "run of devices_file created"
    assert missing([1.0] * 5) == "run of the aggregator created"
