"""A message to people, and the protocol of whatever delivers it."""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from dedp_assets.errors import PermanentError, TransientError

Severity: TypeAlias = Literal["info", "warning", "error"]


@dataclass(frozen=True)
class Notification:
    """A message to people.

    Attributes:
        key: identifies the event that the message is about. A message that is sent again has the same key, so that the
            receiver can drop it.
        subject: one line.
        text: what happened, and what to do.
        link: where to read more, or None.
        severity: how urgent the message is.
    """

    key: str
    subject: str
    text: str
    link: str | None = None
    severity: Severity = "info"


class NotificationNotSent(TransientError):
    """The receiver does not answer, or cannot take the message now. It may have received the message all the same."""


class NotificationRefused(PermanentError):
    """The receiver answers that it does not take such a message."""


class Notifier(Protocol):
    """Delivers messages at least once: the same message may arrive twice, with the same key."""

    def send(self, notification: Notification) -> None:
        """Deliver a message.

        Raises:
            NotificationNotSent: nobody knows that it has arrived. Send it again, with the same key.
            NotificationRefused: it is refused, and would be refused again.
        """
