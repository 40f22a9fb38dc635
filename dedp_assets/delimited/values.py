"""Splits one line into its values."""

import re
from functools import cache

from dedp_assets.delimited.format import Format


def split_values(line: str, format: Format) -> list[str] | None:
    """Split a line into its values.

    Args:
        line: A line without its end.
        format: Only its delimiter is used, not the number of its columns.

    Returns:
        The values without their quotes, or None if there is a quote where none is allowed.
    """
    pattern = _value(format.delimiter)
    values: list[str] = []
    position = 0
    while True:
        match = pattern.match(line, position)
        assert match is not None  # it matches the empty value
        quoted, plain = match.groups()
        values.append(plain if quoted is None else quoted.replace('""', '"'))
        position = match.end()
        if position == len(line):
            return values
        if line[position] != format.delimiter:
            return None
        position += 1


@cache
def _value(delimiter: str) -> re.Pattern[str]:
    return re.compile(rf'"((?:[^"]|"")*)"|([^{re.escape(delimiter)}"]*)')
