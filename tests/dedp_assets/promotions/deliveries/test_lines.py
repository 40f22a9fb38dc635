"""Which lines are promotions, and why the others are not."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedp_assets.delimited.lines import CleanLines, RejectedLine
from dedp_assets.promotions.deliveries.lines import FORMAT, classify_promotions, rejection

DAYS = ("2024-01-05", "2024-01-12")


@pytest.mark.parametrize(
    ("price", "promotion"),
    [("2.00", "1.50"), ("2", "2"), ("0.000001", "0"), ("9999999999.999999", "0.1"), ("2", "002.000000")],
)
def test_prices_from_zero_up_to_the_usual_one_are_good(price: str, promotion: str) -> None:
    assert rejection(price, promotion, *DAYS) is None


@pytest.mark.parametrize(
    ("price", "promotion", "days", "reason"),
    [
        ("0", "0", DAYS, "price not above zero"),
        ("0.00", "0", DAYS, "price not above zero"),
        ("2", "2.000001", DAYS, "promotion above price"),
        # As numbers of 64 bits with a floating point, these two would be equal.
        ("9999999999.999998", "9999999999.999999", DAYS, "promotion above price"),
        *((wrong, "0", DAYS, "not a number") for wrong in ("-2", "+2", "2,5", "2.", ".5", "1e3", " 2", "2 ", "NaN")),
        *((wrong, "0", DAYS, "not a number") for wrong in ("12345678901", "1.1234567", "\u0662", "")),
        ("2", "x", DAYS, "not a number"),
        *(
            ("2", "1", (wrong, "2024-01-12"), "not a date")
            for wrong in ("20240105", "2024-02-30", "5.1.2024", "0000-01-01")
        ),
        ("2", "1", ("2024-01-05", "2024-1-12"), "not a date"),
        ("2", "1", ("2024-01-05", "2024-01-04"), "ends before it starts"),
    ],
)
def test_each_wrong_value_has_its_reason(price: str, promotion: str, days: tuple[str, str], reason: str) -> None:
    rejected = rejection(price, promotion, *days)
    assert rejected is not None
    assert rejected.reason == reason


def test_a_promotion_of_one_day_is_good() -> None:
    assert rejection("2", "1", "2024-02-29", "2024-02-29") is None


LINES = {
    "good": "1,milk,2.00,1.50,2024-01-05,2024-01-12",
    "quoted": '"2","tea, ""green""","3","2.5","2024-01-05","2024-01-12"',
    "bad price": "3,oil,zero,1,2024-01-05,2024-01-12",
    "bad in quotes": '"4","a, b",1,2,2024-01-05,2024-01-12',
    "short": "5,x",
    "marked": "\ufeff6,x,2,1,2024-01-05,2024-01-12",
}


@given(st.lists(st.sampled_from(list(LINES)), min_size=1, max_size=30))
def test_every_line_is_either_clean_or_rejected_under_its_own_number_and_in_order(kinds: list[str]) -> None:
    content = "\n".join([FORMAT.header, *(LINES[kind] for kind in kinds)]).encode()
    numbers: list[int] = []
    clean: list[str] = []
    for item in classify_promotions(io.BytesIO(content)):
        if isinstance(item, CleanLines):
            lines = item.text[:-1].split("\n")
            numbers += range(item.first_line_number, item.first_line_number + len(lines))
            clean += [item.marks + line for line in lines]
        else:
            assert isinstance(item, RejectedLine)
            numbers.append(item.line_number)
            assert item.raw.decode() == LINES[kinds[item.line_number - 2]]
    assert numbers == list(range(2, len(kinds) + 2))
    assert clean == [LINES[kind] for kind in kinds if kind in ("good", "quoted", "marked")]
