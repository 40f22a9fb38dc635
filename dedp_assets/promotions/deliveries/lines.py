"""Which lines of a supplier's file are promotions: the format, and what its values have to be."""

import re
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from functools import lru_cache

from dedp_assets.delimited.format import Column, Format
from dedp_assets.delimited.lines import CleanLines, Readable, RejectedLine, Rejection, classify
from dedp_assets.delimited.values import split_values

_NEVER_EMPTY = "Never empty: such a line goes to dedp.promotion_quarantine."

FORMAT = Format(
    ",",
    (
        # An index entry of PostgreSQL can't be larger than 2,700 bytes.
        Column("product_id", 200, f"The supplier's id of the product, once in a delivery. {_NEVER_EMPTY}"),
        Column("product", None, f"The name of the product. {_NEVER_EMPTY}"),
        Column("price", None, f"The usual price, above 0, in the supplier's currency. {_NEVER_EMPTY}"),
        Column("promotion_price", None, f"The price while the promotion lasts, 0 up to the price. {_NEVER_EMPTY}"),
        Column("starts_on", None, f"The first day of the promotion. {_NEVER_EMPTY}"),
        Column("ends_on", None, f"The last day of the promotion, not before its first one. {_NEVER_EMPTY}"),
    ),
)

_NUMBER = re.compile(r"[0-9]{1,10}(\.[0-9]{1,6})?", re.ASCII)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


def classify_promotions(stream: Readable, format: Format = FORMAT) -> Iterator[CleanLines | RejectedLine]:
    """Tell the promotions of a file from the lines to set aside, as `delimited.lines.classify`, and by their values."""
    for item in classify(stream, format):
        if isinstance(item, RejectedLine):
            yield item
        else:
            yield from _by_value(item)


def _by_value(block: CleanLines) -> Iterator[CleanLines | RejectedLine]:
    lines = block.text[:-1].split("\n")
    begin = 0
    for place, line in enumerate(lines):
        rejected = rejection_of_line(line)
        if rejected is None:
            continue
        if begin < place:
            yield CleanLines(block.first_line_number + begin, "\n".join(lines[begin:place]) + "\n", block.marks)
        yield RejectedLine(block.first_line_number + place, (block.marks + line).encode(), rejected)
        begin = place + 1
    if begin == 0:
        yield block
    elif begin < len(lines):
        yield CleanLines(block.first_line_number + begin, "\n".join(lines[begin:]) + "\n", block.marks)


def rejection_of_line(line: str) -> Rejection | None:
    """Why a line with six values is no promotion; None if it is one."""
    values = split_values(line, FORMAT) if '"' in line else line.split(",")
    assert values is not None  # `classify` has split it before
    _, _, price, promotion_price, starts_on, ends_on = values
    return rejection(price, promotion_price, starts_on, ends_on)


def rejection(price: str, promotion_price: str, starts_on: str, ends_on: str) -> Rejection | None:
    """Why these values are those of no promotion.

    Args:
        price: As it stands in the file, without its quotes; so are the others.
        promotion_price: See `price`.
        starts_on: See `price`.
        ends_on: See `price`.

    Returns:
        The first reason against it, or None.
    """
    for name, value in (("price", price), ("promotion_price", promotion_price)):
        if not _NUMBER.fullmatch(value):
            return Rejection(
                "not a number", f"{name} is {value[:40]!r}; expected up to 10 digits, and up to 6 after a point"
            )
    for name, value in (("starts_on", starts_on), ("ends_on", ends_on)):
        if not _is_day(value):
            return Rejection("not a date", f"{name} is {value[:40]!r}; expected a day such as 2024-01-31")
    usual = Decimal(price)
    if not usual:
        return Rejection("price not above zero", f"price is {price}")
    if Decimal(promotion_price) > usual:
        return Rejection("promotion above price", f"{promotion_price} instead of {price}")
    if ends_on < starts_on:
        return Rejection("ends before it starts", f"from {starts_on} to {ends_on}")
    return None


@lru_cache(maxsize=10_000)
def _is_day(text: str) -> bool:
    if not _DAY.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
