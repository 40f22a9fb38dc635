"""Small files that others read at any moment: they find the old content or the new, never a part of one."""

import os
import secrets
from pathlib import Path


def write_whole(path: Path, content: bytes, *, mode: int = 0o666, is_only_writer: bool = False) -> None:
    """Put content in the place of a file, which need not be there yet, as a whole or not at all.

    It is on the disk before it takes the name: a power failure leaves no half file either. Of several writers at once
    the last one wins. mode: of the new file, less the umask, from its first byte on: 0o600 for what holds a secret.
    is_only_writer: nobody else writes this file meanwhile, for one because the caller holds a lock; the draft has one
    name then, and one that a killed writer left goes with the next write. Raises OSError, and leaves no draft.
    """
    tag = "" if is_only_writer else f".{secrets.token_hex(8)}"
    draft = path.with_name(f".{path.name}{tag}.part")
    try:
        if is_only_writer:
            draft.unlink(missing_ok=True)  # or the new one would keep its mode
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
