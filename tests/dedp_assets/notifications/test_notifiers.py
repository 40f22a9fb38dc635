"""Notifications reach a log, a file and a webhook, at least once; and the address of a webhook stays secret."""

import json
import logging
import multiprocessing
import re
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, TypeAlias

import dagster as dg
import pytest

from dedp_assets.errors import DedpError, SettingError
from dedp_assets.notifications.email import EmailNotifier
from dedp_assets.notifications.notification import Notification, NotificationNotSent, NotificationRefused, Severity
from dedp_assets.notifications.notifiers import FileNotifier, LogNotifier
from dedp_assets.notifications.resource import NotifierResource, address_of, notifier_for
from dedp_assets.notifications.webhook import WebhookNotifier
from dedp_assets.resources_from_settings import NotifierFromSettings
from tests.waiting import wait_until

SECRET = "T0kEn"
DELIVERED = Notification("delivery/1", "One is delivered", "It has 50 devices.", "https://dagster.example/1")
PAYLOAD = {
    "key": "delivery/1",
    "subject": "One is delivered",
    "text": "It has 50 devices.",
    "link": "https://dagster.example/1",
    "severity": "info",
}

# How an endpoint answers a request: with a status, never, by closing the connection, or with a byte now and then,
# without end: of the head of its answer, or of the body.
Answer: TypeAlias = int | Literal["never", "hang up", "a head without end", "a body without end"]

HEADS = {
    "a head without end": b"",
    "a body without end": b"HTTP/1.1 503 Busy\r\nContent-Length: 1000000\r\n\r\n",
}


class Endpoint(ThreadingHTTPServer):
    """A real HTTP server on this machine. It gives the next of `answers` to each request, and 200 after the last."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.answers: list[Answer] = []
        self.received: list[tuple[str, str | None, Any]] = []
        self.ended = threading.Event()
        self.hung_up = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hooks/{SECRET}?key={SECRET}"


class _Requests(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.received.append((self.path, self.headers["Idempotency-Key"], payload))
        answer = self.server.answers.pop(0) if self.server.answers else 200
        if answer == "never":
            self.server.ended.wait()
        elif answer in HEADS:
            with suppress(OSError):  # until the other side hangs up
                self.connection.sendall(HEADS[answer])
                while not self.server.ended.wait(0.02):
                    self.connection.sendall(b"x")
            self.close_connection = True
            self.server.hung_up.set()
        elif isinstance(answer, int):
            self.send_response(answer)
            self.send_header("Retry-After", "86400")
            if 300 <= answer < 400:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.ended.set()
    server.shutdown()
    thread.join()
    server.server_close()


def webhook(url: str, timeout_seconds: float = 10) -> WebhookNotifier:
    return WebhookNotifier(url, timeout_seconds=timeout_seconds, attempts=3, backoff_seconds=0)


def test_a_webhook_gets_the_message_as_json_with_its_key_in_a_header(endpoint: Endpoint) -> None:
    webhook(endpoint.url).send(DELIVERED)
    assert endpoint.received == [(f"/hooks/{SECRET}?key={SECRET}", "delivery/1", PAYLOAD)]


@pytest.mark.parametrize("answer", [500, 503, 429, 408, "hang up", "never"])
def test_a_message_is_sent_again_with_the_same_key_until_it_is_taken(endpoint: Endpoint, answer: Answer) -> None:
    endpoint.answers = [answer, answer]
    # On a busy machine, the one that answers takes a while, too.
    webhook(endpoint.url, timeout_seconds=1 if answer == "never" else 10).send(DELIVERED)
    wait_until(lambda: len(endpoint.received) >= 3, "requests that nobody waits for any more")
    assert [(key, payload) for _, key, payload in endpoint.received] == [("delivery/1", PAYLOAD)] * 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(500, "answered 500"), (429, "answered 429"), ("hang up", "no answer"), ("never", "no answer")],
)
def test_a_message_that_is_not_taken_at_last_is_an_error_that_may_pass(
    endpoint: Endpoint, answer: Answer, reason: str
) -> None:
    endpoint.answers = [answer] * 3
    notifier = webhook(endpoint.url, timeout_seconds=0.2 if answer == "never" else 10)
    with pytest.raises(NotificationNotSent, match=rf"delivery/1 to 127\.0\.0\.1 was not sent: .*{reason}") as raised:
        notifier.send(DELIVERED)
    assert raised.value.may_pass
    wait_until(lambda: len(endpoint.received) == 3, "requests that nobody waits for any more")


@pytest.mark.parametrize("answer", HEADS)
def test_an_endpoint_that_answers_byte_by_byte_without_end_takes_no_longer_than_all_attempts_may(
    endpoint: Endpoint, answer: Answer
) -> None:
    endpoint.answers = [answer] * 3
    notifier = WebhookNotifier(endpoint.url, backoff_seconds=0, total_seconds=0.1)
    with pytest.raises(NotificationNotSent, match=r"no whole answer within 0\.1 s") as raised:
        notifier.send(DELIVERED)
    assert raised.value.may_pass
    assert len(endpoint.received) <= 1  # none, if the machine was so slow that the time was up before
    if endpoint.received:
        assert endpoint.hung_up.wait(60)


def test_an_endpoint_that_is_dead_is_an_error_that_may_pass(endpoint: Endpoint) -> None:
    url = endpoint.url.replace(str(endpoint.server_port), "1")
    with pytest.raises(NotificationNotSent, match="no answer"):
        webhook(url).send(DELIVERED)


@pytest.mark.parametrize("answer", [301, 400, 401, 403, 404, 410])
def test_a_message_that_is_refused_is_sent_once_and_to_nowhere_else(endpoint: Endpoint, answer: int) -> None:
    endpoint.answers = [answer]
    with pytest.raises(NotificationRefused, match=f"refused with {answer}") as raised:
        webhook(endpoint.url).send(DELIVERED)
    assert not raised.value.may_pass
    assert len(endpoint.received) == 1


@pytest.mark.parametrize("answers", [[200], [500] * 3, ["hang up"] * 3, ["never"] * 3, [404], "dead"])
def test_the_token_in_a_url_is_in_no_log_and_in_no_error(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture, answers: list[Answer] | Literal["dead"]
) -> None:
    caplog.set_level(logging.DEBUG)
    url = endpoint.url
    if answers == "dead":
        url = url.replace(str(endpoint.server_port), "1")
    else:
        endpoint.answers = list(answers)
    shown = ""
    try:
        webhook(url, timeout_seconds=0.2).send(DELIVERED)
    except DedpError as error:
        shown = "".join(traceback.format_exception(error))
    assert SECRET not in shown + caplog.text
    assert shown or answers == [200]


def test_slack_gets_the_message_in_its_format_without_mentions(endpoint: Endpoint) -> None:
    notifier_for(f"slack:{endpoint.url}").send(
        Notification("alert/1", "2 partitions failed", "<!channel> a & b" + "x" * 5000, "https://ui/runs/1", "error")
    )
    ((_, key, payload),) = endpoint.received
    (attachment,) = payload["attachments"]
    assert (key, payload["text"]) == ("alert/1", "2 partitions failed")
    assert attachment["title_link"] == "https://ui/runs/1"
    assert attachment["text"].startswith("&lt;!channel&gt; a &amp; b")
    assert len(attachment["text"]) <= 3000


def test_a_name_mentions_nobody_whichever_chat_takes_the_message(endpoint: Endpoint) -> None:
    said = "@here, @all, @Channel and @everyone; not ops@hereford.example"
    notifier_for(f"slack:{endpoint.url}").send(Notification("alert/@here", said * 100, said))
    ((_, _, payload),) = endpoint.received
    (attachment,) = payload["attachments"]
    for shown in (payload["text"], attachment["title"], attachment["text"], attachment["footer"]):
        assert not re.search(r"@(here|all|channel|everyone)\b", shown, re.IGNORECASE)
    assert "ops@hereford.example" in attachment["text"]
    assert len(payload["text"]) <= 300


@pytest.mark.parametrize("kind", ["", "slack:", "file:"])
def test_a_message_with_bytes_that_are_no_text_arrives(endpoint: Endpoint, tmp_path: Path, kind: str) -> None:
    message = Notification("key\udcff", "a\udcff.csv failed", "a\udcff.csv has no header")
    notifier_for(f"file:{tmp_path}/told" if kind == "file:" else f"{kind}{endpoint.url}").send(message)
    got = [payload for _, _, payload in endpoint.received] or [json.loads((tmp_path / "told").read_text())]
    assert "a\udcff.csv failed" in json.dumps(got[0], ensure_ascii=False)


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("log", "log"),
        (f"https://hooks.example/{SECRET}", "https://hooks.example"),
        (f"slack:https://hooks.example/{SECRET}", "slack:https://hooks.example"),
        (f"https://user:{SECRET}@hooks.example:8080/", "https://hooks.example"),
        ("smtp://mail.example:25?from=a@b.c&to=d@e.f", "smtp://mail.example"),
    ],
)
def test_what_is_shown_of_a_target_has_no_token(target: str, shown: str) -> None:
    assert address_of(target) == shown


def test_a_key_that_is_not_ascii_is_sent_as_it_is_and_encoded_in_the_header(endpoint: Endpoint) -> None:
    webhook(endpoint.url).send(Notification("später/1\n", "A key", "of a client's file"))
    assert [(key, payload["key"]) for _, key, payload in endpoint.received] == [("sp%C3%A4ter/1%0A", "später/1\n")]


def test_a_file_gets_each_message_as_a_line(tmp_path: Path) -> None:
    notifier = FileNotifier(tmp_path / "new" / "messages.jsonl")
    for number in (1, 2):
        notifier.send(Notification(str(number), "Ünlike\nothers", "text"))
    lines = (tmp_path / "new" / "messages.jsonl").read_text(encoding="utf-8").splitlines()
    assert [(json.loads(line)["key"], json.loads(line)["subject"]) for line in lines] == [
        ("1", "Ünlike\nothers"),
        ("2", "Ünlike\nothers"),
    ]


def test_half_a_line_of_a_process_that_was_killed_does_not_damage_the_next_message(tmp_path: Path) -> None:
    (tmp_path / "messages").write_text('{"key": "1", "sub')
    FileNotifier(tmp_path / "messages").send(DELIVERED)
    assert json.loads((tmp_path / "messages").read_text().splitlines()[1]) == PAYLOAD


def _send_many(path: Path, name: str) -> None:
    for number in range(50):
        FileNotifier(path).send(Notification(f"{name}/{number}", "subject", "text " * 5_000))


def test_processes_that_share_a_file_write_whole_lines(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_send_many, args=(tmp_path / "messages", name)) for name in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    keys = [json.loads(line)["key"] for line in (tmp_path / "messages").read_text().splitlines()]
    assert sorted(keys) == sorted(f"{name}/{number}" for name in "abc" for number in range(50))


def test_a_file_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotificationNotSent, match=r"file/messages: the notification delivery/1 cannot be written"):
        FileNotifier(tmp_path / "file" / "messages").send(DELIVERED)


@pytest.mark.parametrize(("severity", "level"), [("info", "INFO"), ("warning", "WARNING"), ("error", "ERROR")])
def test_a_message_in_the_log_of_a_run_is_an_event_of_that_run(severity: Severity, level: str) -> None:
    @dg.asset
    def delivery() -> None:
        LogNotifier().send(Notification("delivery/1", "One is delivered", "It has 50 devices.", None, severity))

    with dg.DagsterInstance.ephemeral() as instance:
        run_id = dg.materialize([delivery], instance=instance).run_id
        logged = [event for event in instance.all_logs(run_id) if "One is delivered" in event.user_message]
    assert [(logging.getLevelName(event.level), event.user_message) for event in logged] == [
        (level, "One is delivered (key delivery/1)\nIt has 50 devices.")
    ]


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("log", LogNotifier),
        ("file:/tmp/messages", FileNotifier),
        ("file:///tmp/messages", FileNotifier),
        ("https://hooks.example/services/T0kEn", WebhookNotifier),
        ("http://localhost:8080/", WebhookNotifier),
        ("slack:https://hooks.slack.example/services/T0kEn", WebhookNotifier),
        ("smtp://mail.example?from=dedp@example.org&to=ops@example.org", EmailNotifier),
    ],
)
def test_a_target_is_the_log_a_file_or_a_webhook(target: str, kind: type) -> None:
    assert isinstance(notifier_for(target), kind)


@pytest.mark.parametrize(
    "target",
    [
        f"http://hooks.example/{SECRET}",
        f"hooks.example/{SECRET}",
        f"file:{SECRET}",
        f"https://[::1/{SECRET}",
        f"https://hooks.example:port/{SECRET}",
        f"https:///{SECRET}",
        f"mailto:{SECRET}@example",
    ],
)
def test_another_target_is_an_error_that_does_not_repeat_it(target: str) -> None:
    with pytest.raises(SettingError, match=r"DEDP_NOTIFY .*; expected .*https://") as refused:
        notifier_for(target)
    assert SECRET not in str(refused.value)


def test_a_notifier_of_the_settings_follows_them_when_it_is_used(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dg.asset
    def delivery(notifier: NotifierResource) -> None:
        notifier.send(DELIVERED)

    notifier = NotifierFromSettings()
    assert notifier.address() == "log"
    monkeypatch.setenv("DEDP_NOTIFY", f"file:{tmp_path}/messages")
    assert dg.materialize([delivery], resources={"notifier": notifier}).success
    assert json.loads((tmp_path / "messages").read_text()) == PAYLOAD
    monkeypatch.setenv("DEDP_NOTIFY", endpoint.url)
    assert dg.materialize([delivery], resources={"notifier": notifier}).success
    assert [payload for _, _, payload in endpoint.received] == [PAYLOAD]
