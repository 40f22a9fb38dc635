"""The dashboard: one HTML file that loads nothing, and says itself which loads it reflects."""

import re
from datetime import datetime, timezone
from pathlib import Path

from psycopg2.extensions import connection as Connection

from dedp_assets.pages.rendering import template
from dedp_assets.pages.writing import write_page
from dedp_assets.promotions import contract
from dedp_assets.promotions.reports.charts import discounts_chart, products_chart
from dedp_assets.promotions.reports.figures import MOST_DELIVERIES, Figures, closes, read_figures
from dedp_assets.wording import counted

# Of more suppliers, the page shows only when they delivered: it would be slow to make, and nobody would look at it.
MOST_CHARTS = 24

# Whoever writes the dashboard reads its figures under this lock. So the last page that is written has the latest ones.
_LOCK = "SELECT pg_advisory_lock(hashtextextended('dedp.promotion_dashboard', 0))"
_UNLOCK = "SELECT pg_advisory_unlock(hashtextextended('dedp.promotion_dashboard', 0))"

_VERSION = re.compile(rb'<meta name="version" content="([0-9a-f]*)">')
_HEAD_BYTES = 1024


def build(connection: Connection) -> Figures:
    """Write the dashboard as the tables are now.

    Args:
        connection: To a database with the tables of the reports, outside of a transaction.

    Returns:
        What it shows.

    Raises:
        PageNotWritten: The file can't be written. What was there stays.
    """
    with connection.cursor() as cursor:
        cursor.execute(_LOCK)
        connection.commit()  # the lock belongs to the session, and the figures are of after we have got it
        try:
            figures = read_figures(connection, datetime.now(timezone.utc))
            html = dashboard_html(figures)
            write_page(contract.dashboard_file(), html, page="the dashboard", asset="promotions/dashboard")
            return figures
        finally:
            connection.rollback()
            cursor.execute(_UNLOCK)
            connection.commit()


def written_version(path: Path) -> str | None:
    """The version of the figures that a dashboard shows. None if there is no such file, or if it is not ours."""
    try:
        with path.open("rb") as stream:
            found = _VERSION.search(stream.read(_HEAD_BYTES))
    except OSError:
        return None
    return found[1].decode() if found else None


def dashboard_html(figures: Figures) -> str:
    """Write the page. Text from suppliers is escaped."""
    delivering = [each for each in figures.suppliers if each.deliveries]
    return template("dedp_assets.promotions.reports", "dashboard.html.jinja").render(
        figures=figures,
        verdict=verdict(figures),
        closes=closes(figures.day),
        charts=[(each, discounts_chart(each.deliveries), products_chart(each.deliveries)) for each in delivering][
            :MOST_CHARTS
        ],
        more_charts=max(0, len(delivering) - MOST_CHARTS),
        most_deliveries=MOST_DELIVERIES,
    )


def verdict(figures: Figures) -> tuple[str, str]:
    """Say in one sentence who has delivered.

    Returns:
        `good`, `bad` or `none`, and the sentence.
    """
    states: dict[str, list[str]] = {}
    for supplier in figures.suppliers:
        states.setdefault(figures.state(supplier, figures.day), []).append(supplier.name)
    here = len(states.get("on time", [])) + len(states.get("late", []))
    sentences = [f"{here} of {counted(len(figures.suppliers), 'supplier')} have delivered for {figures.day}."]
    for state, words in (("late", "late"), ("missing", "missing, and the window is closed"), ("expected", "expected")):
        if states.get(state):
            sentences.append(f"{_some(states[state])}: {words}.")
    if states.get("missing") or states.get("late"):
        return "bad", " ".join(sentences)
    return ("none" if states.get("expected") else "good"), " ".join(sentences)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def numbers(figures: Figures) -> dict[str, int]:
    """The figures as numbers, for the metadata of the asset: the UI plots them over time."""
    states = [figures.state(each, figures.day) for each in figures.suppliers]
    latest = [each.on(figures.day) for each in figures.suppliers]
    return {
        "suppliers": len(figures.suppliers),
        "suppliers_delivered": states.count("on time") + states.count("late"),
        "suppliers_late": states.count("late"),
        "suppliers_missing": states.count("missing"),
        "products_on_promotion": sum(each.products for each in latest if each),
    }
