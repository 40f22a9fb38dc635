"""Device rows as lines of text: semicolon CSV (RFC 4180 quoting, ``\\n`` line ends) or JSON lines."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from .catalogues import CATALOGUES
from .rows import FIELDS, Row

Format: TypeAlias = Literal["csv", "json"]


@dataclass(frozen=True)
class LineFormat:
    """How a dataset file is written: its name, its first line ("" for none), and a line per row."""

    file_name: str
    header: str
    lines: Callable[[Iterable[Row]], Iterator[str]]


def _csv_cell(value: str) -> str:
    if any(special in value for special in ';"\r\n'):
        return '"' + value.replace('"', '""') + '"'
    return value


_NAMES: Final = tuple(name for names, _ in CATALOGUES.values() for name in names)
# Names come from the catalogues, so each is quoted once here instead of once per row. Types and versions
# hold no character that needs quoting.
_CSV_NAMES: Final[dict[str | None, str]] = {None: "", **{name: _csv_cell(name) for name in _NAMES}}
_JSON_NAMES: Final[dict[str | None, str]] = {
    None: "null",
    **{name: json.dumps(name, ensure_ascii=False) for name in _NAMES},
}


def csv_lines(rows: Iterable[Row]) -> Iterator[str]:
    """``type;full_name;version`` lines, with an empty cell for a missing field."""
    names = _CSV_NAMES
    for row in rows:
        if len(row) == 1:
            yield f"{row[0]}\n"
        else:
            device_type, full_name, version = row
            yield f"{device_type or ''};{names[full_name]};{version or ''}\n"


def json_lines(rows: Iterable[Row]) -> Iterator[str]:
    """``{"type": ..., "full_name": ..., "version": ...}`` lines, with null for a missing field."""
    names = _JSON_NAMES
    for row in rows:
        if len(row) == 1:
            yield f"{row[0]}\n"
        else:
            device_type, full_name, version = row
            type_text = "null" if device_type is None else f'"{device_type}"'
            version_text = "null" if version is None else f'"{version}"'
            yield f'{{"type": {type_text}, "full_name": {names[full_name]}, "version": {version_text}}}\n'


LINE_FORMATS: Final[dict[Format, LineFormat]] = {
    "csv": LineFormat("dataset.csv", ";".join(FIELDS) + "\n", csv_lines),
    "json": LineFormat("dataset.json", "", json_lines),
}
