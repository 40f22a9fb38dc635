from dedp_assets.errors import PermanentError


class BackupError(PermanentError):
    """A backup cannot be made, read or restored. The message says why, names what is concerned, and what to do."""
