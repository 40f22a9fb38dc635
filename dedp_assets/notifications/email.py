"""Messages by e-mail, through an SMTP server. Its password appears in no log and in no error."""

import hashlib
import re
import smtplib
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dedp_assets.errors import SettingError
from dedp_assets.notifications.deadline import TOTAL_SECONDS, Deadline, TimeIsUpError
from dedp_assets.notifications.notification import Notification, NotificationNotSent, NotificationRefused
from dedp_assets.wording import printable

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_ADDRESS = re.compile(r"[^\s@,<>\"]+@[^\s@,<>\"]+")
_EXPECTED = "expected smtp://host:port?from=dedp@example.org&to=ops@example.org,night@example.org, or smtps://..."
_PRIORITIES = {"info": "normal", "warning": "normal", "error": "urgent"}


@dataclass(frozen=True)
class _Server:
    host: str
    port: int
    encrypts_at_once: bool


class EmailNotifier:
    """Sends each message as one e-mail to all recipients. Its Message-ID is made from its key, and stays the same.

    `smtp://` encrypts with STARTTLS, which only a server on this machine may lack; `smtps://` encrypts from the start.

    Args:
        target: `smtp://host:port?from=...&to=...`, or `smtps://`. Several recipients are separated by commas.
        login: the user at the server, and the password; None if it asks nobody.
        tls: whom to trust; by default the certificates of this machine.
        timeout_seconds: how long to wait for a connection, and for each answer.
        total_seconds: how long a message may take in all.

    Raises:
        SettingError: `target` is not such a URL, or has a password in it.
    """

    def __init__(
        self,
        target: str,
        login: tuple[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_seconds: float = 20,
        total_seconds: float = TOTAL_SECONDS,
    ) -> None:
        self._server, self._sender, self._recipients = _parsed(target)
        self._login, self._tls, self._timeout, self._total = login, tls, timeout_seconds, total_seconds

    def send(self, notification: Notification) -> None:
        """Hand the message to the server."""
        what = f"the notification {notification.key} to the SMTP server {self._server.host}"
        deadline = Deadline(self._total)
        try:
            with deadline:
                refused = self._send(self._message(notification), deadline)
        except smtplib.SMTPNotSupportedError:
            raise NotificationRefused(
                f"{what} was not sent, because the server offers no STARTTLS; use smtps:// or another server"
            ) from None
        except smtplib.SMTPAuthenticationError as error:
            raise NotificationRefused(
                f"{what} was refused: the server does not accept the login ({error.smtp_code}); check DEDP_SMTP_USER "
                "and DEDP_SMTP_PASSWORD"
            ) from None
        except smtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
        except smtplib.SMTPResponseException as error:
            _raise(what, error.smtp_code, error.smtp_error)
        except ssl.SSLCertVerificationError as error:
            raise NotificationRefused(
                f"{what} was not sent: its certificate is not trusted ({error.verify_message})"
            ) from None
        except (OSError, smtplib.SMTPException, TimeIsUpError) as error:
            why = f"no whole answer within {self._total:g} s" if deadline.is_over else type(error).__name__
            raise NotificationNotSent(
                f"{what} was not sent: no answer ({why}). Check the network and the address"
            ) from None
        for code, reason in refused.values():
            # It is sent to all of them again: an e-mail that comes twice is better than one that never comes.
            _raise(f"{what}, for {len(refused)} of {len(self._recipients)} recipients,", code, reason)

    def _send(self, message: EmailMessage, deadline: Deadline) -> dict[str, tuple[int, bytes]]:
        tls = self._tls or ssl.create_default_context()
        kind = _watched(smtplib.SMTP_SSL if self._server.encrypts_at_once else smtplib.SMTP, deadline)
        # `context`: only SMTP_SSL knows it.
        options: dict[str, Any] = {"context": tls} if self._server.encrypts_at_once else {}
        connection = kind(self._server.host, self._server.port, timeout=self._timeout, **options)
        try:
            connection.ehlo_or_helo_if_needed()
            may_be_open = self._server.host in _THIS_MACHINE and self._login is None
            if not self._server.encrypts_at_once and (connection.has_extn("starttls") or not may_be_open):
                connection.starttls(context=tls)
                connection.ehlo()
            if self._login is not None:
                connection.login(*self._login)
            return connection.send_message(message, self._sender, self._recipients)
        finally:
            with suppress(OSError, smtplib.SMTPException):
                connection.quit()

    def _message(self, notification: Notification) -> EmailMessage:
        message = EmailMessage()
        message["Subject"] = printable(notification.subject)
        message["From"], message["To"] = self._sender, ", ".join(self._recipients)
        message["Date"] = format_datetime(datetime.now(timezone.utc))
        digest = hashlib.sha256(notification.key.encode(errors="backslashreplace")).hexdigest()[:32]
        message["Message-ID"] = f"<{digest}@{self._sender.rpartition('@')[2]}>"
        message["X-Dedp-Key"] = printable(notification.key)
        message["Priority"] = _PRIORITIES[notification.severity]
        message["Auto-Submitted"] = "auto-generated"
        link = f"\n\n{notification.link}" if notification.link else ""
        # A name of a file may have bytes that are no text.
        text = f"{notification.text}{link}\n".encode(errors="backslashreplace").decode()
        message.set_content(text)
        return message


def _watched(kind: Any, deadline: Deadline) -> type[smtplib.SMTP]:
    """The same class, whose connections end with the time of the message."""

    class Watched(kind):  # type: ignore[misc]
        def _get_socket(self, *args: Any) -> socket.socket:
            connection: socket.socket = super()._get_socket(*args)
            deadline.watch(connection)
            return connection

    return Watched


def _raise(what: str, code: int, reason: bytes | str) -> None:
    said = printable(reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason))[:200]
    if 500 <= code < 600:
        raise NotificationRefused(f"{what} was refused with {code} ({said})") from None
    raise NotificationNotSent(f"{what} was not sent: the server answered {code} ({said})") from None


def _parsed(target: str) -> tuple[_Server, str, list[str]]:
    try:
        parts = urlsplit(target)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    asked = parse_qs(parts.query) if host else {}
    sender, to = asked.get("from", [""])[0], ",".join(asked.get("to", []))
    recipients = [address.strip() for address in to.split(",") if address.strip()]
    is_whole = bool(recipients) and all(_ADDRESS.fullmatch(each) for each in [sender, *recipients])
    if host is None or not is_whole or parts.scheme not in ("smtp", "smtps"):
        raise SettingError(f"a target for e-mail is not complete; {_EXPECTED}")
    if parts.username or parts.password or set(asked) - {"from", "to"}:
        raise SettingError(
            f"a target for e-mail has a login or an unknown option in it; {_EXPECTED}, and the login in DEDP_SMTP_USER "
            "and DEDP_SMTP_PASSWORD or DEDP_SMTP_PASSWORD_FILE"
        )
    is_tls = parts.scheme == "smtps"
    return _Server(host, port or (465 if is_tls else 587), is_tls), sender, recipients
