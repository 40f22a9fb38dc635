"""The folder of a backup: whole or not there, and every damage is named."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dedp_assets.backup.archive import Entry, Manifest, check_is_empty, drafting, entries, read_manifest, verify
from dedp_assets.backup.errors import BackupError
from dedp_assets.backup.versions import check_is_not_newer

MANIFEST = Manifest(
    made_at="2024-01-31T08:00:00+00:00",
    versions={"dedp": "1.2.0", "dagster": "1.13.27", "postgres": 180004},
    migrations={"tides": ["0001_tables.sql"]},
    schemas=["dedp"],
    parts=["home"],
    database_bytes=0,
)


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    with drafting(tmp_path / "backup") as draft:
        draft.add("home/a", [b"first ", b"file"], 0o644, 1)
        draft.add("home/b\udcff\n", [b"second file"], 0o600, 2)
        draft.finish(MANIFEST)
    return tmp_path / "backup"


def test_a_backup_is_read_as_it_was_written_also_with_names_that_are_no_text(backup: Path) -> None:
    manifest = read_manifest(backup)
    verify(backup)
    assert replace(manifest, list_sha256="", files=0, bytes=0) == MANIFEST
    assert (manifest.files, manifest.bytes) == (2, 21)
    assert [(entry.path, entry.size, entry.mode) for entry in entries(backup)] == [
        ("home/a", 10, 0o644),
        ("home/b\udcff\n", 11, 0o600),
    ]


def test_nobody_else_can_read_a_backup(backup: Path) -> None:
    found = [backup, *backup.rglob("*")]
    assert {path.stat().st_mode & 0o077 for path in found} == {0}


def test_an_error_while_a_backup_is_written_leaves_nothing(tmp_path: Path) -> None:
    def half() -> Iterator[bytes]:
        yield b"half"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), drafting(tmp_path / "backup") as draft:
        draft.add("home/a", half(), 0o644, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_can_not_be_written_is_named_and_nothing_stays(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # it acts as a full disk does
    try:
        with pytest.raises(OSError, match=r"backup\.part/home/large"), drafting(tmp_path / "backup") as draft:
            draft.add("home/large", [b"x" * 60_000] * 2, 0o644, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_backup_leaves_is_no_backup_and_is_removed_by_the_next_one(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from dedp_assets.backup.archive import drafting
with drafting(Path(sys.argv[1])) as draft:
    draft.add("home/a", [b"half"], 0o644, 1)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    target = tmp_path / "backup"
    assert subprocess.run([sys.executable, "-c", program, str(target)]).returncode == -signal.SIGKILL
    assert not target.exists()
    with pytest.raises(BackupError, match="it was not completed"):
        read_manifest(tmp_path / "backup.part")
    with drafting(target) as draft:
        draft.add("home/b", [b"whole"], 0o644, 1)
        draft.finish(MANIFEST)
    assert [entry.path for entry in entries(target)] == ["home/b"]
    assert not (tmp_path / "backup.part").exists()


def test_two_backups_are_not_written_to_the_same_folder_at_once(tmp_path: Path) -> None:
    with drafting(tmp_path / "backup"):  # noqa: SIM117
        with pytest.raises(BackupError, match="another process is writing"), drafting(tmp_path / "backup"):
            pass


def test_a_backup_never_replaces_what_is_there(backup: Path) -> None:
    with pytest.raises(BackupError, match=r"is not empty: it has \w+"), drafting(backup):
        pass
    verify(backup)


def change_a_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def link_elsewhere(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(other)


@pytest.mark.parametrize("damage", [change_a_byte, shorten, Path.unlink, link_elsewhere])
def test_a_damaged_file_is_named(backup: Path, damage: Callable[[Path], None]) -> None:
    damage(backup / "home" / "a")
    read_manifest(backup)
    with pytest.raises(BackupError, match=r"the backup is damaged: .*/home/a: .*Nothing was restored"):
        verify(backup)


@pytest.mark.parametrize("name", ["files.jsonl", "manifest.json"])
@pytest.mark.parametrize("damage", [change_a_byte, shorten, Path.unlink])
def test_a_backup_without_a_whole_list_or_manifest_is_refused(
    backup: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(backup / name)
    with pytest.raises(BackupError, match=f"{name}"):
        read_manifest(backup)


def test_no_changed_byte_of_the_manifest_is_overlooked(backup: Path) -> None:
    """One that made another name of a part would have this part left out of a restore, and nobody told."""
    content = (backup / "manifest.json").read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1
        (backup / "manifest.json").write_bytes(changed)
        with pytest.raises(BackupError, match=r"the backup is damaged: .*manifest\.json"):
            read_manifest(backup)
    (backup / "manifest.json").write_bytes(content)
    change_a_byte(backup / "manifest.sha256")
    with pytest.raises(BackupError, match=r"manifest\.sha256"):
        read_manifest(backup)


def rewrite_manifest(backup: Path, **changes: object) -> None:
    stored = json.loads((backup / "manifest.json").read_text())
    content = json.dumps({**stored, **changes}).encode()
    (backup / "manifest.json").write_bytes(content)
    (backup / "manifest.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")


def test_the_sum_of_the_manifest_is_one_that_sha256sum_checks(backup: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--status", "manifest.sha256"], cwd=backup, check=True)


def test_what_a_later_version_has_added_to_the_manifest_without_another_format_is_ignored(backup: Path) -> None:
    before = read_manifest(backup)
    rewrite_manifest(backup, new="things")
    assert read_manifest(backup) == before


def test_a_list_cannot_lead_out_of_the_home(tmp_path: Path) -> None:
    for path in ("../outside", "/etc/cron.d/outside", "home/../../outside"):
        target = tmp_path / str(abs(hash(path)))
        with drafting(target) as draft:
            draft.add("home/a", [b""], 0o644, 1)
            draft._note(Entry(path, 0, "0" * 64, 0o644, 1))
            draft.finish(MANIFEST)
        read_manifest(target)
        with pytest.raises(BackupError, match="it names"):
            list(entries(target))


def test_a_backup_of_another_format_is_refused(backup: Path) -> None:
    rewrite_manifest(backup, format=2, new="things")
    with pytest.raises(BackupError, match=r"newer version.*has format 2"):
        read_manifest(backup)


def test_a_place_where_a_disk_is_mounted_is_refused_before_anything_is_copied() -> None:
    """The folder could not be renamed at the end."""
    with pytest.raises(BackupError, match=r"a disk is mounted at /proc.*name a folder in it"), drafting(Path("/proc")):
        raise AssertionError


def test_a_new_disk_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    check_is_empty(tmp_path, "the home")


def test_names_that_are_no_text_can_be_printed(tmp_path: Path, backup: Path) -> None:
    (tmp_path / "other").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "other") + b"/\xff\n")).write_text("")
    with pytest.raises(BackupError, match=r"is not empty: it has \\udcff\\n") as told:
        check_is_empty(tmp_path / "other", "the home")
    str(told.value).encode()
    (backup / "home" / "b\udcff\n").unlink()
    with pytest.raises(BackupError, match=r"damaged: .*/home/b\\udcff\\n: No such file") as told:
        verify(backup)
    str(told.value).encode()


INSTALLED = {"dedp": "1.2.0", "dagster": "1.13.27"}


@pytest.mark.parametrize(
    ("versions", "migrations", "problem"),
    [
        ({"dedp": "1.10.0"}, {}, "dedp 1.10.0, and 1.2.0 is installed"),
        ({"dedp": "1.2.0", "dagster": "1.14.0"}, {}, "dagster 1.14.0"),
        (INSTALLED, {"tides": ["0001_tables.sql", "0002_moon.sql"]}, "the migration 0002_moon.sql of tides"),
    ],
)
def test_a_backup_of_a_newer_version_is_refused(
    versions: dict[str, str], migrations: dict[str, list[str]], problem: str
) -> None:
    with pytest.raises(BackupError, match=f"newer version.*{problem}.*update this installation"):
        check_is_not_newer(versions, migrations, INSTALLED, {"0001_tables.sql"})


def test_a_backup_of_this_version_or_an_earlier_one_is_not_refused() -> None:
    for versions in (INSTALLED, {"dedp": "1.1.9", "dagster": "1.9.0"}, {}):
        check_is_not_newer(versions, {"tides": ["0001_tables.sql"]}, INSTALLED, {"0001_tables.sql"})
