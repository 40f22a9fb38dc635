"""Everything of Dagster that is not public and that the sign-in needs. tests/sign_in/test_dagster.py watches it.

Nothing here reads GraphQL. Dagster parses, validates and executes a request, however it has come and however it is
written. Two places decide what happens then:

- Dagster's own permissions. Each resolver asks the request's context for them, and the UI does so for its buttons.
- The resolvers of the mutations. Each is wrapped: it asks for the role once more, and writes the log.
"""

import copy
import json
import logging
import time
from asyncio import Task
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from html import escape
from inspect import isawaitable
from math import inf
from typing import Any, NamedTuple, cast

import click
import psycopg2
import uvicorn
from dagster import DagsterInstance
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.storage.tags import REPORTING_USER_TAG
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.permissions import PermissionResult
from dagster_graphql.schema.errors import GraphenePythonError, GrapheneUnauthorizedError
from dagster_shared.error import SerializableErrorInfo
from dagster_webserver import cli
from dagster_webserver.webserver import DagsterWebserver
from graphene import Schema
from graphql import GraphQLError, GraphQLFormattedError, GraphQLResolveInfo, get_named_type
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from dedp_assets.origin import USER_TAG
from dedp_assets.sign_in import audit
from dedp_assets.sign_in.database import Database
from dedp_assets.sign_in.long_queries import TakesTooLong, too_long, while_there_is_time
from dedp_assets.sign_in.roles import Role, may, role_for_mutation
from dedp_assets.sign_in.run_config import reserved_for_admins
from dedp_assets.sign_in.slow_clients import TimelyRequests
from dedp_assets.sign_in.users import User

# What says nothing about the system is not in the log.
_NOT_LOGGED = ("logTelemetry", "setNuxSeen")

_FOR_ADMINS = "the run config {}; only an admin may choose that. Leave it out"

# Below the last entry of the navigation, where Dagster has nothing.
_BAR = """
<a href="{prefix}/sign-in" id="dedp-user" title="Your account" style="position:fixed;left:14px;bottom:4px;z-index:19;
max-width:210px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;padding:1px 10px;border-radius:10px;
font:11px/1.6 system-ui,sans-serif;color:#fff;background:#24292f;opacity:.82;
text-decoration:none">{name} &middot; {role}</a>
"""


# How many times as long as one statement of the database a query may take.
_STATEMENTS = 4
# Of a web socket, in bytes. A page sends subscriptions, of 20 KB at most.
_LONGEST_MESSAGE = 1 << 20

# Where the gate puts the visitor into the scope of a request.
VISITOR = "dedp.visitor"


class Visitor(NamedTuple):
    """Who has sent a request, and from which address."""

    user: User
    address: str


class _Context(WorkspaceRequestContext):
    """What a request may ask of the instance and the code locations, with the permissions of its user."""

    def __init__(
        self, of: WorkspaceRequestContext, visitor: Visitor, source: HTTPConnection, query_seconds: float = inf
    ) -> None:
        super().__init__(
            instance=_signing(of.instance, visitor.user.name),
            current_workspace=of.get_current_workspace(),
            process_context=of.process_context,
            version=of.version,
            source=source,
            read_only=of.read_only,
        )
        self.visitor = visitor
        self.ends_at = time.monotonic() + query_seconds

    @property
    def permissions(self) -> Mapping[str, PermissionResult]:
        return self._of_role(super().permissions)

    def permissions_for_location(self, *, location_name: str) -> Mapping[str, PermissionResult]:
        return self._of_role(super().permissions_for_location(location_name=location_name))

    @property
    def show_instance_config(self) -> bool:
        # dagster.yaml as it stands there. Somebody may have written a password into it.
        return self.visitor.user.role == Role.admin

    def get_viewer_tags(self) -> dict[str, str]:
        return {USER_TAG: self.visitor.user.name}

    def get_reporting_user_tags(self) -> dict[str, str]:
        return {REPORTING_USER_TAG: self.visitor.user.name}

    def _of_role(self, permissions: Mapping[str, PermissionResult]) -> Mapping[str, PermissionResult]:
        role = self.visitor.user.role
        refused = PermissionResult(
            enabled=False, disabled_reason=f"Your role is {role.name}. It does not include this."
        )
        return {name: result if may(role, str(name)) else refused for name, result in permissions.items()}


def _signing(instance: DagsterInstance, user: str) -> DagsterInstance:
    """The instance, for one request. The backfills that this adds carry the name of the user.

    One that is run again is a new one with the tags of the first, and Dagster asks nobody who does that.
    """
    signing = copy.copy(instance)

    def add_backfill(backfill: PartitionBackfill) -> None:
        instance.add_backfill(backfill._replace(tags={**backfill.tags, USER_TAG: user}))

    cast(Any, signing).add_backfill = add_backfill
    return signing


class _WebServer(DagsterWebserver[WorkspaceProcessContext, WorkspaceRequestContext]):
    """Dagster's web server, for users that the gate has found out."""

    def __init__(self, database: Database, query_seconds: float, *arguments: Any) -> None:
        self._database, self._query_seconds = database, query_seconds
        super().__init__(*arguments)

    def _make_request_context(self, conn: HTTPConnection) -> WorkspaceRequestContext:
        # Without a visitor there is no context: nothing gets past the gate by a way that we have not thought of.
        visitor = conn.scope[VISITOR]
        return _Context(self._process_context.create_request_context(conn), visitor, conn, self._query_seconds)

    def build_graphql_middleware(self) -> list[Callable[..., Any]]:
        return [*super().build_graphql_middleware(), while_there_is_time]

    def graphql_execution_thread(
        self, request: Request, query: str, variables: dict[str, Any] | None, operation_name: str | None
    ) -> JSONResponse:
        refused = _too_long_for(request.scope[VISITOR], query)
        if refused:
            return JSONResponse({"data": None, "errors": [refused.formatted]}, 400)
        try:
            return super().graphql_execution_thread(request, query, variables, operation_name)
        except TakesTooLong:
            reason = f"the query took longer than {self._query_seconds:g} s, and was ended; ask for less at once"
            return JSONResponse({"data": None, "errors": [{"message": reason}]}, 503)

    async def execute_graphql_subscription(
        self,
        websocket: WebSocket,
        operation_id: str,
        query: str,
        variables: dict[str, Any] | None,
        operation_name: str | None,
    ) -> tuple[Task[Any] | None, GraphQLFormattedError | None]:
        refused = _too_long_for(websocket.scope[VISITOR], query)
        if refused:
            return None, refused.formatted
        return await super().execute_graphql_subscription(websocket, operation_id, query, variables, operation_name)

    def build_graphql_schema(self) -> Schema:
        schema = super().build_graphql_schema()
        mutations = schema.graphql_schema.mutation_type
        assert mutations
        for name, field in mutations.fields.items():
            assert field.resolve
            can_say_so = GrapheneUnauthorizedError._meta.name in _names_of(get_named_type(field.type))
            field.resolve = _Guarded(name, field.resolve, can_say_so, self._database)
        assert schema.graphql_schema.query_type
        plan = schema.graphql_schema.query_type.fields["executionPlanOrError"]
        assert plan.resolve
        plan.resolve = _for_launchers(plan.resolve)
        return schema

    async def report_asset_materialization_endpoint(self, request: Request) -> JSONResponse:
        return await self._logged(request, super().report_asset_materialization_endpoint)

    async def report_asset_check_endpoint(self, request: Request) -> JSONResponse:
        return await self._logged(request, super().report_asset_check_endpoint)

    async def report_asset_observation_endpoint(self, request: Request) -> JSONResponse:
        return await self._logged(request, super().report_asset_observation_endpoint)

    async def _logged(self, request: Request, endpoint: Callable[[Request], Awaitable[JSONResponse]]) -> JSONResponse:
        visitor: Visitor = request.scope[VISITOR]
        action = endpoint.__name__.removesuffix("_endpoint")
        about = _reported(request, await request.body())
        number = await run_in_threadpool(_begin, self._database, visitor, action, about)
        outcome = "error"
        try:
            response = await endpoint(request)
            outcome = "done" if response.status_code == 200 else f"refused: {response.status_code}"
            return response
        finally:
            await run_in_threadpool(_end, self._database, number, outcome)

    def index_html_endpoint(self, request: Request) -> Response:
        response = cast(HTMLResponse, super().index_html_endpoint(request))
        user = request.scope[VISITOR].user
        bar = _BAR.format(prefix=self._app_path_prefix, name=escape(user.name), role=user.role.name)
        body = bytes(response.body).replace(b"</body>", f"{bar}</body>".encode(), 1)
        headers = {name: value for name, value in response.headers.items() if name != "content-length"}
        return HTMLResponse(body, headers=headers)


class _Guarded:
    """The resolver of a mutation, for those who may use it, and with an entry in the log."""

    def __init__(self, name: str, resolve: Callable[..., Any], can_say_so: bool, database: Database) -> None:
        """Wrap it.

        Args:
            name: The mutation.
            resolve: Its resolver.
            can_say_so: Whether UnauthorizedError is among its answers.
            database: Where the log is.
        """
        self._name, self._resolve, self._can_say_so, self._database = name, resolve, can_say_so, database

    def __call__(self, root: Any, info: GraphQLResolveInfo, **arguments: Any) -> Any:
        visitor: Visitor = info.context.visitor
        scope = info.context.source.scope
        number = None
        if self._name not in _NOT_LOGGED:
            number = _begin(self._database, visitor, self._name, audit.described(arguments))
        # A browser opens a link, and sends our cookie with it, wherever the link is.
        if scope["type"] != "http" or scope["method"] != "POST":
            self._end(number, "refused: not by POST")
            raise _refusal(info, f"{self._name} changes something, and has to be sent by POST")
        needed = role_for_mutation(self._name)
        if visitor.user.role < needed:
            self._end(number, "refused")
            reason = f"{self._name} needs the role {needed.name}; yours is {visitor.user.role.name}"
            if self._can_say_so:
                return cast(Any, GrapheneUnauthorizedError)(message=reason)
            raise _refusal(info, reason)
        reserved = reserved_for_admins(arguments) if visitor.user.role < Role.admin else None
        if reserved:
            self._end(number, f"refused: the run config {reserved}")
            raise _refusal(info, _FOR_ADMINS.format(reserved))
        _sign(arguments, visitor.user.name)
        try:
            result = self._resolve(root, info, **arguments)
        except Exception as error:
            self._end(number, f"error: {type(error).__name__}")
            raise
        if isawaitable(result):
            return self._finish(number, result)
        self._end(number, _outcome(result), result)
        return result

    async def _finish(self, number: int | None, result: Awaitable[Any]) -> Any:
        try:
            value = await result
        except Exception as error:
            self._end(number, f"error: {type(error).__name__}")
            raise
        self._end(number, _outcome(value), value)
        return value

    def _end(self, number: int | None, outcome: str, result: Any = None) -> None:
        if number is not None:
            _end(self._database, number, outcome, result)


def _for_launchers(resolve: Callable[..., Any]) -> Callable[..., Any]:
    """The resolver of the plan of a run. Of all queries, it alone has a code location read a run config.

    So it can be told which environment variables there are, and a few lines of YAML can fill the memory.
    """

    def resolve_for_launchers(root: Any, info: GraphQLResolveInfo, **arguments: Any) -> Any:
        role = info.context.visitor.user.role
        reserved = reserved_for_admins(arguments) if role == Role.launcher else None
        reason = _FOR_ADMINS.format(reserved) if reserved else None
        if role < Role.launcher:
            reason = f"the plan of a run needs the role launcher; yours is {role.name}"
        if reason:
            return cast(Any, GraphenePythonError)(SerializableErrorInfo(reason, [], None))
        return resolve(root, info, **arguments)

    return resolve_for_launchers


def _too_long_for(visitor: Visitor, query: str) -> GraphQLError | None:
    # Who may launch runs may keep the machine busy anyway, and may name thousands of partitions in a mutation.
    return too_long(query) if visitor.user.role < Role.launcher else None


def _refusal(info: GraphQLResolveInfo, reason: str) -> GraphQLError:
    # With its place: without it, Dagster takes it for a fault of the server, and adds a traceback.
    return GraphQLError(reason, info.field_nodes, path=info.path.as_list())


def _names_of(answer: Any) -> set[str]:
    return {each.name for each in getattr(answer, "types", ())}


def _begin(database: Database, visitor: Visitor, action: str, about: Mapping[str, Any]) -> int:
    """Record that something begins. If that is not possible, nothing begins."""
    with database.cursor() as cursor:
        return audit.begin(cursor, visitor.user.name, visitor.user.role.name, visitor.address, action, about)


def _end(database: Database, number: int, outcome: str, result: Any = None) -> None:
    try:
        with database.cursor() as cursor:
            audit.end(cursor, number, outcome, list(_runs(result)), dict(_told(result)))
    except (psycopg2.Error, SQLAlchemyError):  # it has happened, and its beginning is in the log
        logging.getLogger("dagster-webserver").exception("The end of entry %d is missing in the audit log", number)


def _sign(arguments: dict[str, Any], user: str) -> None:
    """Put the name of the user at the runs that a mutation starts, whatever name the request has put there."""
    tag = {"key": USER_TAG, "value": user}
    for params in [arguments.get("executionParams"), *(arguments.get("executionParamsList") or [])]:
        if params:
            metadata = params.get("executionMetadata") or {}
            params["executionMetadata"] = {**metadata, "tags": [*(metadata.get("tags") or []), tag]}
    again = arguments.get("reexecutionParams")
    if again:
        again["extraTags"] = [*(again.get("extraTags") or []), tag]


def _outcome(result: Any) -> str:
    """What the answer was: the name of its type in GraphQL."""
    meta = getattr(result, "_meta", None)
    return meta.name if meta else "done"


def _runs(result: Any) -> Iterator[str]:
    """The runs that an answer names."""
    run = getattr(result, "run", None)
    if run is not None and hasattr(run, "runId"):
        yield run.runId
    deleted = getattr(result, "runId", None)
    if isinstance(deleted, str):
        yield deleted
    for several in ("launchMultipleRunsResult", "terminateRunResults"):
        for each in getattr(result, several, None) or ():
            yield from _runs(each)
    yield from getattr(result, "launched_run_ids", None) or ()


def _told(result: Any) -> Iterator[tuple[str, str]]:
    """What an answer names beside runs: the backfill, or the sensor or schedule of which the request had only an id."""
    backfill = getattr(result, "backfill_id", None)
    if isinstance(backfill, str):
        yield "backfill", backfill
    state = getattr(getattr(result, "scheduleState", result), "_instigator_state", None)
    if state is not None:
        yield "name", state.instigator_name


def _reported(request: Request, body: bytes) -> dict[str, Any]:
    """What a reported event is about. Dagster takes each value from the path, the body or the query."""
    try:
        sent = json.loads(body) if body else {}
    except ValueError:
        sent = {}
    sent = sent if isinstance(sent, dict) else {}
    found = {**request.query_params, **sent}
    key = request.path_params.get("asset_key") or found.get("asset_key")
    asset = "/".join(map(str, key)) if isinstance(key, list) else key
    told = {"asset": asset, **{name: found.get(name) for name in ("partition", "check_name", "passed")}}
    return {name: value if isinstance(value, bool) else str(value)[:300] for name, value in told.items() if value}


def serve(arguments: Sequence[str], database: Database, gate: Callable[[ASGIApp, str], ASGIApp]) -> None:
    """Run Dagster's web server behind a gate, until it is ended.

    Args:
        arguments: Those of `dagster-webserver`.
        database: Where users and log are.
        gate: Makes the app before Dagster's one, which is its first argument; the second is its path prefix.
    """

    def create_app(
        process_context: WorkspaceProcessContext, path_prefix: str, live_data_poll_rate: int | None, **options: Any
    ) -> ASGIApp:
        # In ms, for one statement. A page asks several at once, one after another.
        statement: int = click.get_current_context().params["db_statement_timeout"]
        seconds = _STATEMENTS * statement / 1000
        server = _WebServer(database, seconds, process_context, path_prefix, live_data_poll_rate)
        return gate(server.create_asgi_app(**options), path_prefix)

    # Its command takes all options, opens the instance and the workspace, and then calls this.
    cast(Any, cli).create_app_from_workspace_process_context = create_app
    # Then it calls this, with an address and nothing else.
    cast(Any, uvicorn).run = partial(uvicorn.run, http=TimelyRequests, ws_max_size=_LONGEST_MESSAGE)
    cli.dagster_webserver.main(list(arguments), "dedp webserver", auto_envvar_prefix="DAGSTER_WEBSERVER")
