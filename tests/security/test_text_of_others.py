"""Names and contents that others choose: in SQL, in paths, in the UI, and of any length."""

import re
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import psycopg2
import pytest
import requests
from markdown_it import MarkdownIt

from dedp_assets.client_uploads import ledger
from dedp_assets.client_uploads.contract import copy_of
from dedp_assets.client_uploads.settings_file import problem_of_client
from dedp_assets.isolated_sequencer.aggregator.loading import load_file
from dedp_assets.markdown import markdown_table
from dedp_assets.notifications.email import EmailNotifier
from dedp_assets.notifications.notification import Notification
from dedp_assets.notifications.notifiers import FileNotifier
from dedp_assets.notifications.slack import slack_payload
from dedp_assets.runs.cli import RunRow, table

HOSTILE = [
    "'; DROP TABLE dedp.devices_raw; --",
    '"; DROP TABLE dedp.devices_raw; --',
    "$$; DROP TABLE dedp.devices_raw; --",
    "%s %(x)s {0} {x} %",
    "\\'; SELECT 1",
    "\\N",
    "=HYPERLINK(1)",
    "<script>alert(1)</script>",
    "${HOME} $(id) `id`",
    "../../../etc/passwd",
]


def test_values_and_names_are_data_in_every_statement(dsn: str, tmp_path: Path) -> None:
    path = tmp_path / "dataset.csv"
    quoted = ['"' + text.replace('"', '""') + '"' for text in HOSTILE]
    lines = ["type;full_name;version", *(f"tv;{text};1" for text in quoted), *quoted, ""]
    path.write_text("\n".join(lines))
    with closing(psycopg2.connect(dsn)) as connection:
        load_file(connection, "20240101", path)
        with connection.cursor() as cursor:
            cursor.execute("SELECT full_name FROM dedp.devices_raw")
            assert sorted(text for (text,) in cursor.fetchall()) == sorted(HOSTILE)
            cursor.execute("SELECT count(*) FROM dedp.devices_quarantine")
            assert cursor.fetchone() == (len(HOSTILE),)
        connection.commit()
        ledger.ensure_tables(connection)
        for text in HOSTILE:
            assert ledger.known_files(connection, {text: [text]}) == {}
            with connection, connection.cursor() as cursor:
                ledger.lock_file(cursor, text, text)
                assert ledger.current(cursor, text, text) is None


@pytest.mark.parametrize("client", [".", "..", "../x", "a/b", "a\0b", "a\nb", "", " ", "x" * 256, "\udcff"])
def test_a_client_cannot_be_named_so_that_its_copies_lie_elsewhere(client: str) -> None:
    assert problem_of_client(client)


@pytest.mark.parametrize("client", [text for text in HOSTILE if "/" not in text])
def test_the_copies_of_a_client_lie_in_its_own_folder(own_home: Path, client: str) -> None:
    assert not problem_of_client(client)
    assert copy_of(client, "a.csv").resolve().parent.parent == own_home / "internal" / "uploads" / client


def test_the_name_of_a_partition_does_not_speak_to_the_terminal_that_lists_runs() -> None:
    run = RunRow("2024-01-31 08:00:00", "by hand", "success", "uploads/records", "\x1b]0;title\x07\u202e", "1")
    assert table([run])[1].split()[-2:] == ["\\x1b]0;title\\x07\\u202e", "1"]


MARKDOWN = [
    "![](http://example.com/seen.png)",
    "[here](javascript:alert(1))",
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "a | b || c \\| d",
    "a\r\r# heading\n\n> quote",
    "`code` *bold* _it_ ~~no~~ &lt; $x$",
    "\\",
]


@pytest.mark.parametrize("text", [*MARKDOWN, *HOSTILE])
def test_a_cell_of_a_table_in_the_ui_shows_its_text_and_nothing_else(text: str) -> None:
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = page.parse(markdown_table(("name",), [(text,)]))
    kinds = {token.type for token in tokens} | {child.type for token in tokens for child in token.children or ()}
    assert kinds <= {
        *("table_open", "table_close", "thead_open", "thead_close", "tbody_open", "tbody_close", "tr_open", "tr_close"),
        *("th_open", "th_close", "td_open", "td_close", "inline", "text", "text_special"),
    }
    shown = "".join(child.content for token in tokens[-6:] for child in token.children or ())
    assert shown == " ".join(text.splitlines()).strip()


ENDLESS = """
import resource, sys
from dedp_assets.delimited.format import Column, Format
from dedp_assets.delimited.lines import RejectedLine, classify

resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
FORMAT = Format(";", (Column("a"), Column("b")))

class Endless:
    left = 10 << 30
    block = b"x" * (1 << 18)
    began = False

    def read(self, size):
        if not self.began:
            self.began = True
            return b"a;b\\n"
        if not self.left:
            return b""
        self.left -= len(self.block)
        return self.block

(line,) = classify(Endless(), FORMAT)
assert isinstance(line, RejectedLine)
print(line.rejection.detail)
"""


@pytest.mark.slow
def test_a_line_of_10_gib_is_set_aside_in_little_memory() -> None:
    memory = 1 << 30  # of addresses; the interpreter and the libraries have most of them
    done = subprocess.run([sys.executable, "-c", ENDLESS, str(memory)], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout == "10,737,418,240 bytes, of which the first 1,048,576 are kept here\n"


@pytest.mark.parametrize("text", ["@everyone @channel @here <!channel> <@U1>", "<http://example.com|the dashboard>"])
def test_a_name_in_a_message_calls_nobody_and_leads_nowhere(text: str) -> None:
    """In Slack, Mattermost and Discord."""
    sent = slack_payload(Notification("key", text, text))
    (attachment,) = sent["attachments"]
    for shown in (sent["text"], attachment["title"], attachment["text"], attachment["fallback"]):
        assert not re.search(r"[<>]|@\w", shown)


def test_a_name_that_is_no_text_keeps_no_message_back(tmp_path: Path) -> None:
    """The name of a file may be any bytes; Python has those that are not UTF-8 as lone surrogates."""
    message = Notification("key \udcff", "subject \udcff", "text \udcff")
    FileNotifier(tmp_path / "messages").send(message)
    assert "text" in (tmp_path / "messages").read_text()
    email = EmailNotifier("smtp://127.0.0.1:9?from=a@example.org&to=b@example.org")._message(message)
    assert b"text" in email.as_bytes()
    assert b"text" in (requests.Request("POST", "http://h", json=asdict(message)).prepare().body or b"")
