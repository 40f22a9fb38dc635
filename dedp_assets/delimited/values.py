"""The values of one line."""

import re
from functools import cache

from dedp_assets.delimited.format import Format


def split_values(line: str, format: Format) -> list[str] | None:
    """Split a line into its values.

    Args:
        line: A line without its end.
        format: What lines look like. Only its delimiter counts here, not how many columns it has.

    Returns:
        The values without their quotes, or None where a quote stands where none may.
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
