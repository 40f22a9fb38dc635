from dedp_assets.errors import PermanentError


class StackError(PermanentError):
    """The system cannot be started, found or stopped. The message says why and what to do."""
