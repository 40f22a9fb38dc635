"""What the files of one kind look like: their delimiter and their columns."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

# They would be a part of a line's form and not of a name. The last two are where writing in lower case changes how long
# a name is, and a header that stands again would not be found in any case.
_NOT_IN_A_NAME = frozenset('"\r\n\0\ufeff\u0130\u0307')


class Column(NamedTuple):
    """A column by its name in the header and in the table. `max_length` is in characters; None is any length."""

    name: str
    max_length: int | None = None


@dataclass(frozen=True)
class Format:
    """Lines of CSV text in UTF-8 below a header, one row each, with a value in every column.

    A value may stand in double quotes, and has them doubled inside. The table's columns of these names take any
    text that is not longer than `max_length`: `text`, or `varchar` of that length.

    Attributes:
        delimiter: One ASCII character, as COPY takes it.
        columns: In the order of the header, at least two.

    Raises:
        ValueError: There can be no such files. The message says what is wrong.
    """

    delimiter: str
    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        if len(self.delimiter) != 1 or not self.delimiter.isascii() or self.delimiter in '"\\\r\n\0':
            raise ValueError(
                f"the delimiter is {self.delimiter!r}; expected one ASCII character, and no quote, backslash, "
                "line end or NUL"
            )
        if len(self.columns) < 2:
            # Of one column, COPY would take the value \. for the end of all lines.
            raise ValueError(f"a delimited file has two columns or more, not {len(self.columns)}")
        for name, max_length in self.columns:
            if not name.strip(" \t") or name != name.strip(" \t") or _NOT_IN_A_NAME & {*name} or self.delimiter in name:
                raise ValueError(
                    f"a column has the name {name!r}; expected one without blanks around it, the delimiter, "
                    "quotes, line ends, NUL, byte order marks, U+0130 and U+0307"
                )
            if max_length is not None and max_length < 1:
                raise ValueError(f"the column {name} holds {max_length} characters; expected one or more, or None")
        if len({name.lower() for name in self.names}) < len(self.names):
            raise ValueError(f"a column stands twice, in whatever case: {', '.join(self.names)}")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in the order of the header."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def header(self) -> str:
        """The header as a line, without its end."""
        return self.delimiter.join(self.names)
