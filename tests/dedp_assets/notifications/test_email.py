"""E-mails reach a real SMTP server, encrypted and with a login, and say what went wrong without the password."""

import datetime as dt
import ipaddress
import socket
import ssl
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dedp_assets.errors import DedpError, SettingError
from dedp_assets.local_stack import free_port
from dedp_assets.notifications.email import EmailNotifier
from dedp_assets.notifications.notification import Notification, NotificationNotSent, NotificationRefused

PASSWORD, WRONG = "s3cr3t", "wr0ng"
FAILED = Notification("alert/run/1", "raw failed", "The disk is full.\n\nWhat to do: buy one.", "https://ui/1", "error")


@dataclass
class Mailbox:
    """Takes e-mails. It gives the next of `answers` to each recipient, and takes the e-mail after the last."""

    answers: list[str] = field(default_factory=list)
    received: list[Any] = field(default_factory=list)
    was_encrypted: list[bool] = field(default_factory=list)
    users: list[str] = field(default_factory=list)

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, _: Any) -> str:
        answer = self.answers.pop(0) if self.answers else "250 OK"
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        self.received.append(message_from_bytes(envelope.content, policy=default))
        self.was_encrypted.append(session.ssl is not None)
        return "250 OK"

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.users.append(data.login.decode())
        return AuthResult(success=data.password == PASSWORD.encode(), handled=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.timezone.utc)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(encoded + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


def served(mailbox: Mailbox, host: str = "127.0.0.1", **options: Any) -> Iterator[Controller]:
    controller = Controller(mailbox, hostname=host, port=free_port(), authenticator=mailbox.authenticate, **options)
    controller.start()
    yield controller
    controller.stop()


@pytest.fixture
def plain(mailbox: Mailbox) -> Iterator[Controller]:
    """An SMTP server without encryption."""
    yield from served(mailbox)


@pytest.fixture
def careless(mailbox: Mailbox) -> Iterator[Controller]:
    """An SMTP server that asks for logins without encryption."""
    yield from served(mailbox, auth_require_tls=False)


@pytest.fixture
def elsewhere(mailbox: Mailbox) -> Iterator[Controller]:
    """An SMTP server without encryption, which is not known to be on this machine."""
    yield from served(mailbox, "127.0.0.2")


@pytest.fixture
def encrypting(mailbox: Mailbox, certificate: Path) -> Iterator[Controller]:
    """An SMTP server that takes logins and e-mails after STARTTLS alone."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    yield from served(mailbox, tls_context=tls, require_starttls=True, auth_required=True)


def target(server: Controller, to: str = "ops@example.org", scheme: str = "smtp") -> str:
    return f"{scheme}://{server.hostname}:{server.port}?from=dedp@example.org&to={to}"


def test_an_email_has_the_subject_the_text_the_link_and_the_key(plain: Controller, mailbox: Mailbox) -> None:
    EmailNotifier(target(plain, "ops@example.org,night@example.org")).send(FAILED)
    (received,) = mailbox.received
    assert (received["Subject"], received["To"]) == ("raw failed", "ops@example.org, night@example.org")
    assert received["X-Dedp-Key"] == "alert/run/1"
    assert received.get_content().split() == [*FAILED.text.split(), "https://ui/1"]


def test_an_email_that_is_sent_again_has_the_same_message_id(plain: Controller, mailbox: Mailbox) -> None:
    for _ in range(2):
        EmailNotifier(target(plain)).send(FAILED)
    EmailNotifier(target(plain)).send(Notification("another", "subject", "text"))
    first, again, other = (received["Message-ID"] for received in mailbox.received)
    assert first == again != other


def test_a_login_is_given_after_encryption_alone(encrypting: Controller, mailbox: Mailbox, certificate: Path) -> None:
    trusted = ssl.create_default_context(cafile=str(certificate))
    EmailNotifier(target(encrypting), ("dedp", PASSWORD), trusted).send(FAILED)
    assert (mailbox.was_encrypted, mailbox.users) == ([True], ["dedp"])


def test_a_login_is_not_given_to_a_server_that_does_not_encrypt(careless: Controller, mailbox: Mailbox) -> None:
    with pytest.raises(NotificationRefused, match="offers no STARTTLS"):
        EmailNotifier(target(careless), ("dedp", PASSWORD)).send(FAILED)
    assert (mailbox.received, mailbox.users) == ([], [])


def test_another_machine_that_does_not_encrypt_gets_nothing(elsewhere: Controller, mailbox: Mailbox) -> None:
    with pytest.raises(NotificationRefused, match="offers no STARTTLS"):
        EmailNotifier(target(elsewhere)).send(FAILED)
    assert (mailbox.received, mailbox.users) == ([], [])


def test_a_server_whose_certificate_is_not_trusted_gets_nothing(encrypting: Controller, mailbox: Mailbox) -> None:
    with pytest.raises(NotificationRefused, match="certificate is not trusted"):
        EmailNotifier(target(encrypting), ("dedp", PASSWORD)).send(FAILED)
    assert (mailbox.received, mailbox.users) == ([], [])


def test_a_wrong_password_is_an_error_that_does_not_show_it(
    encrypting: Controller, mailbox: Mailbox, certificate: Path
) -> None:
    trusted = ssl.create_default_context(cafile=str(certificate))
    with pytest.raises(NotificationRefused, match="does not accept the login") as refused:
        EmailNotifier(target(encrypting), ("dedp", WRONG), trusted).send(FAILED)
    assert WRONG not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    ("answer", "error"), [("450 busy", NotificationNotSent), ("550 no such user", NotificationRefused)]
)
def test_a_recipient_who_is_refused_is_an_error_also_beside_one_who_is_not(
    plain: Controller, mailbox: Mailbox, answer: str, error: type[DedpError]
) -> None:
    mailbox.answers = ["250 OK", answer]
    with pytest.raises(error, match="for 1 of 2 recipients"):
        EmailNotifier(target(plain, "ops@example.org,gone@example.org")).send(FAILED)
    mailbox.answers = [answer]
    with pytest.raises(error, match="for 1 of 1 recipients"):
        EmailNotifier(target(plain)).send(FAILED)


def test_a_server_that_is_down_is_an_error_that_may_pass() -> None:
    with pytest.raises(NotificationNotSent, match="no answer"):
        EmailNotifier("smtp://127.0.0.1:1?from=a@example.org&to=b@example.org").send(FAILED)


@pytest.mark.parametrize("greeting", [b"", b"220 mail.example ESMTP\r\n"])
def test_a_server_that_hangs_is_an_error_that_may_pass(greeting: bytes) -> None:
    def greet() -> None:
        connection, _ = server.accept()
        connection.sendall(greeting)
        ended.wait()
        connection.close()

    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        greeter = threading.Thread(target=greet, daemon=True)
        greeter.start()
        url = f"smtp://127.0.0.1:{server.getsockname()[1]}?from=a@example.org&to=b@example.org"
        with pytest.raises(NotificationNotSent, match="no answer"):
            EmailNotifier(url, timeout_seconds=0.2).send(FAILED)
        ended.set()
        greeter.join()


@pytest.mark.parametrize("greeting", [b"220 mail.example", b"220 mail.example ESMTP\r\n"])
def test_a_server_that_answers_byte_by_byte_without_end_is_given_up(greeting: bytes) -> None:
    def drip() -> None:
        connection, _ = server.accept()
        with connection, suppress(OSError):  # until the other side hangs up
            connection.sendall(greeting)
            while not ended.wait(0.02):
                connection.sendall(b"x")

    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        dripping = threading.Thread(target=drip, daemon=True)
        dripping.start()
        url = f"smtp://127.0.0.1:{server.getsockname()[1]}?from=a@example.org&to=b@example.org"
        with pytest.raises(NotificationNotSent, match=r"no whole answer within 0\.1 s"):
            EmailNotifier(url, total_seconds=0.1).send(FAILED)
        dripping.join(60)
        assert not dripping.is_alive()  # we have hung up
        ended.set()


def test_a_message_with_bytes_that_are_no_text_and_of_100_kb_arrives(plain: Controller, mailbox: Mailbox) -> None:
    text = "a\udcff.csv <!channel> & " + "x" * 100_000
    EmailNotifier(target(plain)).send(Notification("key\udcff", "a\udcff.csv failed " * 1000, text))
    (received,) = mailbox.received
    assert "".join(received.get_content().split()) == "".join(text.replace("\udcff", r"\udcff").split())
    assert received["X-Dedp-Key"] == r"key\udcff"


def test_a_subject_of_several_lines_adds_no_header(plain: Controller, mailbox: Mailbox) -> None:
    EmailNotifier(target(plain)).send(Notification("key\r\nX: 1", "bad\r\nBcc: all@example.org", "text"))
    assert mailbox.received[0]["Bcc"] is None
    assert mailbox.received[0]["X"] is None


@pytest.mark.parametrize(
    "wrong",
    [
        "smtp://host",
        "smtp://host?from=a@b.c",
        "smtp://host?to=a@b.c",
        "smtp://host?from=a@b.c&to=nobody",
        "smtp://:99999?from=a@b.c&to=a@b.c",
        f"smtp://user:{PASSWORD}@host?from=a@b.c&to=a@b.c",
        f"smtp://host?from=a@b.c&to=a@b.c&password={PASSWORD}",
    ],
)
def test_a_wrong_target_is_an_error_that_shows_a_right_one_and_no_password(wrong: str) -> None:
    with pytest.raises(SettingError, match=r"smtp://host:port\?from=") as refused:
        EmailNotifier(wrong)
    assert PASSWORD not in str(refused.value)
