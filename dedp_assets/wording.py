"""How pages and commands write names, times and durations.

Others choose the names of files and folders, and the text in them. What a terminal or a browser would obey stands as
an escape.
"""

import os
from datetime import datetime, timezone


def printable(text: str) -> str:
    """Write characters that do not print as escapes: `\\x1b` for ESC, `\\u202e` for one that turns the direction."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def shown_name(name: str) -> str:
    """The name of a file in one line of text that can be stored: bytes that are not UTF-8 stand as `\\xNN`."""
    return printable(os.fsencode(name).decode("utf-8", errors="backslashreplace"))


def in_utc(time: datetime) -> str:
    """Write a time to the second, in UTC: `2024-01-31 08:00:00`."""
    return f"{time.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S}"


def duration(seconds: float) -> str:
    """Write a duration in its two largest units: `2 d 3 h`, `5 min 20 s`, `1.3 s`, `20 ms`."""
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, smaller, smaller_size in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // smaller_size
            return f"{whole // size} {unit} {rest} {smaller}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def counted(number: int, thing: str, things: str = "") -> str:
    """Write a number with its noun: `1 file`, `1,200 files`; `things`: a plural that does not just add an s."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"
