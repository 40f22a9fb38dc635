"""The values of one CSV line."""

import re

from dedp_assets.isolated_sequencer.contract import DELIMITER

_VALUE = re.compile(r'"((?:[^"]|"")*)"|([^;"]*)')


def split_values(line: str) -> list[str] | None:
    """The values of one CSV line, or None where a quote stands where none may."""
    values: list[str] = []
    position = 0
    while True:
        match = _VALUE.match(line, position)
        assert match is not None  # it matches the empty value
        quoted, plain = match.groups()
        values.append(plain if quoted is None else quoted.replace('""', '"'))
        position = match.end()
        if position == len(line):
            return values
        if line[position] != DELIMITER:
            return None
        position += 1
