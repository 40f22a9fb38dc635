"""A client for other systems: starts a job over HTTP, with checked parameters, and once for each request.

It needs this module, `errors`, `origin` and `request_ids`, and the address of Dagster's web server.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pydantic
import requests

from dedp_assets.errors import PermanentError, TransientError
from dedp_assets.origin import origin_tag
from dedp_assets.request_ids import request_tag

_LAUNCH = """
    mutation ($run: ExecutionParams!) {
        launchRun(executionParams: $run) {
            __typename
            ... on LaunchRunSuccess { run { runId } }
            ... on RunConfigValidationInvalid { errors { message } }
            ... on PythonError { message errorChain { error { message } } }
            ... on Error { message }
        }
    }
"""
_RUNS = """
    query ($tag: ExecutionTag!) {
        runsOrError(filter: {tags: [$tag]}) {
            __typename
            ... on Runs { results { runId status } }
            ... on Error { message }
        }
    }
"""
_PARTITIONS = """
    query ($assets: [AssetKeyInput!]) {
        assetNodes(assetKeys: $assets) { partitionKeysByDimension { name partitionKeys } }
    }
"""
_TERMINATE = "mutation ($run: String!) { terminateRun(runId: $run) { __typename } }"

# Of a run that does not count: its request may be sent again.
_ENDED_BADLY = ("FAILURE", "CANCELED", "CANCELING")


# Dagster puts the class of an error before its text.
_CLASS = re.compile(r"^(\w+\.)+\w+: ")


class LaunchRefused(PermanentError):
    """The request is wrong: an unknown user, job or partition, or a parameter that is not valid. There is no run."""


class WebServerUnavailable(TransientError):
    """Dagster's web server does not answer, or not as expected. Send the same request again, with the same id."""


@dataclass(frozen=True)
class Job:
    """Which job to start, and where.

    Attributes:
        url: The address of the web server, such as `http://127.0.0.1:3000`.
        sign_in: An API token of `dedp users token`, or a name and a password. The user needs the role launcher.
        location: The code location, such as `jobs.client_uploads`.
        name: The job. By default the one that has all assets of the location.
        assets: The keys of the assets to materialize, such as `uploads/report`. Without them, all assets of the job.
        partition: The partition, if the assets have partitions. It is checked if the assets are named.
    """

    url: str
    location: str
    name: str = "__ASSET_JOB"
    assets: Sequence[str] = ()
    partition: str | None = None
    sign_in: str | tuple[str, str] | None = field(default=None, repr=False)


class Launched(NamedTuple):
    """The run that does the work of a request.

    Attributes:
        run_id: Its id.
        is_new: Whether this call has started it. If not, an earlier call with the same request id has.
    """

    run_id: str
    is_new: bool


def launch(
    job: Job,
    config: pydantic.BaseModel | Mapping[str, Any] | None = None,
    *,
    request_id: str,
    tags: Mapping[str, str] | None = None,
    timeout_seconds: float = 120,
) -> Launched:
    """Start a job, unless a run of the same request exists already.

    A run that failed or was canceled does not count, so a request may be sent again after it.

    Args:
        job: The job.
        config: The config of the job. Dagster checks it before there is a run.
        request_id: What identifies the request, such as the number of an order. Send it again with the same id if you
            have got no answer.
        tags: More tags of the run.
        timeout_seconds: How long to wait for each answer.

    Raises:
        LaunchRefused: The web server does not know the user, or the user may not launch; the job or the partition does
            not exist; or the config is not valid.
        WebServerUnavailable: There is no answer. A run may have been started nevertheless; the same id finds it.
    """
    server = _Server(job.url, job.sign_in, timeout_seconds)
    before = _run_of(server, request_id)
    if before:
        return Launched(before, False)
    _check_partition(server, job)
    own = _start(server, job, config, {**(tags or {}), **origin_tag("http"), **request_tag(request_id)})
    # Two calls may have found no run, and started one each. The one that Dagster has stored first stays.
    first = _run_of(server, request_id) or own
    if first != own:
        server.ask(_TERMINATE, run=own)
    return Launched(first, first == own)


def _check_partition(server: "_Server", job: Job) -> None:
    """Refuse a partition that does not exist: Dagster would start a run, which fails."""
    if job.partition is None or not job.assets:
        return
    keys = [{"path": key.split("/")} for key in job.assets]
    for node in server.ask(_PARTITIONS, assets=keys)["assetNodes"]:
        dimensions = node["partitionKeysByDimension"]
        values = job.partition.split("|") if len(dimensions) > 1 else [job.partition]
        if len(values) != len(dimensions):
            names = "|".join(dimension["name"] for dimension in dimensions)
            raise LaunchRefused(f"partition {job.partition!r} was not started: expected {names or 'no partition'}")
        for value, dimension in zip(values, dimensions, strict=True):
            known = dimension["partitionKeys"]
            if value not in known:
                expected = ", ".join(known) if len(known) <= 20 else f"one of {known[0]} to {known[-1]}"
                raise LaunchRefused(
                    f"partition {job.partition!r} was not started: {dimension['name']} {value!r} does not exist; "
                    f"expected {expected}"
                )


def _start(
    server: "_Server", job: Job, config: pydantic.BaseModel | Mapping[str, Any] | None, tags: Mapping[str, str]
) -> str:
    if job.partition is not None:
        tags = {**tags, "dagster/partition": job.partition}
    selector: dict[str, Any] = {
        "repositoryLocationName": job.location,
        "repositoryName": "__repository__",
        "jobName": job.name,
    }
    if job.assets:
        selector["assetSelection"] = [{"path": key.split("/")} for key in job.assets]
    params = {
        "selector": selector,
        "runConfigData": config.model_dump(mode="json") if isinstance(config, pydantic.BaseModel) else config or {},
        "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
    }
    answer = server.ask(_LAUNCH, run=params)["launchRun"]
    if answer["__typename"] == "LaunchRunSuccess":
        return str(answer["run"]["runId"])
    raise LaunchRefused(f"{job.name} of {job.location} was not started: {'; '.join(_reasons(answer))}")


def _reasons(answer: Mapping[str, Any]) -> list[str]:
    """What Dagster says about a request that it refuses, without tracebacks."""
    if "errors" in answer:
        return [error["message"] for error in answer["errors"]]
    chain = answer.get("errorChain")
    message = chain[-1]["error"]["message"] if chain else answer.get("message") or answer["__typename"]
    return [_CLASS.sub("", message.strip())]


def _run_of(server: "_Server", request_id: str) -> str | None:
    """The run that was stored first, of those that do or have done the work of a request."""
    ((key, value),) = request_tag(request_id).items()
    answer = server.ask(_RUNS, tag={"key": key, "value": value})["runsOrError"]
    if answer["__typename"] != "Runs":
        raise WebServerUnavailable(f"{server.url}: {answer.get('message', answer['__typename'])}")
    # The latest one comes first.
    counted = [run["runId"] for run in answer["results"] if run["status"] not in _ENDED_BADLY]
    return counted[-1] if counted else None


class _Server(NamedTuple):
    url: str
    sign_in: str | tuple[str, str] | None
    timeout_seconds: float

    def ask(self, query: str, **variables: Any) -> Mapping[str, Any]:
        """The data of the answer."""
        try:
            response = requests.post(
                f"{self.url.rstrip('/')}/graphql",
                json={"query": query, "variables": variables},
                timeout=self.timeout_seconds,
                **self._credentials(),
            )
            if response.status_code == 401:
                raise LaunchRefused(f"the web server at {self.url} asks who you are; give the Job a `sign_in` it knows")
            answer = response.json()
        except (requests.RequestException, ValueError) as error:
            raise WebServerUnavailable(
                f"Dagster's web server at {self.url} does not answer ({type(error).__name__}). Is it up, and is this "
                "its address? Send the same request again"
            ) from None
        if answer.get("errors") or not isinstance(answer.get("data"), dict):
            raise WebServerUnavailable(f"{self.url} answered {response.status_code}: {answer.get('errors')}")
        return dict(answer["data"])

    def _credentials(self) -> Mapping[str, Any]:
        if isinstance(self.sign_in, str):
            return {"headers": {"Authorization": f"Bearer {self.sign_in}"}}
        return {"auth": self.sign_in} if self.sign_in else {}
