"""Who may use which mutation, and what the log then has: on the real web server. All tests share one server."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
import requests
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.test_utils import instance_for_test
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget
from dagster_graphql.schema import create_schema
from starlette.requests import HTTPConnection

from dedp_assets.sign_in import sessions, users
from dedp_assets.sign_in._dagster import VISITOR, Visitor, _Context
from dedp_assets.sign_in.database import connected
from dedp_assets.sign_in.roles import Role, role_for_mutation
from dedp_assets.sign_in.users import User
from tests.sign_in.mutations import ARGUMENTS, FOR_ALL, document
from tests.sign_in.server import LAUNCH, RUN, SELECTOR, WORLD, Server, serving

pytestmark = pytest.mark.slow

REFUSED = "needs the role"
# Of all: what the others need comes first, and what takes it away last.
LAST = ("deleteRun", "deletePipelineRun", "shutdownRepositoryLocation")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, module_dsn: str) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("web"), module_dsn, prefix="/a/dedp") as running:
        yield running


def send(server: Server, who: requests.Session, query: str, **variables: Any) -> str:
    body = {"query": query, "variables": variables}
    return who.post(f"{server.url}/graphql", json=body, timeout=60).text


def test_each_role_may_use_the_mutations_of_its_own_and_no_other(server: Server) -> None:
    """Lower roles try first, so that what a higher one does is there for nobody before."""
    signed_in = {name: server.signed_in(name) for name in ("vera", "lars", "anna")}
    run = json.loads(send(server, signed_in["lars"], LAUNCH, run=RUN))["data"]["launchRun"]["run"]["runId"]
    backfill = "nobackfi"
    names = sorted(ARGUMENTS, key=lambda name: name in LAST)
    for name, role in (("vera", Role.viewer), ("lars", Role.launcher), ("anna", Role.admin)):
        for mutation in names:
            answer = send(server, signed_in[name], document(mutation, run, backfill))
            is_refused = "UnauthorizedError" in answer or REFUSED in answer
            if mutation in ("setAppManagedComponent", "deleteAppManagedComponent") and role == Role.admin:
                assert is_refused, answer  # Dagster's own web server has it for nobody
                continue
            assert is_refused == (role < role_for_mutation(mutation)), f"{mutation} of {name}: {answer}"
            (entry,) = server.log_of(user=name, limit=1)
            assert entry.action == mutation
            assert (entry.outcome == "refused") == is_refused
        for mutation in FOR_ALL:
            assert '"errors"' not in send(server, signed_in[name], document(mutation, run, backfill))


def test_dagsters_own_permissions_refuse_the_same_without_our_second_look() -> None:
    """The UI greys out its buttons by these. And should we forget a mutation, Dagster does not."""
    schema = create_schema()
    with (
        instance_for_test() as instance,
        WorkspaceProcessContext(instance, PythonFileTarget(str(WORLD), None, None, None)) as process,
    ):
        source = HTTPConnection({"type": "http", "method": "POST"})
        allowed: dict[Role, set[str]] = {}
        for role in (Role.viewer, Role.launcher):
            visitor = Visitor(User("ada", role), "127.0.0.1")
            source.scope[VISITOR] = visitor
            allowed[role] = set()
            for mutation in ARGUMENTS:
                with _Context(process.create_request_context(source), visitor, source) as context:
                    assert context.has_permission("launch_pipeline_execution") == (role == Role.launcher)
                    answer = _executed(schema, document(mutation, "no run", "no backfill"), context)
                if "Unauthorized" not in answer and "permission" not in answer:
                    allowed[role].add(mutation)
    # Of what does not exist, Dagster first says that.
    unknown = {name for name, values in ARGUMENTS.items() if "RUN" in values or "BACKFILL" in values}
    assert allowed[Role.viewer] - unknown == set()
    launchers = {name for name in ARGUMENTS if role_for_mutation(name) == Role.launcher}
    assert allowed[Role.launcher] - unknown == launchers - unknown


def _executed(schema: Any, query: str, context: Any) -> str:
    result = asyncio.run(schema.execute_async(query, context_value=context))
    return f"{result.data} {result.errors}"


def test_the_ui_knows_what_its_user_may(server: Server) -> None:
    query = "{ unconfigured: permissions { permission value disabledReason } }"
    granted = {}
    for name in ("vera", "lars", "anna"):
        answer = json.loads(send(server, server.signed_in(name), query))["data"]["unconfigured"]
        granted[name] = {each["permission"] for each in answer if each["value"]}
    assert granted["vera"] == set()
    assert "launch_pipeline_execution" in granted["lars"]
    assert "edit_sensor" not in granted["lars"]
    assert {"edit_sensor", "wipe_assets", "reload_workspace"} <= granted["anna"]


@pytest.mark.parametrize("forged", ["", "anna"])
def test_a_run_carries_the_name_of_who_launched_it_and_no_other(server: Server, forged: str) -> None:
    launcher = server.signed_in("lars")
    tags = [{"key": "user", "value": forged}] if forged else []
    params = {**RUN, "executionMetadata": {"tags": tags}}
    first = json.loads(send(server, launcher, LAUNCH, run=params))["data"]["launchRun"]["run"]["runId"]
    again = """
        mutation ($again: ReexecutionParams!) {
            launchRunReexecution(reexecutionParams: $again) { ... on LaunchRunSuccess { run { runId } } }
        }
    """
    extra = {"parentRunId": first, "strategy": "ALL_STEPS", "extraTags": tags}
    repeated = json.loads(send(server, server.signed_in("anna"), again, again=extra))
    second = repeated["data"]["launchRunReexecution"]["run"]["runId"]
    found = [server.instance.get_run_by_id(run_id) for run_id in (first, second)]
    assert [run.tags["user"] for run in found if run] == ["lars", "anna"]
    (entry,) = server.log_of(run=first, user="lars")
    assert (entry.user, entry.role, entry.address, entry.action) == ("lars", "launcher", "127.0.0.1", "launchRun")
    assert entry.about == {**entry.about, "jobName": "nightly", "repositoryLocationName": "world.py"}
    assert (entry.outcome, entry.run_ids) == ("LaunchRunSuccess", [first])


def test_a_backfill_carries_the_name_of_who_launched_it_and_the_log_its_partitions(server: Server) -> None:
    query = """
        mutation ($params: LaunchBackfillParams!) {
            launchPartitionBackfill(backfillParams: $params) { ... on LaunchBackfillSuccess { backfillId } }
        }
    """
    params = {
        "assetSelection": [{"path": ["tide"]}],
        "partitionNames": ["2024-01-02", "2024-01-03"],
        "tags": [{"key": "user", "value": "anna"}],
    }
    answer = json.loads(send(server, server.signed_in("lars"), query, params=params))
    backfill = server.instance.get_backfill(answer["data"]["launchPartitionBackfill"]["backfillId"])
    assert backfill
    assert backfill.tags["user"] == backfill.user == "lars"
    (entry,) = server.log_of(user="lars", limit=1)
    days = ["2024-01-02", "2024-01-03"]
    assert entry.about == {"asset": "tide", "partitionNames": days, "backfill": backfill.backfill_id}


def test_a_backfill_that_is_run_again_carries_the_name_of_who_did_that(server: Server) -> None:
    launch = """
        mutation ($params: LaunchBackfillParams!) {
            launchPartitionBackfill(backfillParams: $params) { ... on LaunchBackfillSuccess { backfillId } }
        }
    """
    again = """
        mutation ($again: ReexecutionParams!) {
            reexecutePartitionBackfill(reexecutionParams: $again) {
                __typename
                ... on LaunchBackfillSuccess { backfillId }
                ... on PythonError { message }
            }
        }
    """
    params = {"assetSelection": [{"path": ["tide"]}], "partitionNames": ["2024-01-02"]}
    answer = json.loads(send(server, server.signed_in("lars"), launch, params=params))
    first = server.instance.get_backfill(answer["data"]["launchPartitionBackfill"]["backfillId"])
    assert first
    server.instance.update_backfill(first._replace(status=BulkActionStatus.COMPLETED_FAILED))
    wanted = {"parentRunId": first.backfill_id, "strategy": "ALL_STEPS"}
    answer = json.loads(send(server, server.signed_in("anna"), again, again=wanted))["data"][
        "reexecutePartitionBackfill"
    ]
    second = server.instance.get_backfill(answer["backfillId"])
    assert second
    assert (first.user, second.user) == ("lars", "anna")
    (entry,) = server.log_of(user="anna", limit=1)
    assert entry.about == {**entry.about, "parentRunId": first.backfill_id, "backfill": second.backfill_id}


NAMES_ENVIRONMENT = [
    {"ops": {"work": {"config": {"word": {"env": "PATH"}}}}},
    "ops: {work: {config: {word: {env: PATH}}}}",
]


@pytest.mark.parametrize("config", NAMES_ENVIRONMENT)
def test_no_launcher_puts_an_environment_variable_into_a_run_or_chooses_its_folders(
    server: Server, config: object
) -> None:
    """A run that does not like a value says so, with the value: to all who see its page."""
    launcher, before = server.signed_in("lars"), server.runs()
    params = {**RUN, "runConfigData": config}
    several = "mutation ($run: ExecutionParams!) { launchMultipleRuns(executionParamsList: [$run]) { __typename } }"
    again = "mutation ($run: ExecutionParams!) { launchPipelineReexecution(executionParams: $run) { __typename } }"
    for query in (LAUNCH, several, again):
        assert "takes a value from an environment variable" in send(server, launcher, query, run=params)
        (entry,) = server.log_of(user="lars", limit=1)
        assert entry.outcome.startswith("refused: the run config takes a value from an environment variable")
    backfill = (
        "mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) { __typename } }"
    )
    asked = {"assetSelection": [{"path": ["tide"]}], "partitionNames": ["2024-01-02"], "runConfigData": config}
    assert "takes a value from an environment variable" in send(server, launcher, backfill, params=asked)
    assert "UnauthorizedError" in send(server, server.signed_in("vera"), LAUNCH, run=params)
    elsewhere = {**RUN, "runConfigData": {"resources": {"io_manager": {"config": {"base_dir": "/landing"}}}}}
    assert "has `resources`" in send(server, launcher, LAUNCH, run=elsewhere)
    assert server.runs() == before
    assert "LaunchRunSuccess" in send(server, server.signed_in("anna"), LAUNCH, run=params)


@pytest.mark.parametrize("config", NAMES_ENVIRONMENT)
def test_a_plan_is_made_for_launchers_and_without_environment_variables(server: Server, config: object) -> None:
    """Dagster has the code location read the run config: a few lines of YAML can fill its memory."""
    query = """
        query ($job: PipelineSelector!, $config: RunConfigData) {
            executionPlanOrError(pipeline: $job, mode: "default", runConfigData: $config) {
                __typename
                ... on PythonError { message }
            }
        }
    """

    def plan(name: str, config: object) -> str:
        return send(server, server.signed_in(name), query, job={**SELECTOR, "pipelineName": "nightly"}, config=config)

    assert "needs the role launcher; yours is viewer" in plan("vera", {})
    assert "takes a value from an environment variable" in plan("lars", config)
    assert [name for name in ("lars", "anna") if '"ExecutionPlan"' in plan(name, {})] == ["lars", "anna"]
    assert '"ExecutionPlan"' in plan("anna", config)


def test_admins_alone_see_the_settings_of_the_instance(server: Server) -> None:
    """As they stand in dagster.yaml, where somebody may have written a password."""
    shown = {
        name: send(server, server.signed_in(name), "{ instance { info hasInfo } }") for name in ("vera", "lars", "anna")
    }
    assert "DefaultRunLauncher" in shown["anna"]
    for name in ("vera", "lars"):
        assert json.loads(shown[name])["data"]["instance"] == {"info": None, "hasInfo": False}


def test_the_log_names_a_sensor_also_when_the_request_has_only_its_id(server: Server) -> None:
    admin = server.signed_in("anna")
    start = """
        mutation ($sensor: SensorSelector!) {
            startSensor(sensorSelector: $sensor) { ... on Sensor { sensorState { id } } }
        }
    """
    selector = {**SELECTOR, "sensorName": "doorbell"}
    state = json.loads(send(server, admin, start, sensor=selector))["data"]["startSensor"]["sensorState"]
    assert '"errors"' not in send(
        server, admin, "mutation ($id: String!) { stopSensor(id: $id) { __typename } }", **state
    )
    stopped, started = server.log_of(user="anna", limit=2)
    assert (started.action, started.about["sensorName"]) == ("startSensor", "doorbell")
    assert (stopped.action, stopped.about["name"]) == ("stopSensor", "doorbell")


def test_a_reported_event_carries_the_name_of_who_reported_it(server: Server) -> None:
    path = f"{server.url}/report_asset_materialization/tide"
    server.signed_in("lars").post(path, json={"partition": "2024-01-04"}, timeout=60).raise_for_status()
    (record,) = server.instance.fetch_materializations(dg.AssetKey("tide"), limit=1).records
    assert record.asset_materialization
    assert record.asset_materialization.tags == {"dagster/reporting_user": "lars"}


def test_scripts_sign_in_with_each_request_and_a_role_counts_at_once(server: Server) -> None:
    with connected(server.dsn) as cursor:
        users.add(cursor, "robot", "a robot's password", Role.viewer)
        token, short = (sessions.new_api_token(cursor, "robot", days) for days in (None, 1))

    def launched(**how: Any) -> str:
        body = {"query": LAUNCH, "variables": {"run": RUN}}
        answer = server.session().post(f"{server.url}/graphql", json=body, timeout=60, **how)
        return answer.json()["data"]["launchRun"]["__typename"] if answer.ok else str(answer.status_code)

    bearer, basic = {"headers": {"Authorization": f"Bearer {token}"}}, {"auth": ("robot", "a robot's password")}
    assert [launched(**how) for how in (bearer, basic)] == ["UnauthorizedError"] * 2
    with connected(server.dsn) as cursor:
        users.set_role(cursor, "robot", Role.launcher)
    assert [launched(**how) for how in (bearer, basic)] == ["LaunchRunSuccess"] * 2
    server.do("UPDATE dedp_sign_in.api_tokens SET expires_at = now() WHERE expires_at IS NOT NULL")
    assert launched(headers={"Authorization": f"Bearer {short}"}) == "401"
    with connected(server.dsn) as cursor:
        users.set_password(cursor, "robot", "another password")
    assert [launched(**how) for how in (bearer, basic)] == ["LaunchRunSuccess", "401"]
    with connected(server.dsn) as cursor:
        users.remove(cursor, "robot")
    assert launched(**bearer) == "401"


def test_another_password_ends_the_sessions(server: Server) -> None:
    here, there = server.signed_in("vera"), server.signed_in("vera")
    old = "a viewer's password"

    def change(current: str, new: str) -> int:
        form = {"current": current, "new": new}
        return here.post(f"{server.url}/sign-in/password", data=form, timeout=60).status_code

    assert change("wrong", "a new password") == 401
    assert change(old, "short") == 400
    assert there.get(f"{server.url}/server_info", timeout=60).status_code == 200
    assert change(old, "a new password") == 200
    for session in (here, there):
        assert session.get(f"{server.url}/server_info", timeout=60).status_code == 401
    assert server.sign_in(server.session(), "vera", old).status_code == 401
    server.signed_in("vera", "a new password")


def test_the_page_of_dagster_names_its_user_and_leads_to_the_sign_out(server: Server) -> None:
    page = server.signed_in("lars").get(f"{server.url}/", headers={"Accept": "text/html"}, timeout=60)
    assert '<a href="/a/dedp/sign-in" id="dedp-user"' in page.text
    assert "lars &middot; launcher" in page.text
    assert page.headers["x-frame-options"] == "SAMEORIGIN"
    account = server.signed_in("lars").get(f"{server.url}/sign-in", timeout=60).text
    assert 'action="/a/dedp/sign-out"' in account
    assert '<a class="back" href="/a/dedp/"' in account
    home = server.sign_in(server.session(), "lars", "a launcher's password", next="//evil.example")
    assert home.headers["location"] == "/a/dedp/"
