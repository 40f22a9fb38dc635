"""Delta tables and the small files beside them, in a folder or in an object store.

A URI is a path, `s3://bucket/...`, `gs://bucket/...` or `abfss://container@account.dfs.core.windows.net/...`.
Credentials come from the environment's standard variables, by way of dagster-deltalake's storage configs.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from urllib.parse import unquote, urlsplit

from dedp_assets.errors import PermanentError, SettingError, TransientError
from dedp_assets.whole_files import write_whole

if TYPE_CHECKING:
    from dagster_deltalake.config import AzureConfig, GcsConfig, S3Config
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

    Config: TypeAlias = S3Config | GcsConfig | AzureConfig

# The variables that fill each field of a storage config. The first variable that is set counts. delta-rs itself reads
# others from the environment, such as AWS_PROFILE or AZURE_STORAGE_ENDPOINT.
_S3 = {
    "access_key_id": ("AWS_ACCESS_KEY_ID",),
    "secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
    "token": ("AWS_SESSION_TOKEN",),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
}
_GCS = {
    "service_account": ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"),
    "service_account_key": ("GOOGLE_SERVICE_ACCOUNT_KEY",),
    "application_credentials": ("GOOGLE_APPLICATION_CREDENTIALS",),
}
_AZURE = {
    "account_key": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY"),
    "sas_key": ("AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN"),
    "token": ("AZURE_STORAGE_TOKEN",),
    "client_id": ("AZURE_STORAGE_CLIENT_ID", "AZURE_CLIENT_ID"),
    "client_secret": ("AZURE_STORAGE_CLIENT_SECRET", "AZURE_CLIENT_SECRET"),
    "tenant_id": ("AZURE_STORAGE_TENANT_ID", "AZURE_TENANT_ID"),
    "federated_token_file": ("AZURE_FEDERATED_TOKEN_FILE",),
}

# The size in bytes of the largest file that read_text and write_text accept.
SMALL = 16 << 20
# How many objects a store lists in one answer.
PAGE = 1000

_S3_SCHEMES = ("s3", "s3a")
_AZURE_SCHEMES = ("abfss", "abfs", "az")


class StorageProblem(TransientError):
    """The folder or the object store does not let us read or write a file.

    It may be full, unreachable or closed to us: the message names the file, the reason and what to check.
    """


class DamagedFile(PermanentError):
    """A small file has content that `write_text` never writes."""


def storage_options(uri: str) -> dict[str, str]:
    """Return the options with which delta-rs reaches a URI; none for a path. They hold secrets: never log them.

    Raises:
        SettingError: the kind of store is not supported, or a variable has a value that cannot be used.
    """
    if _is_local(uri):
        return {}
    parts = urlsplit(uri)
    if not parts.netloc:
        raise SettingError(f"{uri} names no bucket; expected DEDP_DATA_URI to be such as s3://bucket/folder")
    # Not at the top: this import takes a second, and a local table does not need it.
    from dagster_deltalake.config import AzureConfig, ClientConfig, GcsConfig, S3Config

    config: Config
    if parts.scheme in _S3_SCHEMES:
        # The config always sets imdsv1_fallback, and that would overrule the variable.
        config = S3Config(**_found(_S3), imdsv1_fallback=_switch("AWS_IMDSV1_FALLBACK") or False)
        client = ClientConfig(allow_http=_switch("AWS_ALLOW_HTTP"))
        _check_endpoint(config.endpoint, client.allow_http)
    elif parts.scheme == "gs":
        config = GcsConfig(**_found(_GCS))
        client = ClientConfig(allow_http=_switch("GOOGLE_ALLOW_HTTP"))
    elif parts.scheme in _AZURE_SCHEMES:
        cli = _switch("AZURE_USE_AZURE_CLI")
        config = AzureConfig(**_found(_AZURE), account_name=_account_name(uri), use_azure_cli=cli)
        client = ClientConfig(allow_http=_switch("AZURE_ALLOW_HTTP"))
    else:
        # Do not show the URI: it may hold a password.
        raise SettingError(
            f"DEDP_DATA_URI begins with {parts.scheme}://; "
            "expected a folder, s3://bucket/..., gs://bucket/... or abfss://container@account.dfs.core.windows.net/..."
        )
    return {**config.str_dict(), **client.str_dict()}


def write_text(uri: str, text: str) -> None:
    """Write a small file in one step: readers see the old file or the new one. Create missing folders.

    Args:
        uri: the path or the URI of the file.
        text: 1 to SMALL bytes in UTF-8.

    Raises:
        StorageProblem: the file cannot be written.
        SettingError: see `storage_options`.
        ValueError: the text is empty or too large.
    """
    write_bytes(uri, text.encode("utf-8"))


def write_bytes(uri: str, content: bytes) -> None:
    """Write a small file of 1 to SMALL bytes. Raises the errors of `write_text`."""
    if not 0 < len(content) <= SMALL:
        raise ValueError(f"{uri}: expected 1 to {SMALL} bytes, found {len(content)}")
    try:
        if _is_local(uri):
            path = _path(uri)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
        else:
            _put(uri, content)
    except OSError as error:
        raise StorageProblem(f"{uri} can't be written: {reason(error)}; {_what_to_check(uri)}") from error


def read_text(uri: str) -> str | None:
    """Return the text of a small file in UTF-8 as one write left it, or None if the file does not exist.

    Raises:
        StorageProblem: the file cannot be read, or its bucket does not exist.
        DamagedFile: the file is not text in UTF-8.
        SettingError: see `storage_options`.
    """
    try:
        content = _path(uri).read_bytes() if _is_local(uri) else _get(uri)
        return content.decode("utf-8")
    except OSError as error:
        # Stores answer 'not found' for a missing file and for a missing bucket. Only the code in the text differs.
        bucket_is_missing = any(code in str(error) for code in ("NoSuchBucket", "ContainerNotFound"))
        if isinstance(error, FileNotFoundError) and not bucket_is_missing:
            return None
        raise StorageProblem(f"{uri} can't be read: {reason(error)}; {_what_to_check(uri)}") from error
    except UnicodeDecodeError as error:
        raise DamagedFile(
            f"{uri} is not UTF-8 text (byte {error.start}), and we write only UTF-8; find out who has overwritten it"
        ) from error


class StoredObject(NamedTuple):
    """What a store says of a version of an object.

    Attributes:
        size: In bytes.
        modified_ns: When it was written, in ns since the epoch. Always whole seconds: some stores tell more in a
            listing, and none does in the answer to a download.
        etag: What the store names the version by, without quotes. "" if it does not.
    """

    size: int
    modified_ns: int
    etag: str


class ObjectChanged(TransientError):
    """An object is not, or not any more, in the version that was asked for."""


class Listed(NamedTuple):
    """The objects below a prefix up to the next slash, by name, and whether there are others beyond that slash."""

    objects: dict[str, StoredObject]
    has_folders: bool


class Page(NamedTuple):
    """Objects below a prefix in the order of the store, also those beyond the next slash; `is_last`: none follow."""

    objects: dict[str, StoredObject]
    is_last: bool


def list_objects(uri: str) -> Listed:
    """List the objects below a URI up to the next slash, as a folder lists its files. No such object: no entry.

    Args:
        uri: Without a slash at its end.

    Raises:
        StorageProblem: The store does not answer, the bucket does not exist, or we may not list it.
        SettingError: See `storage_options`.
    """
    with _storage_problems(f"{uri} can't be listed", uri):
        found = _folder(uri).list_with_delimiter()
    return Listed(_by_name(found["objects"]), bool(found["common_prefixes"]))


def list_page(uri: str, after: str) -> Page:
    """List up to PAGE objects whose names come after a name, in one request; `after`: "" to begin.

    Raises the errors of `list_objects`.
    """
    with _storage_problems(f"{uri} can't be listed", uri):
        chunks = _folder(uri).list(offset=after or None, chunk_size=PAGE)
        found: Sequence[ObjectMeta] = next(iter(chunks), [])
    return Page(_by_name(found), len(found) < PAGE)


def lists_from_a_name(uri: str) -> bool:
    """Whether the store can begin a listing after a name. Others would list all that comes before it, too."""
    return urlsplit(uri).scheme in (*_S3_SCHEMES, "gs")


def stat_object(uri: str, name: str) -> StoredObject | None:
    """Ask for one object of a folder. Returns None if it does not exist; raises the errors of `list_objects`."""
    try:
        with _storage_problems(f"{uri}/{name} can't be read", uri):
            return _stored(_folder(uri).head(name))
    except StorageProblem as problem:
        if isinstance(problem.__cause__, FileNotFoundError):
            return None
        raise


def read_object(uri: str, name: str, version: StoredObject, part_bytes: int = 8 << 20) -> Iterator[bytes]:
    """Read one version of an object, a part per request.

    Raises:
        ObjectChanged: There is another version now, or none. The parts before may be of the one that was asked for.
        StorageProblem: See `list_objects`.
    """
    store = _folder(uri)
    for start in range(0, version.size, part_bytes):
        end = min(start + part_bytes, version.size)
        try:
            with _storage_problems(f"{uri}/{name} can't be read", uri):
                part = store.get(name, options={"range": (start, end)})
                content = bytes(part.bytes())
        except StorageProblem as problem:
            now = stat_object(uri, name)  # shorter, it has no such part
            if now == version:
                raise
            raise ObjectChanged(f"{uri}/{name} was replaced or deleted while it was read") from problem
        # Not by a condition in the request: not all servers that speak these protocols heed it.
        if _stored(part.meta) != version:
            raise ObjectChanged(f"{uri}/{name} was replaced while it was read")
        yield content


def upload(uri: str, name: str, source: Path) -> None:
    """Write an object from a file of any size, as a whole. Raises the errors of `list_objects`."""
    with _storage_problems(f"{uri}/{name} can't be written", uri):
        _folder(uri).put(name, source)


def is_object_store(uri: str) -> bool:
    """Whether a text is the URI of an object store, and not a path."""
    return not _is_local(uri)


def problem_of_uri(uri: str) -> str:
    """Why a URI can't be that of a folder in an object store, in words, or ""."""
    parts = urlsplit(uri)
    if parts.scheme not in (*_S3_SCHEMES, "gs", *_AZURE_SCHEMES):
        # Not the URI itself: it may hold a password.
        return f"begins with {parts.scheme}://; expected a path, or s3://, gs:// or abfss://"
    if not parts.netloc:
        return f"{uri} names no bucket; expected such as s3://bucket/folder/"
    if parts.query or parts.fragment:
        return f"{uri} has a ? or a # in it; expected such as s3://bucket/folder/"
    return ""


def _by_name(objects: "Iterable[ObjectMeta]") -> dict[str, StoredObject]:
    # The object with no name is the folder itself, as some programs make one.
    return {each["path"]: _stored(each) for each in objects if each["path"]}


def _stored(found: "ObjectMeta") -> StoredObject:
    # In a listing, some stores leave out the quotes around the ETag.
    etag = (found["e_tag"] or "").removeprefix("W/").strip('"')
    return StoredObject(found["size"], int(found["last_modified"].timestamp()) * 1_000_000_000, etag)


@contextmanager
def _storage_problems(what: str, uri: str) -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError) as error:
        raise StorageProblem(f"{what}: {reason(error)}; {_what_to_check(uri)}") from error


def _folder(uri: str) -> "ObjectStore":
    return _cached_folder(uri, tuple(sorted(storage_options(uri).items())))


@lru_cache(1024)
def _cached_folder(uri: str, options: tuple[tuple[str, str], ...]) -> "ObjectStore":
    # Kept, with its connections: a new one for each tick would greet the store anew.
    # Not delta-rs, which uses the same library below: it hands on neither the ETag nor a listing's beginning.
    from obstore.exceptions import BaseError
    from obstore.store import AzureStore, GCSStore, S3Store

    config: Any = {name: value for name, value in options if name not in ("provider", "allow_http")}
    client: Any = {name: value for name, value in options if name == "allow_http"}
    parts = urlsplit(uri)
    prefix = unquote(parts.path).strip("/") or None
    # Few retries: the next tick, or the next try of the run, asks again.
    retries: Any = {"max_retries": 3}
    try:
        if parts.scheme in _S3_SCHEMES:
            return S3Store(parts.netloc, prefix=prefix, config=config, client_options=client, retry_config=retries)
        if parts.scheme == "gs":
            return GCSStore(parts.netloc, prefix=prefix, config=config, client_options=client, retry_config=retries)
        container = parts.netloc.partition("@")[0]
        return AzureStore(container, prefix=prefix, config=config, client_options=client, retry_config=retries)
    except (BaseError, ValueError) as error:
        raise SettingError(f"the settings of the object store of {uri} can't be used: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Return the reason in an error of delta-rs or of the system, as one line: no colours, no XML, no credentials."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    text = re.sub(r"\s*Debug source:.*", "", text, flags=re.DOTALL)
    # From the answer of a store keep only its code and message. The rest may repeat the signed request with its token.
    text = re.sub(r"<\?xml.*|<Error>.*", _answer, text, flags=re.DOTALL)
    lines = [line.strip(" ↳\t") for line in text.splitlines()]
    return ": ".join(line.rstrip(".:") for line in lines if line) or type(error).__name__


def _answer(xml: re.Match[str]) -> str:
    found = (re.search(rf"<{tag}>([^<]*)</{tag}>", xml[0]) for tag in ("Code", "Message"))
    return "\n".join(value[1] for value in found if value)


def _is_local(uri: str) -> bool:
    return "://" not in uri or uri.startswith("file://")


def _path(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def _found(variables: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return the fields of a config that the environment sets."""
    values = {field: [os.environ[name] for name in names if os.environ.get(name)] for field, names in variables.items()}
    return {field: found[0] for field, found in values.items() if found}


def _switch(name: str) -> bool | None:
    value = os.environ.get(name, "").lower()
    if value not in ("", "0", "1", "true", "false", "yes", "no", "on", "off"):
        raise SettingError(f"{name} is {value!r}; expected true or false")
    return value in ("1", "true", "yes", "on") if value else None


def _check_endpoint(endpoint: str | None, allow_http: bool | None) -> None:
    if endpoint and endpoint.startswith("http://") and not allow_http:
        raise SettingError(
            "the S3 endpoint (AWS_ENDPOINT_URL) begins with http://, which sends everything unencrypted; "
            "expected https://, or AWS_ALLOW_HTTP=true if you trust the network up to that server"
        )


def _account_name(uri: str) -> str:
    host = urlsplit(uri).hostname or ""
    name = host.split(".")[0] if "@" in urlsplit(uri).netloc else os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    if not name:
        raise SettingError(
            f"{uri} names no storage account and AZURE_STORAGE_ACCOUNT_NAME is not set; "
            "set it, or DEDP_DATA_URI to abfss://container@account.dfs.core.windows.net/..."
        )
    return name


def _put(uri: str, content: bytes) -> None:
    from deltalake.fs import DeltaStorageHandler
    from pyarrow.fs import PyFileSystem

    folder, _, name = uri.rpartition("/")
    store = PyFileSystem(DeltaStorageHandler(folder, storage_options(uri)))
    # The buffer holds all of the content: a stream that closes between two writes would leave half a file.
    with store.open_output_stream(name, compression=None, buffer_size=len(content) + 1) as stream:
        stream.write(content)


def _get(uri: str) -> bytes:
    from deltalake.fs import DeltaStorageHandler

    folder, _, name = uri.rpartition("/")
    # Read in one request: between two requests the file may be replaced. To ask for the size would be such a request.
    # Give delta-rs the largest size instead; a store answers with the bytes that exist.
    store = DeltaStorageHandler(folder, storage_options(uri), {name: SMALL + 1})
    content: bytes = store.open_input_file(name).read(SMALL + 1)
    if len(content) > SMALL:
        raise OSError(f"it is larger than {SMALL} bytes")
    return content


def _what_to_check(uri: str) -> str:
    return (
        "check the folder and its permissions"
        if _is_local(uri)
        else "check the bucket, the credentials and the network"
    )
