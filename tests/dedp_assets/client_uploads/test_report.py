"""The report of client uploads: what it shows, that no client can write into it, and when it is made."""

from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path

import dagster as dg
import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets.client_uploads import contract
from dedp_assets.client_uploads.charts import Moment
from dedp_assets.client_uploads.figures import read_figures
from dedp_assets.client_uploads.report import (
    MOST_CLIENTS,
    SEEN_SECONDS,
    client_rows,
    moment,
    numbers,
    report_html,
    verdict,
)
from dedp_assets.client_uploads.report_asset import report
from dedp_assets.resources.postgres import PostgresResource
from sensors.pipelines.client_uploads_report import uploads_report

HOSTILE = [
    '<script>alert("x")</script>',
    "<img src=http://evil.example/x onerror=alert(1)>",
    "{{ 7*7 }}",
    "a\u202egpj.exe",
]


class Page(HTMLParser):
    """What a browser finds in a page: its elements, its text, and what it would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.loads: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name in ("src", "href", "xlink:href", "data", "action", "srcset") and not (value or "").startswith("#"):
                self.loads.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def hostile(
    tables: Connection, add_file: Callable[..., None], add_directory: Callable[..., None], set_tick: Callable[[], None]
) -> Connection:
    """Tables in which each text that a client can choose is an attack on the page."""
    set_tick()
    for name in HOSTILE:
        add_file(name, name, lines=5, quarantined=1)
        add_file(name, f"{name} refused", state="refused", reason=name)
        add_directory(name, "failing", problem=name, failures=1)
    with tables, tables.cursor() as cursor:
        for name in HOSTILE:
            cursor.execute("INSERT INTO dedp.upload_quarantine VALUES (%s, %s, 1, %s, %s, '', '')", [name] * 4)
    return tables


def test_no_client_can_write_into_the_page(hostile: Connection) -> None:
    figures = read_figures(hostile)
    page = Page(report_html(figures, [found for found in [moment(figures)] if found]))
    assert not page.elements & {"script", "img", "iframe", "object", "embed", "link", "form", "a", "base"}
    assert not any(name.startswith("on") for name in page.attributes)
    for name in HOSTILE[:3]:
        assert name in page.text
    assert "\u202e" not in page.text
    assert r"a\u202egpj.exe" in page.text


def test_the_page_loads_nothing(hostile: Connection) -> None:
    figures = read_figures(hostile)
    html = report_html(figures, [found for found in [moment(figures)] if found])
    assert Page(html).loads == []
    assert "url(http" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html


def test_a_system_without_uploads_has_a_report_that_says_so(tables: Connection) -> None:
    page = Page(report_html(read_figures(tables), []))
    assert "No directory has been watched yet." in page.text
    assert "No file has arrived yet." in page.text
    assert "svg" not in page.elements


def test_the_report_has_the_comparison_and_says_how_each_figure_was_found(
    tables: Connection, set_tick: Callable[[], None]
) -> None:
    set_tick()
    text = " ".join(Page(report_html(read_figures(tables), [])).text.split())
    for words in (
        "100 waits are calculated: one slot each",
        "It took 27 s until all of 100 waits were deferred, and 297 s for 1,000.",
        "29.3 s",
        "321 s",
        f"{SEEN_SECONDS[100]:g} s",
        "measured with benchmarks/uploads_burst.py: the files were created at once",
        "The last tick was over 5 directories and took 20 ms, as the sensor measured it",
    ):
        assert words in text


def test_clients_that_need_somebody_come_first_and_the_others_are_counted(
    tables: Connection, add_file: Callable[..., None], add_directory: Callable[..., None]
) -> None:
    for number in range(MOST_CLIENTS + 10):
        add_directory(f"client {number:04}")
    add_file("client 0005", state="refused")
    add_file("client 0004")
    add_file("left")
    add_directory("zzz", "silent")
    figures = read_figures(tables)
    rows = client_rows(figures)
    assert [row.client for row in rows[:5]] == ["zzz", "client 0005", "client 0004", "left", "client 0000"]
    assert [row.state for row in rows[:4]] == ["silent", "healthy", "healthy", "not watched"]
    text = Page(report_html(figures, [])).text
    assert "And 12 more clients" in text
    assert f"client {MOST_CLIENTS + 9:04}" not in text


def test_the_first_sentence_says_whether_somebody_has_to_act(
    tables: Connection, add_file: Callable[..., None], add_directory: Callable[..., None]
) -> None:
    add_directory("a")
    assert verdict(read_figures(tables)) == ("good", "1 directory: all healthy.")
    add_directory("b", "failing")
    add_directory("c", "given up")
    add_file("a", state="refused")
    assert verdict(read_figures(tables)) == (
        "bad",
        "Of 3 directories, 1 is failing, 1 is given up. 1 file was refused in the last 30 days.",
    )


def test_the_charts_show_what_earlier_reports_said_of_the_sensor(
    tables: Connection, add_file: Callable[..., None]
) -> None:
    add_file()
    moments = [Moment(datetime(2024, 1, 3, 8, minute, tzinfo=timezone.utc), 0.02, minute, 5, 0) for minute in range(3)]
    page = Page(report_html(read_figures(tables), moments))
    assert "files that wait for a free run" in page.text
    assert "duration of a tick" in page.text


# The asset and its schedule.


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    # Not an ephemeral one: a schedule opens its instance by a reference.
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def materialize(instance: dg.DagsterInstance, dsn: str, *, raises: bool = True) -> dg.ExecuteInProcessResult:
    postgres = PostgresResource(dsn=dsn)
    return dg.materialize([report], instance=instance, resources={"postgres": postgres}, raise_on_error=raises)


def test_the_asset_writes_the_page_and_has_its_figures_as_numbers(
    tables: Connection,
    dsn: str,
    instance: dg.DagsterInstance,
    add_file: Callable[..., None],
    set_tick: Callable[[], None],
) -> None:
    add_file(waited_seconds=3, lines=10, quarantined=2)
    set_tick()
    [event] = materialize(instance, dsn).asset_materializations_for_node("uploads__report")
    values = {name: each.value for name, each in event.metadata.items()}
    assert Page(contract.report_file().read_text()).elements >= {"svg", "table"}
    assert values["file"] == str(contract.report_file())
    expected = numbers(read_figures(tables))
    assert {name: values[name] for name in expected} == expected
    assert (expected["wait_p95_seconds"], expected["queue_depth"], expected["rows_quarantined"]) == (3, 7, 2)
    assert (event.tags or {})["dagster/data_version"] == read_figures(tables).version


def test_a_page_that_cannot_be_written_is_a_failure_that_names_the_file(
    tables: Connection, dsn: str, instance: dg.DagsterInstance, own_home: Path
) -> None:
    (own_home / "uploads").write_text("in the way")
    result = materialize(instance, dsn, raises=False)
    failure = result.failure_data_for_node("uploads__report")
    assert failure
    assert failure.user_failure_data
    assert str(failure.user_failure_data.description).startswith(f"the report can't be written to {own_home}/uploads")


Ask = Callable[[], dg.RunRequest | dg.SkipReason]


@pytest.fixture
def ask(instance: dg.DagsterInstance, dsn: str) -> Ask:
    """Evaluates the schedule once."""

    def evaluate() -> dg.RunRequest | dg.SkipReason:
        with dg.build_schedule_context(
            instance=instance,
            resources={"postgres": PostgresResource(dsn=dsn)},
            scheduled_execution_time=datetime(2024, 1, 3, 8, tzinfo=timezone.utc),
        ) as context:
            answer = uploads_report(context)
        assert isinstance(answer, dg.RunRequest | dg.SkipReason)
        return answer

    return evaluate


def test_a_report_is_made_only_when_it_would_say_something_new(
    tables: Connection,
    dsn: str,
    instance: dg.DagsterInstance,
    add_file: Callable[..., None],
    add_directory: Callable[..., None],
    ask: Ask,
) -> None:
    add_file()
    first = ask()
    assert isinstance(first, dg.RunRequest)
    materialize(instance, dsn)
    assert ask() == dg.SkipReason("nothing has changed since the last report")
    add_directory(state="silent")
    second = ask()
    assert isinstance(second, dg.RunRequest)
    assert first.run_key != second.run_key


def test_a_report_that_failed_is_not_asked_for_with_the_same_run_key_each_minute(
    tables: Connection, add_file: Callable[..., None], ask: Ask
) -> None:
    add_file()
    first, second = ask(), ask()
    assert isinstance(first, dg.RunRequest)
    assert isinstance(second, dg.RunRequest)
    assert first.run_key == second.run_key


def test_without_tables_there_is_nothing_to_report(empty_dsn: str, instance: dg.DagsterInstance) -> None:
    postgres = PostgresResource(dsn=empty_dsn)
    with dg.build_schedule_context(instance=instance, resources={"postgres": postgres}) as context:
        assert uploads_report(context) == dg.SkipReason("no client has uploaded anything yet")


def test_a_database_that_is_away_is_said_by_the_schedule_and_fails_the_run_with_one_sentence(
    instance: dg.DagsterInstance,
) -> None:
    away = "postgresql://somebody:secret@127.0.0.1:1/somewhere"
    with dg.build_schedule_context(instance=instance, resources={"postgres": PostgresResource(dsn=away)}) as context:
        answer = uploads_report(context)
    assert isinstance(answer, dg.SkipReason)
    assert str(answer.skip_message).startswith("error: PostgreSQL does not answer")
    with pytest.raises(dg.Failure, match="PostgreSQL does not answer") as raised:
        report(dg.build_asset_context(instance=instance), postgres=PostgresResource(dsn=away))
    assert raised.value.allow_retries
    assert "secret" not in str(answer.skip_message) + str(raised.value.description)
