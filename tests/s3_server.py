"""An S3-compatible server for the test session, and a bucket for each test."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest
import requests

from tests.shared_servers import one_for_all_workers, session_folder

ACCESS_KEY, SECRET_KEY = "AKIAEXAMPLEKEY", "example-secret-key"

# The server ends when its standard input is closed. So it never outlives the tests.
_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
_buckets = count(1)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server for the whole session, in a process of its own."""
    with one_for_all_workers(session_folder(tmp_path_factory), "s3", _server) as url:
        yield url


@contextmanager
def _server() -> Iterator[str]:
    # The server gets no AWS settings of the user. It writes no log, because a full pipe would stop it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DEDP_"))}
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    )
    assert server.stdin
    assert server.stdout
    port = server.stdout.readline().strip()
    assert port, "moto's server did not start: is moto[s3] installed, with flask and flask-cors?"
    yield f"http://127.0.0.1:{port}"
    server.stdin.close()
    assert server.wait(300) == 0


@pytest.fixture(scope="session")
def s3_environment(s3_server: str) -> dict[str, str]:
    """The environment variables that a user of the server needs."""
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ALLOW_HTTP": "true",
    }


@pytest.fixture
def s3_put(s3_server: str, s3_bucket: str) -> Callable[[str, bytes], None]:
    """Writes an object of the test's bucket, as other programs do."""
    import boto3  # most tests do without it

    client = boto3.client("s3", endpoint_url=s3_server)
    bucket = s3_bucket.removeprefix("s3://")

    def put(key: str, content: bytes) -> None:
        client.put_object(Bucket=bucket, Key=key, Body=content)

    return put


@pytest.fixture
def s3_delete(s3_server: str, s3_bucket: str) -> Callable[[str], None]:
    """Deletes an object of the test's bucket."""
    import boto3

    client = boto3.client("s3", endpoint_url=s3_server)
    bucket = s3_bucket.removeprefix("s3://")

    def delete(key: str) -> None:
        client.delete_object(Bucket=bucket, Key=key)

    return delete


@pytest.fixture
def s3_bucket(s3_server: str, s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of the test's own bucket, such as `s3://test-4711-1`. The environment is set for its use."""
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{os.getpid()}-{next(_buckets)}"
    requests.put(f"{s3_server}/{bucket}", timeout=60).raise_for_status()
    return f"s3://{bucket}"
