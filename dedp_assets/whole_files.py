"""Writes small files that others may read at any moment: readers find the old content or the new, never a part."""

import os
import secrets
from pathlib import Path


def write_whole(path: Path, content: bytes, *, mode: int = 0o666, is_only_writer: bool = False) -> None:
    """Replace the content of a file as a whole, or make the file.

    The content is on the disk before it takes the name, so a power failure leaves no half file either. If several
    processes write at the same time, the last one wins.

    Args:
        path: The file.
        content: Its new content.
        mode: The permissions of the new file from its first byte on, less the umask. Use 0o600 for a secret.
        is_only_writer: The caller guarantees, for example by a lock, that nobody else writes this file meanwhile. Then
            a draft that a killed process left is deleted by the next write.

    Raises:
        OSError: The file can't be written. It stays unchanged, and no draft is left.
    """
    tag = "" if is_only_writer else f".{secrets.token_hex(8)}"
    draft = path.with_name(f".{path.name}{tag}.part")
    try:
        if is_only_writer:
            draft.unlink(missing_ok=True)  # an old draft may have other permissions
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
