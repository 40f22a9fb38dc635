"""Links and special files in a landing folder: whoever writes there must not have us read what lies elsewhere."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from dedp_assets.landing.copying import NotCopied, copy_when_settled
from dedp_assets.landing.dated import DatedFolder, scan_landing

DAY = "2024-01-03"
# Somebody else. Only root can make a link that belongs to another user.
STRANGER = 65_534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make links of another user")


def link_to_file(day: Path, secret: Path) -> Path:
    day.mkdir()
    (day / "dataset.csv").symlink_to(secret)
    return day / "dataset.csv"


def link_to_folder(day: Path, secret: Path) -> Path:
    (secret.parent / "dataset.csv").write_bytes(secret.read_bytes())
    day.symlink_to(secret.parent)
    return day


def link_to_link(day: Path, secret: Path) -> Path:
    day.mkdir()
    (day / "hidden").symlink_to(secret)
    (day / "dataset.csv").symlink_to("hidden")
    return day / "hidden"


def link_behind_our_link(day: Path, secret: Path) -> Path:
    other = day.with_name("2024-01-09")
    day.symlink_to(other.name)
    return link_to_file(other, secret)


LINKS = [link_to_file, link_to_folder, link_to_link, link_behind_our_link]
MakeLink = Callable[[Path, Path], Path]


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    folder = tmp_path / "landing"
    folder.mkdir()
    return folder


@needs_root
@pytest.mark.parametrize("make", LINKS)
def test_a_link_of_somebody_else_that_leads_out_of_the_landing_folder_is_refused(
    landing: Path, secret: Path, tmp_path: Path, make: MakeLink
) -> None:
    os.lchown(make(landing / DAY, secret), STRANGER, -1)
    listing = scan_landing(DatedFolder(landing, "dataset.csv"))
    assert listing.files == {}
    assert DAY in listing.unusable
    assert "leads out of" in listing.problems[0]
    # Also if the link was put there after the folder was scanned.
    with pytest.raises(NotCopied, match="leads out of"):
        copy_when_settled(landing / DAY / "dataset.csv", tmp_path / "copy" / "a", settle_seconds=0, root=landing)
    assert not (tmp_path / "copy" / "a").exists()


@needs_root
def test_a_link_of_somebody_else_inside_the_landing_folder_is_followed(landing: Path, tmp_path: Path) -> None:
    (landing / "2024-01-01").mkdir()
    (landing / "2024-01-01" / "dataset.csv").write_text("content")
    (landing / DAY).symlink_to("2024-01-01")
    os.lchown(landing / DAY, STRANGER, -1)
    assert set(scan_landing(DatedFolder(landing, "dataset.csv")).files) == {"2024-01-01", DAY}
    copy_when_settled(landing / DAY / "dataset.csv", tmp_path / "copy" / "a", settle_seconds=0, root=landing)
    assert (tmp_path / "copy" / "a").read_text() == "content"


@pytest.mark.parametrize("make", LINKS)
def test_a_link_of_our_own_user_may_lead_anywhere(landing: Path, secret: Path, tmp_path: Path, make: MakeLink) -> None:
    make(landing / DAY, secret)
    copy_when_settled(landing / DAY / "dataset.csv", tmp_path / "copy" / "a", settle_seconds=0, root=landing)
    assert (tmp_path / "copy" / "a").read_bytes() == secret.read_bytes()


@needs_root
def test_a_landing_folder_that_is_a_link_itself_is_followed(landing: Path, tmp_path: Path) -> None:
    (landing / "dataset.csv").write_text("content")
    (tmp_path / "other name").symlink_to(landing)
    os.lchown(tmp_path / "other name", STRANGER, -1)
    root = tmp_path / "other name"
    copy_when_settled(root / "dataset.csv", tmp_path / "copy" / "a", settle_seconds=0, root=root)
    assert (tmp_path / "copy" / "a").read_text() == "content"


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "folder"])
def test_what_is_no_file_is_refused_and_holds_nobody_up(landing: Path, tmp_path: Path, kind: str) -> None:
    path = landing / "dataset.csv"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    else:
        path.mkdir()
    with pytest.raises(NotCopied):
        copy_when_settled(path, tmp_path / "copy" / "a", settle_seconds=0)
    assert list((tmp_path / "copy").glob("a")) == []


def test_a_pipe_that_takes_the_place_of_a_file_at_the_last_moment_holds_nobody_up(
    landing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a file and its opening. To open a pipe would wait for ever for somebody who writes."""
    path = landing / "dataset.csv"
    path.write_text("content")
    really_open = os.open

    def swapped(name: str | Path, *arguments: int, **options: int) -> int:
        if Path(name) == path and path.is_file():
            path.unlink()
            os.mkfifo(path)
        return really_open(name, *arguments, **options)

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(NotCopied, match="found a folder or a special file"):
        copy_when_settled(path, tmp_path / "copy" / "a", settle_seconds=0)
