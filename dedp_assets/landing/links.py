"""Links in a landing folder. Its writers must not have us read, by a link, what they may not read themselves.

A link of our own user or of root may lead anywhere: an operator keeps files on another disk. A link of anybody else may
lead to another place in the landing folder, and not out of it.
"""

import os
from collections.abc import Iterator
from pathlib import Path

LEADS_OUT = "is reached by a link of another user that leads out of the landing folder; put the file itself there"

# As many links as Linux follows for one path.
_MOST_LINKS = 40


def place_of(descriptor: int, path: Path) -> str:
    """Where an opened file really lies. A link can be changed after the file was opened; this can't."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").removesuffix(" (deleted)")
    except OSError:
        return os.path.realpath(path)  # not on Linux


def leads_out(path: Path, root: Path, place: str) -> bool:
    """Whether a file is reached by a link of somebody else out of a folder.

    Args:
        path: Of the file, below the folder.
        root: The folder. It may be reached by links itself.
        place: Where the file really lies.
    """
    folder = Path(os.path.realpath(root))
    if Path(place).is_relative_to(folder):
        return False
    try:
        owners = {link.lstat().st_uid for link in _links(folder / path.relative_to(root), folder)}
    except OSError:
        return True  # somebody changes them at this moment
    return not owners or not owners <= {0, os.geteuid()}


def _links(path: Path, folder: Path) -> Iterator[Path]:
    """The links by which a path leads out of a folder, in their order. What is behind the last one, we trust."""
    for _ in range(_MOST_LINKS):
        steps = path.relative_to(folder).parts
        on_the_way = [folder.joinpath(*steps[: number + 1]) for number in range(len(steps))]
        link = next((step for step in on_the_way if step.is_symlink()), None)
        if link is None:
            return
        yield link
        rest = path.relative_to(link)
        path = Path(os.path.normpath(link.parent / os.readlink(link))) / rest
        if not path.is_relative_to(folder):
            return
