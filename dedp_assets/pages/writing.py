"""Writes a page where people look for it."""

from pathlib import Path

from dedp_assets.errors import PermanentError
from dedp_assets.whole_files import write_whole


class PageNotWritten(PermanentError):
    """The file of a page can't be written. The message names it, with the reason."""


def write_page(path: Path, html: str, *, page: str, asset: str) -> None:
    """Write a page in one step, over the one before it.

    Args:
        path: The file. Missing folders are made.
        html: The page.
        page: What a message calls it, such as "the report".
        asset: The asset to materialize again if it can't be written.

    Raises:
        PageNotWritten: The file can't be written. What was there stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, html.encode())
    except OSError as error:
        raise PageNotWritten(
            f"{page} can't be written to {error.filename or path}: {error.strerror}; "
            f"check the permissions and the space on the disk, and materialize {asset} again"
        ) from error
