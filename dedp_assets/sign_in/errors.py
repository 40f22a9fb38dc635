from dedp_assets.errors import PermanentError


class UserError(PermanentError):
    """A user can't be made, changed or found as asked. The message says why, and what to do."""
