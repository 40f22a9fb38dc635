"""Directories in Google's and Microsoft's object stores, against an emulator of each: as in S3."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dedp_assets.landing.directories import NOTHING, Directory, ObjectFolder
from dedp_assets.landing.object_folders import AnyFolders, copy_object, scan_anywhere, sha256_of_object
from dedp_assets.resources.object_store import StoredObject, read_object
from tests.other_stores import Bucket

pytest_plugins = ["tests.other_stores"]
pytestmark = pytest.mark.slow


@pytest.fixture(params=["gs_bucket", "azure_container"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    found: Bucket = request.getfixturevalue(request.param)
    return found


def test_objects_are_listed_told_apart_and_copied(bucket: Bucket, tmp_path: Path) -> None:
    content = b"id,name\n" + b"1,a\n" * 3_000_000  # more than one request reads
    folder = ObjectFolder(f"{bucket.uri}/in/north")
    north = Directory("north", folder)
    assert scan_anywhere(north) is NOTHING
    bucket.put("in/north/50% \u00fc.csv", content)
    bucket.put("in/north/deeper/a.csv", b"hello")
    bucket.put("in/northwest/a.csv", b"hello")
    before = scan_anywhere(north)
    assert (before.failure, list(before.files)) == ("", ["50% \u00fc.csv"])
    (seen,) = before.files.values()
    copied = copy_object(folder, "50% \u00fc.csv", tmp_path / "content", settle_seconds=60, complete=seen)
    # The same version as in the listing, or the sensor would find it new.
    assert copied.version == seen
    assert (tmp_path / "content").read_bytes() == content
    assert sha256_of_object(folder, "50% \u00fc.csv") == hashlib.sha256(content).hexdigest()
    bucket.put("in/north/50% \u00fc.csv", content.replace(b"a", b"b"))
    (after,) = scan_anywhere(north).files.values()
    assert (after != seen, after.size) == (True, seen.size)


def test_an_object_that_is_replaced_between_two_parts_is_never_mixed(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("in/north/a.csv", b"old " * 1000)
    folder = ObjectFolder(f"{bucket.uri}/in/north")
    (seen,) = scan_anywhere(Directory("north", folder)).files.values()
    parts: list[bytes] = []

    def read_and_replace(uri: str, name: str, version: StoredObject) -> Iterator[bytes]:
        for part in read_object(uri, name, version, part_bytes=1000):
            yield part
            if not parts:
                bucket.put("in/north/a.csv", b"new " * 1000)
            parts.append(part)

    monkeypatch.setattr("dedp_assets.landing.object_folders.read_object", read_and_replace)
    copy_object(folder, "a.csv", tmp_path / "content", settle_seconds=0.1, complete=seen)
    assert (tmp_path / "content").read_bytes() == b"new " * 1000


def test_a_bucket_that_does_not_exist_is_a_failure_that_names_it(bucket: Bucket) -> None:
    missing = bucket.uri.replace("test-", "no-such-")
    assert scan_anywhere(Directory("north", ObjectFolder(f"{missing}/in"))).failure.startswith(
        f"{missing}/in can't be listed: "
    )


def test_a_large_prefix_shows_every_change_at_once_where_the_store_can_t_list_it_in_part(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Azure lists from the first name on. So does this emulator of Google's store, which hands on no error.
    for module in ("resources.object_store", "landing.object_folders", "landing.object_listing"):
        monkeypatch.setattr(f"dedp_assets.{module}.PAGE", 5)
    for number in range(30):
        bucket.put(f"in/north/{number:03}.csv", b"one")
    folders, north = AnyFolders(), Directory("north", ObjectFolder(f"{bucket.uri}/in/north"), settle_seconds=1e-9)
    for number in (29, 3, 15):
        before = folders.scan(north).files
        bucket.put(f"in/north/{number:03}.csv", b"two, and longer")
        after = folders.scan(north).files
        assert [name for name in before if before[name] != after[name]] == [f"{number:03}.csv"]
