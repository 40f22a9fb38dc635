"""The base of every error that this project can name.

The text of such an error is for people. It says what happened, in which file, partition or setting, what was expected,
and what to do. It has no password in it. Commands print it, ticks show it and runs fail with it, without a traceback.
An exception of another class is a fault of ours, and keeps its traceback.
"""


class DedpError(Exception):
    """An error that we can name. Raise one of the two below.

    Attributes:
        may_pass: whether the same work may succeed later, although nobody has changed anything. Only such work is
            repeated by a retry policy.
        is_a_wait: whether it only says that something is not there yet. A sensor that waits for it is in order.
    """

    may_pass: bool
    is_a_wait: bool = False


class PermanentError(DedpError):
    """The same work fails again until somebody acts: a file is unusable, a setting is wrong, a table is damaged."""

    may_pass = False


class TransientError(DedpError):
    """The same work may succeed later: a server restarts, a connection breaks, two writers meet."""

    may_pass = True


class SettingError(PermanentError):
    """An environment variable has a value that cannot be used.

    The message names the variable and what it expects. It also has the value, unless that may be a secret.
    """


# What each error begins with in the message of a tick. The alerts look for it.
TICK_ERROR = "error: "


class ErrorNote(str):
    """A note of a tick that is an error: somebody may have to act. The other notes say what waits, or what was done."""

    __slots__ = ()
