"""Where we send requests to: an address that an answer names is not asked in place of the operator's."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dedp_assets.errors import SettingError
from dedp_assets.notifications.notification import Notification, NotificationRefused
from dedp_assets.notifications.resource import notifier_for


@pytest.fixture
def redirecting() -> Iterator[tuple[str, list[str]]]:
    """The URL of a server that sends everybody to another path of its own, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(307)
            self.send_header("Location", "/internal")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", asked
    server.shutdown()
    server.server_close()


def test_a_webhook_is_not_followed_to_another_address(redirecting: tuple[str, list[str]]) -> None:
    url, asked = redirecting
    with pytest.raises(NotificationRefused, match="307"):
        notifier_for(url).send(Notification("key", "subject", "text"))
    assert asked == ["/hook"]


@pytest.mark.parametrize(
    "target", ["http://10.0.0.1/x", "http://169.254.169.254/x", "ftp://h/x", "file:relative", "/x"]
)
def test_a_webhook_elsewhere_is_asked_by_https_only(target: str) -> None:
    with pytest.raises(SettingError) as error:
        notifier_for(target)
    assert target not in str(error.value)
