"""A small file is there as a whole or not at all, whoever reads, writes or dies meanwhile."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dedp_assets.whole_files import write_whole

only_writer = pytest.mark.parametrize("is_only_writer", [True, False])

# Dies after the draft is written and before it takes the name.
DIES = """
import os, sys
from pathlib import Path
from dedp_assets import whole_files

os.replace = lambda *paths: os.kill(os.getpid(), 9)
whole_files.write_whole(Path(sys.argv[1]), b"of the dead", is_only_writer=True)
"""


@only_writer
def test_a_reader_finds_one_content_or_the_other_while_it_is_written_again_and_again(
    tmp_path: Path, is_only_writer: bool
) -> None:
    path, contents = tmp_path / "file.json", [b"a" * 300_000, b"b" * 200_000]
    write_whole(path, contents[0])

    def write() -> None:
        for number in range(50):
            write_whole(path, contents[number % 2], is_only_writer=is_only_writer)

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while writer.is_alive():
        seen.add(path.read_bytes())
    writer.join()
    assert seen <= set(contents)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]


@only_writer
def test_a_write_that_fails_leaves_the_old_content_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_only_writer: bool
) -> None:
    path = tmp_path / "file.json"
    write_whole(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new", is_only_writer=is_only_writer)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file.json", b"old")]


def test_a_secret_is_for_the_user_alone_from_the_first_byte_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, draft = tmp_path / "token", tmp_path / ".token.part"
    draft.touch(mode=0o666)
    modes: list[int] = []

    def replace(draft: Path, path: Path) -> None:
        modes.append(os.stat(draft).st_mode & 0o777)
        rename(draft, path)

    rename = os.replace
    monkeypatch.setattr(os, "replace", replace)
    write_whole(path, b"secret", mode=0o600, is_only_writer=True)
    assert modes == [0o600]
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_whole(path, b"old")
    assert subprocess.run([sys.executable, "-c", DIES, path]).returncode == -9
    assert path.read_bytes() == b"old"
    assert (tmp_path / ".file.json.part").read_bytes() == b"of the dead"
    write_whole(path, b"new", is_only_writer=True)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file.json", b"new")]
