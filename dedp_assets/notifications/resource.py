"""Where messages go, as one text, and the resource that sends them there."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg

from dedp_assets.errors import SettingError
from dedp_assets.notifications.notification import Notification, Notifier
from dedp_assets.notifications.notifiers import FileNotifier, LogNotifier

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def notifier_for(target: str) -> Notifier:
    """Make the notifier for a target: `log`, `file:/path/of/a/file`, or the URL of a webhook.

    Raises:
        SettingError: the target is none of these. The message does not repeat it, because it may hold a token.
    """
    if target == "log":
        return LogNotifier()
    path = Path(target.removeprefix("file://").removeprefix("file:"))
    if target.startswith("file:") and path.is_absolute():
        return FileNotifier(path)
    if target.startswith("https://") or (target.startswith("http://") and _host(target) in _THIS_MACHINE):
        # Imported here: `requests` opens a socket when it is imported, and a code location imports this module.
        from dedp_assets.notifications.webhook import WebhookNotifier

        return WebhookNotifier(target)
    raise SettingError(
        "DEDP_NOTIFY is not a place to send notifications to; expected log, file:/absolute/path, or https://... "
        "(http:// only for this machine)"
    )


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


class NotifierResource(dg.ConfigurableResource[Any]):
    """Sends messages to `target`, see `notifier_for`; `resources_from_settings` has the one that follows the settings.

    Dagster shows run configuration to everybody. For a URL with a token use the setting, or `dg.EnvVar`.
    """

    target: str | None = None

    def address(self) -> str:
        """Return the target. It may hold a token: never log it."""
        return self.target or "log"

    def send(self, notification: Notification) -> None:
        """Deliver a message at least once.

        Raises:
            SettingError: the target is not a place to send messages to.
            NotificationNotSent: nobody knows that the message has arrived. Send it again, with the same key.
            NotificationRefused: the message is refused, and would be refused again.
        """
        notifier_for(self.address()).send(notification)
