"""Text for Dagster's UI, which shows Markdown."""

import re
from typing import Any

# What Markdown could take for a link, an image, a tag, emphasis, or the end of a cell.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#!|~&$])")


def markdown_table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """A Markdown table. Its cells show their text as it is: nothing in it becomes a link, an image or a tag."""

    def line(cells: tuple[Any, ...]) -> str:
        escaped = (_SPECIAL.sub(r"\\\1", " ".join(str(cell).splitlines())) for cell in cells)
        return "| " + " | ".join(escaped) + " |"

    return "\n".join([line(header), line(("---",) * len(header)), *map(line, rows)])
