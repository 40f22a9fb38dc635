"""What the files of one kind look like: their delimiter and their columns."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

# Characters that a column's name can't have: the first ones would be part of the form of the line. The last two change
# the length of a name when it is written in lower case, and then a repeated header would not be recognized.
_NOT_IN_A_NAME = frozenset('"\r\n\0\ufeff\u0130\u0307')


class Column(NamedTuple):
    """A column of a file and of the table that the file is loaded into.

    Attributes:
        name: In the header, and in the table.
        max_length: In characters; None for any length.
        description: For people: the unit or form of its values, and what an empty value means.
    """

    name: str
    max_length: int | None = None
    description: str = ""


@dataclass(frozen=True)
class Format:
    """CSV text in UTF-8: a header, and below it one row per line, with a value in every column.

    A value may be put in double quotes; a double quote inside it is then doubled. The table has a column of the same
    name for each column, of type `text`, or `varchar` with a length of at least `max_length`.

    Attributes:
        delimiter: One ASCII character that COPY accepts.
        columns: In the order of the header, at least two.

    Raises:
        ValueError: No file can have this format. The message says why.
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
            # With one column, COPY would read the value \. as the end of the file.
            raise ValueError(f"a delimited file has two columns or more, not {len(self.columns)}")
        for name, max_length, _ in self.columns:
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
