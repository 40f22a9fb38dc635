"""What of Dagster is not public, and the sign-in needs. After an update, these tests say what is to be decided."""

import inspect
from pathlib import Path
from typing import Any

import dagster_webserver
import pytest
from dagster._core.workspace.context import BaseWorkspaceRequestContext, WorkspaceRequestContext
from dagster._core.workspace.permissions import Permissions
from dagster_graphql.schema import create_schema
from dagster_webserver import cli
from dagster_webserver.webserver import DagsterWebserver
from graphql import is_input_object_type, parse, validate
from starlette.routing import Route

from dedp_assets.sign_in.roles import Role, may, role_for_mutation
from tests.sign_in.mutations import ARGUMENTS, FOR_ALL, document

SCHEMA = create_schema().graphql_schema


def test_each_mutation_of_this_dagster_is_known() -> None:
    """A new one is for admins until it is decided whom it is for."""
    assert SCHEMA.mutation_type
    assert set(SCHEMA.mutation_type.fields) == {*ARGUMENTS, *FOR_ALL}
    assert all(field.resolve for field in SCHEMA.mutation_type.fields.values())


def test_only_mutations_change_something() -> None:
    """The schema has no other place: a subscription streams logs, and a query reads."""
    assert SCHEMA.subscription_type
    assert set(SCHEMA.subscription_type.fields) == {"pipelineRunLogs", "capturedLogs", "locationStateChangeEvents"}


def test_roles_are_made_of_the_permissions_that_this_dagster_has() -> None:
    launcher = {str(permission) for permission in Permissions if may(Role.launcher, str(permission))}
    assert launcher == {
        "launch_pipeline_execution",
        "launch_pipeline_reexecution",
        "terminate_pipeline_execution",
        "launch_partition_backfill",
        "cancel_partition_backfill",
        "report_runless_asset_events",
    }
    assert not [permission for permission in Permissions if may(Role.viewer, str(permission))]
    assert all(may(Role.admin, str(permission)) for permission in Permissions)
    assert {name for name in ARGUMENTS if role_for_mutation(name) == Role.viewer} == set()
    assert {role_for_mutation(name) for name in FOR_ALL} == {Role.viewer}


def test_the_web_server_has_the_routes_that_were_looked_at() -> None:
    """A new one is behind the sign-in. If it changes something by GET, somebody has to decide who may."""
    server: Any = DagsterWebserver.__new__(DagsterWebserver)
    server._app_path_prefix = ""
    routes = {
        (route.path, tuple(sorted((route.methods or set()) - {"HEAD"})))
        for route in server.build_routes()
        if isinstance(route, Route) and route.name != "root_static"
    }
    reported = {f"/report_asset_{kind}/{{asset_key:path}}" for kind in ("materialization", "check", "observation")}
    assert {path for path, methods in routes if methods != ("GET",)} == {"/graphql", *reported}
    assert {path for path, methods in routes if methods == ("GET",)} == {
        *("/server_info", "/dagit_info", "/logs/{path:path}", "/notebook", "/dagit/notebook"),
        *("/download_debug/{run_id:str}", "/{path:path}", "/"),
    }


def test_what_is_replaced_is_still_there() -> None:
    assert callable(cli.__dict__["create_app_from_workspace_process_context"])
    assert "uvicorn.run(" in inspect.getsource(cli.host_dagster_ui_with_workspace_process_context)
    # docs/sign_in.md: a query may take four times as long as a statement, which is 60 s.
    [statement] = [each for each in cli.dagster_webserver.params if each.name == "db_statement_timeout"]
    assert statement.default == 15_000
    assert list(inspect.signature(DagsterWebserver._make_request_context).parameters) == ["self", "conn"]
    assert list(inspect.signature(DagsterWebserver.__init__).parameters)[1:4] == [
        *("process_context", "app_path_prefix", "live_data_poll_rate"),
    ]
    ours = (
        "permissions",
        "permissions_for_location",
        "get_viewer_tags",
        "get_reporting_user_tags",
        "show_instance_config",
    )
    for name in ours:
        assert hasattr(BaseWorkspaceRequestContext, name), name
    taken = set(inspect.signature(WorkspaceRequestContext.__init__).parameters)
    assert {"instance", "current_workspace", "process_context", "version", "source", "read_only"} <= taken
    page = Path(dagster_webserver.__file__).parent / "webapp" / "build" / "index.html"
    assert page.read_text(encoding="utf-8").count("</body>") == 1


@pytest.mark.parametrize("mutation", [*ARGUMENTS, *FOR_ALL])
def test_the_mutations_of_these_tests_are_such_that_dagster_executes_them(mutation: str) -> None:
    """One that Dagster does not understand would be refused for that reason."""
    assert validate(SCHEMA, parse(document(mutation, "run", "backfill"))) == []


def test_a_run_config_is_taken_where_we_look_for_environment_variables_in_it_and_nowhere_else() -> None:
    """What a launch takes is looked at. The queries compare a config with its types; only the plan reads it further."""
    found = set()
    for kind in SCHEMA.type_map.values():
        for name, field in getattr(kind, "fields", {}).items():
            for taken in (name, *getattr(field, "args", {})):
                if "config" in taken.lower() and (taken != name or is_input_object_type(kind)):
                    found.add((kind.name, name, taken))
    assert found == {
        ("ExecutionParams", "runConfigData", "runConfigData"),
        ("LaunchBackfillParams", "runConfigData", "runConfigData"),
        ("Query", "isPipelineConfigValid", "runConfigData"),
        ("Query", "executionPlanOrError", "runConfigData"),
        ("RunConfigSchema", "isRunConfigValid", "runConfigData"),
    }
