"""A format says once what files look like, and one that no file can have is refused."""

import io
import re

import pytest

from dedp_assets.delimited.format import Column, Format
from dedp_assets.delimited.lines import CleanLines, RejectedLine, classify

TWO = (Column("a"), Column("b"))


@pytest.mark.parametrize(
    ("delimiter", "columns", "problem"),
    [
        ("", TWO, "the delimiter is ''"),
        (";;", TWO, "the delimiter is ';;'"),
        ('"', TWO, "the delimiter is '\"'"),
        ("\\", TWO, "the delimiter is"),
        ("\n", TWO, "the delimiter is"),
        ("§", TWO, "the delimiter is"),
        (";", TWO[:1], "two columns or more, not 1"),
        (";", (Column("a;b"), Column("c")), "a column has the name 'a;b'"),
        (";", (Column(" a"), Column("c")), "a column has the name ' a'"),
        (";", (Column(""), Column("c")), "a column has the name ''"),
        (";", (Column('a"'), Column("c")), "a column has the name"),
        (";", (Column("\u0130d"), Column("c")), "a column has the name"),
        (";", (Column("a", 0), Column("c")), "the column a holds 0 characters"),
        (";", (Column("a"), Column("A")), "a column stands twice, in whatever case: a, A"),
    ],
)
def test_a_format_that_no_file_can_have_is_refused_with_what_is_wrong(
    delimiter: str, columns: tuple[Column, ...], problem: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        Format(delimiter, columns)


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_header_may_be_as_long_as_its_columns_are_many(quote: str) -> None:
    format = Format(",", tuple(Column(f"column {number} é") for number in range(300)))
    header = ",".join(f"{quote}{name}{quote}" for name in format.names)
    row = ",".join("x" * 300) + "\n"
    assert list(classify(io.BytesIO(f"{header}\n{row}".encode()), format)) == [CleanLines(2, row)]


def test_names_and_delimiters_that_mean_something_in_a_regular_expression_are_taken_as_they_stand() -> None:
    format = Format("^", (Column("a.b (c)|d"), Column("[e]*")))
    header = "a.b (c)|d^[e]*\n"
    first, second, third = classify(io.BytesIO(f"{header}axb^1\n{header.upper()}x^[e]*\n".encode()), format)
    assert first == CleanLines(2, "axb^1\n")
    assert isinstance(second, RejectedLine)
    assert second.rejection.reason == "repeated header"
    assert third == CleanLines(4, "x^[e]*\n")


def test_equal_formats_are_one() -> None:
    assert Format(",", TWO) == Format(",", (Column("a", None), Column("b")))
    assert len({Format(",", TWO), Format(",", TWO), Format(";", TWO)}) == 2
