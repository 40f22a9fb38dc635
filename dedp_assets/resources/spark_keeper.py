"""The process between an embedded Spark server and its owner: it stops the server when the owner ends.

It runs this file alone, without site packages, to be small and to start at once. Import only the standard library here.
"""

import contextlib
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

LOG = "server.log"

# The server logs this, followed by its address.
STARTED = "Spark Connect server started at"


def _keep(owner: int, own: Path, command: list[str]) -> None:
    """Run a server until its owner is gone, say its port to the owner, and remove what it leaves behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with open(own / "lock.draft", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.rename(lock.name, own / "lock")  # only now, or somebody could lock it first and take us for dead
        java = subprocess.Popen(
            command,
            bufsize=0,  # what Python had read ahead, select would not see
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        try:
            _watch(owner, java)
        finally:
            java.kill()  # it holds nothing that would have to be brought in order
            java.wait()
            with contextlib.suppress(FileNotFoundError):
                os.replace(own / LOG, own.parent / f"last-{LOG}")
            shutil.rmtree(own, ignore_errors=True)


def _watch(owner: int, java: subprocess.Popen[bytes]) -> None:
    """Until the owner or the server ends: pass on the port that the server says it listens on."""
    assert java.stdout
    # The pipe's end tells it at once. But a forked child of the owner holds the pipe open too, so look who our parent
    # is as well.
    while os.getppid() == owner:
        ready = select.select([sys.stdin, java.stdout], [], [], 1)[0]
        if sys.stdin in ready:
            return
        if java.stdout in ready:
            line = java.stdout.readline().decode(errors="replace")
            if not line:
                return
            if STARTED in line:
                print(line.strip().rpartition(":")[2], flush=True)
            else:  # such as why Java itself did not start
                print(line, end="", file=sys.stderr, flush=True)


def _die_with_parent() -> None:
    # For a keeper that is killed. The kernel means the parent's thread, and the keeper has one.
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


if __name__ == "__main__":
    _keep(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
