"""Tables in an object store are as safe as in a folder. Files beside them are complete, or do not exist."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from dedp_assets.errors import SettingError
from dedp_assets.resources import object_store
from dedp_assets.resources.object_store import (
    DamagedFile,
    StorageProblem,
    read_text,
    storage_options,
    write_bytes,
    write_text,
)

SECRET = "a-secret-that-nobody-may-see"
DAY = "event_time = '2024-01-02'"


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the user's own variables."""
    for name in os.environ:
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_")):
            monkeypatch.delenv(name)


def counts(day: str, *numbers: int) -> pa.Table:
    return pa.table({"count": list(numbers), "event_time": [day] * len(numbers)})


def rows(uri: str) -> list[tuple[str, int]]:
    table = DeltaTable(uri, storage_options=storage_options(uri)).to_pyarrow_table().to_pylist()
    return sorted((row["event_time"], row["count"]) for row in table)


def once(version: int) -> CommitProperties:
    """Make the properties of a commit that records its input version, and is not retried after a conflict."""
    return CommitProperties(max_commit_retries=0, app_transactions=[Transaction("input", version)])


@pytest.mark.parametrize("uri", ["/data/lake/devices", "lake", "file:///data/lake"])
def test_a_table_in_a_folder_needs_no_options(uri: str) -> None:
    assert storage_options(uri) == {}


def test_a_table_in_s3_is_made_appended_to_and_overwritten_by_predicate_with_its_input_version(s3_bucket: str) -> None:
    uri = f"{s3_bucket}/lake/device_counts"
    options = storage_options(uri)
    write_deltalake(uri, counts("2024-01-02", 1), partition_by="event_time", storage_options=options)
    write_deltalake(uri, counts("2024-01-03", 2, 3), mode="append", storage_options=options)
    write_deltalake(
        uri,
        counts("2024-01-02", 4, 5),
        mode="overwrite",
        predicate=DAY,
        commit_properties=once(17),
        storage_options=options,
    )
    assert rows(uri) == [("2024-01-02", 4), ("2024-01-02", 5), ("2024-01-03", 2), ("2024-01-03", 3)]
    table = DeltaTable(uri, storage_options=options)
    assert (table.version(), table.transaction_version("input")) == (2, 17)


def test_of_two_writers_of_one_partition_in_s3_the_second_fails_and_changes_nothing(s3_bucket: str) -> None:
    uri = f"{s3_bucket}/device_counts"
    write_deltalake(uri, counts("2024-01-02", 1), partition_by="event_time", storage_options=storage_options(uri))
    one, other = (DeltaTable(uri, storage_options=storage_options(uri)) for _ in range(2))
    write_deltalake(one, counts("2024-01-02", 2), mode="overwrite", predicate=DAY, commit_properties=once(1))
    with pytest.raises(CommitFailedError):
        write_deltalake(other, counts("2024-01-02", 3), mode="overwrite", predicate=DAY, commit_properties=once(2))
    assert rows(uri) == [("2024-01-02", 2)]
    table = DeltaTable(uri, storage_options=storage_options(uri))
    assert (table.version(), table.transaction_version("input")) == (1, 1)


def test_nobody_can_ask_for_unsafe_commits_in_s3(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_S3_ALLOW_UNSAFE_RENAME", "true")
    test_of_two_writers_of_one_partition_in_s3_the_second_fails_and_changes_nothing(s3_bucket)


def test_the_options_of_s3_are_those_of_the_storage_config(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    monkeypatch.delenv("AWS_REGION")
    assert storage_options("s3://bucket/lake") == {
        "provider": "s3",
        "access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
        "secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
        "token": "token",
        "region": "eu-north-1",
        "endpoint": os.environ["AWS_ENDPOINT_URL"],
        "imdsv1_fallback": "False",
        "allow_http": "True",
    }
    # delta-rs finds other credentials itself: a profile, or a role of the machine.
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    assert storage_options("s3://bucket/lake") == {"provider": "s3", "imdsv1_fallback": "False"}


# It runs in its own process: the file system of delta-rs holds Python's lock while it waits for an answer.
_RECORDER = """
import sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Recorder(BaseHTTPRequestHandler):
    def do_GET(self):
        print(self.path, self.headers.get("Authorization", "nobody"), flush=True)
        self.send_error(404)
server = ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
print(server.server_port, flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
"""


class Recorder:
    """A server that has no file, and tells which requests it gets."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", _RECORDER]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        self.url = f"http://127.0.0.1:{self._line()}"

    def asked(self) -> list[str]:
        """Return the path and the header Authorization of the next request."""
        return self._line().split(" ", 1)

    def stop(self) -> None:
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    server = Recorder()
    yield server
    server.stop()


def test_a_file_in_azure_is_asked_for_with_the_account_of_the_uri_and_its_key(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", recorder.url)
    monkeypatch.setenv("AZURE_ALLOW_HTTP", "true")
    monkeypatch.setenv("AZURE_STORAGE_ACCESS_KEY", "c2VjcmV0")
    assert storage_options("abfss://lake@shop.dfs.core.windows.net/some")["account_key"] == "c2VjcmV0"
    assert read_text("abfss://lake@shop.dfs.core.windows.net/some/file.json") is None
    path, authorization = recorder.asked()
    assert path == "/lake/some/file.json"
    assert authorization.startswith("SharedKey shop:")


def test_a_file_in_googles_store_is_asked_for_with_the_service_account(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    account = {"client_email": "", "private_key": "", "private_key_id": "", "disable_oauth": True}
    (tmp_path / "account.json").write_text(json.dumps({**account, "gcs_base_url": recorder.url}))
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
    monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
    assert storage_options("gs://lake/some")["service_account"] == str(tmp_path / "account.json")
    assert read_text("gs://lake/some/file.json") is None
    assert recorder.asked()[0] == "/lake/some%2Ffile%2Ejson"


@pytest.mark.parametrize(
    ("uri", "variables", "message"),
    [
        ("hdfs://me:{secret}@host/lake", {}, "DEDP_DATA_URI begins with hdfs://; expected a folder, s3://bucket/"),
        ("s3:///lake", {}, "s3:///lake names no bucket"),
        ("s3://lake/x", {"AWS_ENDPOINT_URL": "http://store:9000"}, "AWS_ALLOW_HTTP=true if you trust the network"),
        ("s3://lake/x", {"AWS_ALLOW_HTTP": "ja"}, "AWS_ALLOW_HTTP is 'ja'; expected true or false"),
        ("az://lake/x", {}, "az://lake/x names no storage account and AZURE_STORAGE_ACCOUNT_NAME is not set"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, uri: str, variables: dict[str, str], message: str
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "GOOGLE_SERVICE_ACCOUNT_KEY"):
        monkeypatch.setenv(name, SECRET)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingError) as refused:
        storage_options(uri.format(secret=SECRET))
    assert message in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that does not exist yet, or a place in a bucket."""
    return str(tmp_path / "lake") if request.param == "folder" else f"{request.getfixturevalue('s3_bucket')}/la ke"


def test_a_small_file_is_read_as_it_was_written_and_a_missing_one_is_none(place: str) -> None:
    uri = f"{place}/backfilling_configuration_2024-01-03.json"
    assert read_text(uri) is None
    for text in ('{"partitions": ["naïve"]}\r\n', "x" * object_store.SMALL):
        write_text(uri, text)
        assert read_text(uri) == text
    assert read_text(f"{place}/backfilling_configuration_2024-01-04.json") is None
    picture = bytes(range(256))
    write_bytes(uri, picture)
    with pytest.raises(DamagedFile, match="is not UTF-8 text"):
        read_text(uri)


@pytest.mark.parametrize("text", ["", "x" * (object_store.SMALL + 1)])
def test_a_file_is_neither_empty_nor_large(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=rf"file\.json: expected 1 to 16777216 bytes, found {len(text)}"):
        write_text(str(tmp_path / "file.json"), text)
    assert list(tmp_path.iterdir()) == []


def test_a_small_file_stands_at_the_top_of_a_bucket_as_well(s3_bucket: str) -> None:
    write_text(f"{s3_bucket}/file.json", "{}")
    assert read_text(f"{s3_bucket}/file.json") == "{}"


_WRITE = """
import itertools, os, sys
from dedp_assets.resources.object_store import write_text
for letter in itertools.cycle("abcd"):
    write_text(sys.argv[1], letter * 300_000)
    if os.getppid() != int(sys.argv[2]):
        break
"""


def test_a_reader_sees_the_old_file_or_the_new_one_and_never_a_part(place: str) -> None:
    uri, whole = f"{place}/file.json", {letter * 300_000 for letter in "abcd"}
    write_text(uri, "a" * 300_000)
    writer = subprocess.Popen([sys.executable, "-c", _WRITE, uri, str(os.getpid())])
    seen: set[str | None] = set()
    reads = 0
    while seen <= whole and not (seen == whole and reads > 100):
        assert writer.poll() is None
        seen.add(read_text(uri))
        reads += 1
    writer.kill()
    writer.wait()
    assert seen == whole


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "file.json")
    write_text(uri, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageProblem, match=r"file\.json can't be written: No space left on device; check the folder"):
        write_text(uri, "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file.json", "old")]


def test_a_file_that_cannot_be_read_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(StorageProblem, match=r"folder\.json can't be read: Is a directory"):
        read_text(str(tmp_path / "folder.json"))
    (tmp_path / "binary.json").write_bytes(b"{\xff}")
    with pytest.raises(DamagedFile, match=r"binary\.json is not UTF-8 text \(byte 1\)"):
        read_text(str(tmp_path / "binary.json"))


@pytest.mark.parametrize(("use", "done"), [(read_text, "read"), (lambda uri: write_text(uri, "{}"), "written")])
def test_a_bucket_that_is_not_there_is_named_in_one_line_without_colours(
    s3_bucket: str, use: Callable[[str], object], done: str
) -> None:
    with pytest.raises(StorageProblem) as problem:
        use("s3://nowhere/file.json")
    message = str(problem.value)
    assert message.startswith(f"s3://nowhere/file.json can't be {done}: ")
    assert message.endswith(
        "NoSuchBucket: The specified bucket does not exist; check the bucket, the credentials and the network"
    )
    assert not {"\n", "\x1b", "<"} & set(message)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in message


def test_a_refused_request_is_told_without_what_was_signed() -> None:
    error = OSError(
        "Generic S3 error\n \x1b[31m↳\x1b[0m 403 Forbidden\n  <?xml version='1.0'?>\n<Error><Code>SignatureDoesNotMatch"
        f"</Code><Message>Wrong signature.</Message><CanonicalRequest>x-amz-security-token:{SECRET}</CanonicalRequest>"
        "</Error>"
    )
    assert object_store.reason(error) == "Generic S3 error: 403 Forbidden: SignatureDoesNotMatch: Wrong signature"
