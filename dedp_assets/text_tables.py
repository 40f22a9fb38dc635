"""Tables that commands print."""

from collections.abc import Collection, Mapping, Sequence

import click

from dedp_assets.wording import printable


def text_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    to_the_right: Collection[str] = (),
    coloured: str = "",
    colours: Mapping[str, str] | None = None,
) -> list[str]:
    """A header and a line for each row; nothing without rows. What a terminal would obey stands as an escape.

    Args:
        header: The names of the columns.
        rows: The cells of each row.
        to_the_right: The columns whose cells end below each other.
        coloured: A column.
        colours: The colours of its cells, by their text.
    """

    def written(name: str, cell: str, width: int) -> str:
        padded = cell.rjust(width) if name in to_the_right else cell.ljust(width)
        colour = (colours or {}).get(cell) if name == coloured else None
        return click.style(padded, fg=colour) if colour else padded

    lines = [tuple(map(printable, row)) for row in (header, *rows)] if rows else []
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(written, header, line, widths)).rstrip() for line in lines]
