"""Attempts of a user to do more than the role allows, on all ways that a request may take."""

import json
from typing import Any

import pytest
import requests

from tests.sign_in.attacks.server_under_attack import LIMIT, by_get, by_post, pools
from tests.sign_in.server import LAUNCH, RUN, Server

pytestmark = pytest.mark.slow


def in_the_address(session: requests.Session, url: str, query: str, variables: Any) -> requests.Response:
    """A POST whose body is harmless: Dagster reads the address if the body is of another type."""
    values = {"query": query, "variables": json.dumps(variables)}
    decoy = json.dumps({"query": "{ version }"})
    headers = {"Content-Type": "text/plain"}
    return session.post(f"{url}/graphql", params=values, data=decoy, headers=headers, timeout=60)


def as_graphql(session: requests.Session, url: str, query: str, variables: Any) -> requests.Response:
    for name, value in variables.items():
        query = query.replace(f"${name}", json.dumps(value))
    headers = {"Content-Type": "application/graphql"}
    return session.post(f"{url}/graphql", data=query, headers=headers, timeout=60)


def in_a_batch(session: requests.Session, url: str, query: str, variables: Any) -> requests.Response:
    batch = [{"query": "{ version }"}, {"query": query, "variables": variables}]
    return session.post(f"{url}/graphql", json=batch, timeout=60)


def as_an_upload(session: requests.Session, url: str, query: str, variables: Any) -> requests.Response:
    operations = json.dumps({"query": query, "variables": variables})
    files = {"operations": (None, operations), "map": (None, "{}")}
    return session.post(f"{url}/graphql", files=files, timeout=60)


def as_a_stored_query(session: requests.Session, url: str, query: str, variables: Any) -> requests.Response:
    stored = {"persistedQuery": {"version": 1, "sha256Hash": "0" * 64}}
    body = {"query": query, "variables": variables, "extensions": stored, "id": "launchRun", "doc_id": "launchRun"}
    return session.post(f"{url}/graphql", json=body, timeout=60)


def with_another_method(session: requests.Session, url: str, query: str, variables: Any) -> requests.Response:
    headers = {"X-HTTP-Method-Override": "POST", "X-Original-URL": "/healthz", "X-Rewrite-URL": "/healthz"}
    values = {"query": query, "variables": json.dumps(variables)}
    return session.get(f"{url}/graphql", params=values, headers=headers, timeout=60)


WAYS = [by_post, by_get, in_the_address, as_graphql, in_a_batch, as_an_upload, as_a_stored_query, with_another_method]


@pytest.mark.parametrize("way", WAYS)
def test_a_viewer_launches_nothing_however_it_is_sent(server: Server, viewer: requests.Session, way: Any) -> None:
    before = server.runs()
    answer = way(viewer, server.url, "mutation { " + LIMIT + " }", {})
    assert "tides" not in pools(server), answer.text
    answer = way(viewer, server.url, LAUNCH, {"run": RUN})
    assert server.runs() == before, answer.text


@pytest.mark.parametrize(
    ("query", "operation"),
    [
        ("mutation { " + LIMIT + " }", None),
        ("mutation { harmless: " + LIMIT + " logTelemetry: " + LIMIT + " }", None),
        ("mutation { version: " + LIMIT + " }", None),
        ("mutation { ...f } fragment f on Mutation { " + LIMIT + " }", None),
        ("mutation { ... on Mutation { ... { " + LIMIT + " } } }", None),
        ("query Q { version } mutation M { " + LIMIT + " }", "M"),
        ("query Q { version } mutation M { " + LIMIT + " }", "Q"),
        ("query Q { version } mutation M { " + LIMIT + " }", None),
        ("mutation Q { " + LIMIT + " } query M { version }", "Q"),
        ("mutation query { __typename @include(if: true) a: " + LIMIT + " }", "query"),
        ("mutation { setNuxSeen " + LIMIT + " }", None),
        ("query { " + LIMIT + " }", None),
        ("subscription { " + LIMIT + " }", None),
        ("# query { version }\nmutation{" + LIMIT + "}", None),
        ("\ufeffmutation{" + LIMIT + "}", None),
    ],
)
def test_a_viewer_changes_nothing_however_it_is_written(
    server: Server, viewer: requests.Session, query: str, operation: str | None
) -> None:
    body = {"query": query, "operationName": operation}
    answer = viewer.post(f"{server.url}/graphql", json=body, timeout=60)
    assert "tides" not in pools(server), answer.text


def test_a_launcher_launches_by_post_and_by_no_link(server: Server) -> None:
    """A browser sends our cookie with a link of another site, too."""
    launcher = server.signed_in("lars")
    before = server.runs()
    assert "has to be sent by POST" in by_get(launcher, server.url, LAUNCH, {"run": RUN}).text
    assert server.runs() == before
    assert by_post(launcher, server.url, LAUNCH, {"run": RUN}).json()["data"]["launchRun"]["run"]
    assert server.runs() == before + 1


@pytest.mark.parametrize("kind", ["materialization", "check", "observation"])
def test_events_of_assets_are_reported_by_launchers_alone_and_are_in_the_log(
    server: Server, viewer: requests.Session, kind: str
) -> None:
    path = f"{server.url}/report_asset_{kind}/tide"
    sent = {"partition": "2024-01-02", "check_name": "c", "passed": True}
    for address, body in [(path, sent), (f"{server.url}/report_asset_{kind}/", {**sent, "asset_key": ["tide"]})]:
        assert viewer.post(address, json=body, timeout=60).status_code == 403
    assert server.session().post(path, json=sent, timeout=60).status_code == 401
    assert server.signed_in("lars").post(path, json=sent, timeout=60).status_code == 200
    (entry,) = [each for each in server.log_of(user="lars", limit=1)]
    assert (entry.action, entry.outcome, entry.address) == (f"report_asset_{kind}", "done", "127.0.0.1")
    assert (entry.about["asset"], entry.about["partition"]) == ("tide", "2024-01-02")


def test_logs_are_read_by_known_users_and_lie_in_their_folder(server: Server, viewer: requests.Session) -> None:
    run_id = server.ask(server.signed_in("lars"), LAUNCH, run=RUN)["data"]["launchRun"]["run"]["runId"]
    answer = viewer.get(f"{server.url}/download_debug/{run_id}", timeout=60)
    assert answer.status_code == 200
    # No proxy keeps it for others, and no browser takes it for a page.
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("private", "nosniff")
    for path in (
        "/logs/..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc/hostname",
        "/logs/%2fetc/passwd",
        "/logs/..%2fdagster.yaml",
        "/logs/..%2fdagster/yaml",  # Dagster puts the last part after a dot
        "/logs/%2e%2e/dagster/yaml",
    ):
        answer = viewer.get(server.url + path, timeout=60)
        assert answer.status_code in (404, 500), answer.text
        assert "root:" not in answer.text
        assert "telemetry" not in answer.text
