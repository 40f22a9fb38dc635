"""Directories in an object store, against a real S3 server: what is listed, and what is copied."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dedp_assets.landing.copies import read_record
from dedp_assets.landing.copying import NotCopied
from dedp_assets.landing.directories import NOTHING, Directory, ObjectFolder
from dedp_assets.landing.object_folders import AnyFolders, copy_object, scan_anywhere, sha256_of_object
from dedp_assets.landing.versions import FileVersion
from dedp_assets.resources.object_store import Page, StorageProblem, StoredObject, list_page, read_object

Put = Callable[[str, bytes], None]


def directory(uri: str, **settings: Any) -> Directory:
    return Directory("north", ObjectFolder(uri), **settings)


def test_the_objects_of_the_prefix_are_listed_as_a_folder_lists_its_files(s3_put: Put, s3_bucket: str) -> None:
    s3_put("north/", b"")  # as a console makes a folder
    for name in (
        "a.csv",
        "two words.csv",
        "\u00fc.csv",
        "50%.csv",
        ".draft.csv",
        "b.csv.part",
        "c.json",
        "deeper/d.csv",
    ):
        s3_put(f"north/{name}", b"hello")
    s3_put("northwest/e.csv", b"hello")
    scan = scan_anywhere(directory(f"{s3_bucket}/north"))
    assert (scan.failure, scan.problems) == ("", ())
    assert sorted(scan.files) == ["50%.csv", "a.csv", "two words.csv", "\u00fc.csv"]
    assert scan.files["a.csv"].size == 5
    assert scan.files["a.csv"].modified_ns > 0


def test_a_new_version_of_an_object_is_told_by_its_size(s3_put: Put, s3_bucket: str) -> None:
    s3_put("north/a.csv", b"one")
    before = scan_anywhere(directory(f"{s3_bucket}/north"))
    s3_put("north/a.csv", b"two and more")
    assert scan_anywhere(directory(f"{s3_bucket}/north")).files["a.csv"] != before.files["a.csv"]


def test_a_rewrite_in_the_same_second_with_the_same_size_is_a_new_version(s3_put: Put, s3_bucket: str) -> None:
    found: list[FileVersion] = []
    while len(found) < 2 or found[0].modified_ns != found[1].modified_ns:  # two writes within one second
        found = []
        for content in (b"one", b"two"):
            s3_put("north/a.csv", content)
            found += scan_anywhere(directory(f"{s3_bucket}/north")).files.values()
    assert found[0].size == found[1].size
    assert found[0] != found[1]


def test_markers_are_listed_with_their_times(s3_put: Put, s3_bucket: str) -> None:
    s3_put("north/a.csv", b"hello")
    s3_put("north/_SUCCESS", b"")
    scan = scan_anywhere(directory(f"{s3_bucket}/north", completeness="marker"))
    assert scan.markers["_SUCCESS"] >= scan.files["a.csv"].changed_ns
    assert set(scan.files) == {"a.csv"}


def test_a_prefix_without_objects_is_an_empty_directory(s3_bucket: str) -> None:
    assert scan_anywhere(directory(f"{s3_bucket}/nobody")) is NOTHING


def test_a_bucket_that_does_not_exist_is_a_failure_that_names_it(s3_bucket: str) -> None:
    failure = scan_anywhere(directory("s3://no-such-bucket/north")).failure
    assert failure.startswith("s3://no-such-bucket/north can't be listed: ")
    assert "NoSuchBucket" in failure


def test_a_setting_that_cannot_be_used_is_a_failure_of_the_directory(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    assert "AWS_ALLOW_HTTP=true" in scan_anywhere(directory(f"{s3_bucket}/north")).failure


@pytest.mark.slow
def test_more_objects_than_one_answer_holds_are_all_listed(s3_put: Put, s3_bucket: str) -> None:
    for number in range(1005):
        s3_put(f"north/{number}.csv", b"x")
    assert len(scan_anywhere(directory(f"{s3_bucket}/north")).files) == 1005


def test_a_copy_holds_the_object_and_says_where_it_is_from(s3_put: Put, s3_bucket: str, tmp_path: Path) -> None:
    content = b"id,name\n" + b"1,a\n" * 3_000_000  # more than one request reads
    s3_put("north/a b.csv", content)
    folder = ObjectFolder(f"{s3_bucket}/north")
    (seen,) = scan_anywhere(directory(folder.uri)).files.values()
    copied = copy_object(folder, "a b.csv", tmp_path / "content", settle_seconds=60, complete=seen)
    sha256 = hashlib.sha256(content).hexdigest()
    assert (tmp_path / "content").read_bytes() == content
    assert (copied.version, copied.size_bytes, copied.line_count, copied.sha256) == (
        seen,
        len(content),
        3_000_001,
        sha256,
    )
    record = read_record(tmp_path / "content")
    assert record == (f"{s3_bucket}/north/a b.csv", seen, sha256)
    assert sha256_of_object(folder, "a b.csv") == sha256


def test_an_object_that_is_replaced_between_two_parts_is_downloaded_again_and_never_mixed(
    s3_put: Put, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = b"old " * 1000, b"new " * 1000  # of the same size, within the same second
    s3_put("north/a.csv", old)
    folder = ObjectFolder(f"{s3_bucket}/north")
    (seen,) = scan_anywhere(directory(folder.uri)).files.values()
    parts: list[bytes] = []

    def read_and_replace(uri: str, name: str, version: StoredObject) -> Iterator[bytes]:
        for part in read_object(uri, name, version, part_bytes=1000):
            yield part
            if not parts:
                s3_put("north/a.csv", new)
            parts.append(part)

    monkeypatch.setattr("dedp_assets.landing.object_folders.read_object", read_and_replace)
    copied = copy_object(folder, "a.csv", tmp_path / "content", settle_seconds=0.1, complete=seen)
    assert (tmp_path / "content").read_bytes() == new
    assert copied.version == next(iter(scan_anywhere(directory(folder.uri)).files.values()))
    assert parts == [old[:1000], *(new[:1000] for _ in range(4))]
    assert not list(tmp_path.glob("*.part"))


def test_a_large_prefix_is_listed_in_part_and_shows_what_is_new_rewritten_and_deleted(
    s3_put: Put, s3_delete: Callable[[str], None], s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = small_pages(monkeypatch)
    names = [f"north/{number:03} \u00fc%.csv" for number in range(60)]
    for name in names:
        s3_put(name, b"one")
    folders, north = AnyFolders(), directory(f"{s3_bucket}/north", settle_seconds=1e-9)
    assert len(folders.scan(north).files) == 60
    folders.scan(north)
    s3_put("north/999.csv", b"last in the order")
    s3_put("north/030.csv", b"in the middle")
    s3_put(names[10], b"two")
    s3_delete(names[50])
    asked.clear()
    first = folders.scan(north)
    assert "999.csv" in first.files
    assert len(asked) <= 3
    for _ in range(12):
        scan = folders.scan(north)
    assert scan == scan_anywhere(north)


@pytest.mark.parametrize("obstacle", ["markers", "a folder"])
def test_a_large_prefix_is_listed_whole_where_a_part_would_not_be_safe(
    s3_put: Put, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    asked = small_pages(monkeypatch)
    for number in range(12):
        s3_put(f"north/{number:03}.csv", b"one")
    if obstacle == "a folder":
        s3_put("north/archive/001.csv", b"one")
    completeness = "marker" if obstacle == "markers" else "settled"
    folders, north = AnyFolders(), directory(f"{s3_bucket}/north", completeness=completeness)
    for _ in range(3):
        assert len(folders.scan(north).files) == 12
    assert asked == []


def test_a_folder_that_appears_in_a_large_prefix_is_left_out_as_before(
    s3_put: Put, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pages(monkeypatch)
    for number in range(12):
        s3_put(f"north/{number:03}.csv", b"one")
    folders, north = AnyFolders(), directory(f"{s3_bucket}/north")
    before = folders.scan(north)
    s3_put("north/006/deeper.csv", b"one")
    assert folders.scan(north) == before


def small_pages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let five objects be many. Returns the list of names after which a part was listed."""
    for module in ("resources.object_store", "landing.object_folders", "landing.object_listing"):
        monkeypatch.setattr(f"dedp_assets.{module}.PAGE", 5)
    asked: list[str] = []

    def asked_for(uri: str, after: str) -> Page:
        asked.append(after)
        return list_page(uri, after)

    monkeypatch.setattr("dedp_assets.landing.object_folders.list_page", asked_for)
    return asked


@pytest.mark.parametrize(("content", "said"), [(None, "found nothing"), (b"", "is empty")])
def test_an_object_that_is_gone_or_empty_is_not_copied(
    s3_put: Put, s3_bucket: str, tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        s3_put("north/a.csv", content)
    folder = ObjectFolder(f"{s3_bucket}/north")
    with pytest.raises(NotCopied, match=said):
        copy_object(folder, "a.csv", tmp_path / "content", settle_seconds=0, complete=FileVersion(0, 0, 0, 0))
    assert not (tmp_path / "content").exists()


def test_a_store_that_refuses_the_download_is_named(s3_bucket: str, tmp_path: Path) -> None:
    folder = ObjectFolder("s3://no-such-bucket/north")
    with pytest.raises((StorageProblem, NotCopied), match=r"s3://no-such-bucket/north/a.csv"):
        copy_object(folder, "a.csv", tmp_path / "content", settle_seconds=0, complete=FileVersion(0, 0, 0, 0))
