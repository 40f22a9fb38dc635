"""Text for Dagster's UI, which shows Markdown."""

from typing import Any


def markdown_table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """A Markdown table. Characters that a cell can't hold are escaped."""

    def line(cells: tuple[Any, ...]) -> str:
        escaped = (str(cell).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") for cell in cells)
        return "| " + " | ".join(escaped) + " |"

    return "\n".join([line(header), line(("---",) * len(header)), *map(line, rows)])
