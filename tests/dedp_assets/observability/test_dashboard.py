"""Every query of the dashboard and of the alert rules asks for figures and labels that `dedp metrics` offers."""

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import psycopg2
import pytest
import yaml

from dedp_assets import settings
from dedp_assets.client_uploads.ledger import ensure_tables
from dedp_assets.observability import cli
from tests.dagster_in_postgres import dagster_in_postgres

DOCKER = settings.REPOSITORY / "docker"


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCKER / "grafana" / "dashboard.json").read_text())
    return found


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DOCKER / "prometheus" / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> list[str]:
    asked = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    return asked + [rule["expr"] for rule in rules()]


def parts(expression: Any) -> Iterator[Any]:
    """An expression of PromQL, and all that it consists of."""
    yield expression
    for name in ("lhs", "rhs", "expr", "vector_selector", "param"):
        if getattr(expression, name, None) is not None:
            yield from parts(getattr(expression, name))
    for argument in getattr(expression, "args", None) or ():
        yield from parts(argument)


def asked(query: str) -> Iterator[tuple[str, set[str]]]:
    """The metrics that a query asks for, each with the labels that it selects or groups by."""
    found = list(parts(promql_parser.parse(query)))
    grouped = {
        label
        for part in found
        if isinstance(part, promql_parser.AggregateExpr) and part.modifier
        for label in part.modifier.labels
    }
    for part in found:
        if isinstance(part, promql_parser.VectorSelector):
            yield part.name or "", {matcher.name for matcher in part.matchers.matchers} | grouped


@pytest.fixture(scope="module")
def offered(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The labels of all metrics, of a system that has just been made. The sensor of the uploads has run once."""
    connection = psycopg2.connect(module_dsn)
    ensure_tables(connection)
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO dedp.upload_ticks (id, ended_at, seconds, directories, queue_depth, timeouts)"
            " VALUES (1, now(), 1, 1, 0, 0)"
        )
    connection.close()
    with dagster_in_postgres(module_dsn, tmp_path_factory.mktemp("instance")):
        # The parser of Prometheus' text would not know a metric without a value.
        return {each.name: set(getattr(each, "_labelnames", ())) for each in cli.all_metrics(module_dsn)}


@pytest.mark.slow
@pytest.mark.parametrize("query", queries())
def test_a_query_asks_for_what_is_offered(query: str, offered: dict[str, set[str]]) -> None:
    metrics = list(asked(query))
    assert metrics
    for name, labels in metrics:
        assert name in offered
        assert labels <= offered[name]


@pytest.mark.slow
def test_every_metric_is_documented_and_every_documented_metric_is_offered(offered: dict[str, set[str]]) -> None:
    text = (settings.REPOSITORY / "docs" / "observability.md").read_text()
    rows = re.findall(r"^\| `(dedp_\w+)` \|(.*?)\| \S", text, re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert documented == {name: labels for name, labels in offered.items() if not name.startswith("dedp_uploads_")}


def test_a_query_for_what_does_not_exist_would_be_seen() -> None:
    assert list(asked('max by (a) (rate(dedp_x{b="1"}[5m])) / on (a) dedp_y')) == [
        ("dedp_x", {"a", "b"}),
        ("dedp_y", {"a"}),
    ]
    with pytest.raises(ValueError, match=r"."):
        list(asked("sum(dedp_x"))


def test_panels_have_a_place_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])


def test_every_rule_says_how_urgent_it_is_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "error")
        assert rule["annotations"].keys() == {"summary", "description"}
        # A label that the expression has aggregated away would be empty in the text.
        text = " ".join(rule["annotations"].values())
        for label in re.findall(r"\$labels\.(\w+)", text):
            groups = re.search(r"\bby \(([^)]*)\)", rule["expr"])
            assert label in groups[1] if groups else "(" not in rule["expr"].replace("min_over_time(", "")
