"""Where messages go, as one text, and the resource that sends them there."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg

from dedp_assets.errors import SettingError
from dedp_assets.notifications.notification import Notification, Notifier
from dedp_assets.notifications.notifiers import FileNotifier, LogNotifier

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def notifier_for(target: str, smtp_login: tuple[str, str] | None = None, setting: str = "DEDP_NOTIFY") -> Notifier:
    """Make the notifier for a target.

    Args:
        target: `log`, `file:/path/of/a/file`, the URL of a webhook, `slack:` and the URL of a webhook that takes
            Slack's format, or `smtp://host:port?from=...&to=...`.
        smtp_login: the user at the SMTP server, and the password.
        setting: the setting that has the target, for messages.

    Raises:
        SettingError: the target is none of these. The message does not repeat it, because it may hold a token.
    """
    if target == "log":
        return LogNotifier()
    path = Path(target.removeprefix("file://").removeprefix("file:"))
    if target.startswith("file:") and path.is_absolute():
        return FileNotifier(path)
    if target.startswith(("smtp://", "smtps://")):
        from dedp_assets.notifications.email import EmailNotifier

        return EmailNotifier(target, smtp_login)
    url = target.removeprefix("slack:")
    if url.startswith("https://") or (url.startswith("http://") and _host(url) in _THIS_MACHINE):
        # Imported here: `requests` opens a socket when it is imported, and a code location imports this module.
        from dedp_assets.notifications.slack import slack_payload
        from dedp_assets.notifications.webhook import WebhookNotifier

        return WebhookNotifier(url) if url == target else WebhookNotifier(url, payload=slack_payload)
    raise SettingError(
        f"{setting} is not a place to send notifications to; expected log, file:/absolute/path, https://... "
        "(http:// only for this machine), slack:https://..., or smtp://host:port?from=...&to=..."
    )


def address_of(target: str) -> str:
    """Return what may be shown of a target: its kind and its host, without what may be a token."""
    if target == "log" or target.startswith("file:"):
        return target
    kind, _, _ = target.partition("://")
    return f"{kind}://{_host(target.removeprefix('slack:')) or '?'}"


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

    def smtp_login(self) -> tuple[str, str] | None:
        """Return the user at the SMTP server and the password; None if it asks nobody. Never log it."""
        return None

    def send(self, notification: Notification) -> None:
        """Deliver a message at least once.

        Raises:
            SettingError: the target is not a place to send messages to.
            NotificationNotSent: nobody knows that the message has arrived. Send it again, with the same key.
            NotificationRefused: the message is refused, and would be refused again.
        """
        notifier_for(self.address(), self.smtp_login()).send(notification)
