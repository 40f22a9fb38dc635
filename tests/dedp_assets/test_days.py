"""What others wrote is a day or it is not; none of it fails."""

from datetime import date

import pytest

from dedp_assets.days import closed_days, day_after, day_of

NO_DAYS = [
    "",
    "not-a-date",
    "2024-1-2",
    "20240102",
    "2024-02-30",
    "2024-W01-1",
    "+10000-01-01",
    "10000-01-01",
    "0000-01-01",
]


def test_a_day_is_what_a_partition_is_called() -> None:
    assert day_of("2024-02-29") == date(2024, 2, 29)
    assert day_after("2024-02-28") == "2024-02-29"
    assert day_after("2023-12-31") == "2024-01-01"


@pytest.mark.parametrize("text", NO_DAYS)
def test_any_other_text_is_no_day_and_nothing_comes_after_it(text: str) -> None:
    assert day_of(text) is None
    assert day_after(text) is None


def test_nothing_comes_after_the_last_day_there_is() -> None:
    assert day_after("9999-12-31") is None


def test_a_value_that_is_no_day_is_never_closed_and_keeps_no_other_from_it() -> None:
    odd = ["9999-12-31", *NO_DAYS]
    assert closed_days(["2024-01-01", *odd], ["2024-01-02", *odd]) == {"2024-01-01"}
