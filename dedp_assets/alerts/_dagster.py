"""All that the alerts, `dedp doctor` and `dedp metrics` take from Dagster's private parts, and nothing else does.

Dagster has no public way to ask a code server for its error, nor for the state of a sensor or of a freshness policy.
A release may move any of it: tests/dedp_assets/alerts/test_canary.py names what has changed. The tables of Dagster that
are read by SQL are in `observability`.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
from dagster._core.definitions.instigation_logger import get_instigation_log_records
from dagster._core.log_manager import LOG_RECORD_METADATA_ATTR
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
from dagster._core.workspace.load import location_origins_from_yaml_paths
from dagster._grpc.__generated__ import dagster_api_pb2
from dagster._serdes import deserialize_value
from dagster_shared.error import SerializableErrorInfo

# A code server that hangs must not hold up a look: Dagster's own limit is a minute.
_ASK_SECONDS = 10.0

# Where a name of Dagster stands, and the parameters that we call it with. The canary test compares.
TAKEN: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("dagster._core.workspace.load", "location_origins_from_yaml_paths"): ("yaml_paths",),
    ("dagster._core.remote_origin", "GrpcServerCodeLocationOrigin.create_client"): ("self",),
    ("dagster._grpc.client", "DagsterGrpcClient._query"): (
        "self",
        "method",
        "request_type",
        "timeout",
        "custom_timeout_message",
        "kwargs",
    ),
    ("dagster", "DagsterInstance.all_instigator_state"): (
        "self",
        "repository_origin_id",
        "repository_selector_id",
        "instigator_type",
        "instigator_statuses",
    ),
    ("dagster", "DagsterInstance.all_asset_keys"): ("self",),
    ("dagster", "DagsterInstance.get_required_daemon_types"): ("self",),
    ("dagster._core.storage.event_log.base", "EventLogStorage.get_freshness_state_records"): ("self", "keys"),
    ("dagster._core.storage.event_log.base", "EventLogStorage.alembic_version"): ("self",),
    ("dagster._core.definitions.instigation_logger", "get_instigation_log_records"): ("instance", "log_key"),
}


class StoredInstigator(NamedTuple):
    """A sensor or a schedule that is on, as Dagster's instance has it. `cursor`: what its last tick has stored."""

    location: str
    name: str
    kind: str
    selector_id: str
    cursor: str | None


def instigators_that_are_on(instance: dg.DagsterInstance) -> Iterator[StoredInstigator]:
    """The sensors and schedules that are on."""
    for state in instance.all_instigator_state():
        if state.status.value != "STOPPED":
            yield StoredInstigator(
                state.origin.repository_origin.code_location_origin.location_name,
                state.name,
                "schedule" if state.instigator_type.value == "SCHEDULE" else "sensor",
                state.selector_id,
                getattr(state.instigator_data, "cursor", None),
            )


def freshness(instance: dg.DagsterInstance) -> dict[str, str]:
    """The state of each asset that has a freshness policy, as Dagster's freshness daemon has found it."""
    records = instance.event_log_storage.get_freshness_state_records(instance.all_asset_keys())
    return {
        key.to_user_string(): record.freshness_state.value
        for key, record in records.items()
        if record.freshness_state.value != "NOT_APPLICABLE"
    }


def logged_errors(instance: dg.DagsterInstance, log_key: Sequence[str]) -> list[str]:
    """What a tick has logged as errors; nothing if its log is where this process can't read it."""
    try:
        records = get_instigation_log_records(instance, log_key)
    except Exception:  # of whatever keeps the logs
        return []
    logged = [record for record in records if record.get("levelno", 0) >= logging.ERROR]
    return [record.get(LOG_RECORD_METADATA_ATTR, {}).get("orig_message") or record.get("msg", "") for record in logged]


def broken_locations(workspace: Path, seconds: float = _ASK_SECONDS) -> dict[str, str]:
    """Why code locations can't be loaded, by location. Only locations with a code server are asked.

    Args:
        workspace: The workspace.yaml that names them.
        seconds: How long each of them may take to answer.
    """
    origins = [
        origin
        for origin in location_origins_from_yaml_paths([str(workspace)])
        if isinstance(origin, GrpcServerCodeLocationOrigin)
    ]
    if not origins:
        return {}
    with ThreadPoolExecutor(max_workers=len(origins)) as asking:
        errors = list(asking.map(lambda origin: _error_of(origin, seconds), origins))
    return {origin.location_name: error for origin, error in zip(origins, errors, strict=True) if error is not None}


def _error_of(origin: GrpcServerCodeLocationOrigin, seconds: float) -> str | None:
    try:
        client: Any = origin.create_client()
        said = client._query("ListRepositories", dagster_api_pb2.ListRepositoriesRequest, timeout=seconds)
        answer = deserialize_value(said.serialized_list_repositories_response_or_error)
    except Exception as error:  # gRPC's, or Dagster's own around them
        return f"its code server does not answer: {error}"
    return answer.message if isinstance(answer, SerializableErrorInfo) else None
