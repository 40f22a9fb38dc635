"""What a fork has to undo, and has to have, to be a process of its own."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

# A variable. "off": runs start as without this package, whatever dagster.yaml says.
SWITCH = "DAGSTER_WARM_LAUNCHER"
# A zygote is started with an argument of that many spaces, so that a fork has room for a title of its own.
TITLE_ROOM = 160
_PR_SET_NAME = 15
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def may_fork_runs() -> bool:
    """Return whether runs may be forks here: forks are only safe on Linux, and a variable switches them off."""
    return sys.platform == "linux" and os.environ.get(SWITCH) != "off"


def adopt_orphans() -> None:
    """Become the parent of processes below this one whose own parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, or end at once if that has happened already.

    Args:
        parent: The process that has forked this one, by the only thread that it has.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


_has_room = False


def has_room_for_titles() -> None:
    """Say that the command line of this process has an argument of `TITLE_ROOM` spaces, which nobody needs."""
    global _has_room
    _has_room = sys.platform == "linux"


def set_title(title: str) -> None:
    """Let `ps` and `top` show this title, in a zygote and its forks."""
    if not _has_room:
        return
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    if end - start > TITLE_ROOM:
        ctypes.CDLL(None).prctl(_PR_SET_NAME, title.encode()[:15])
        ctypes.memmove(start, title.encode()[: end - start - 1].ljust(end - start, b"\0"), end - start)


def become_a_process_of_its_own() -> None:
    """Undo what a fork keeps and a fresh process would not have. Python itself has seeded `random` anew."""
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()
    # Hooks of libraries that know about forks only through multiprocessing.
    from multiprocessing import util

    util._run_after_forkers()  # type: ignore[attr-defined]
