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
    """Run a server until its owner ends, tell the owner its port, and remove its folder afterwards.

    Args:
        owner: the process id of the owner, which is our parent.
        own: the server's own folder.
        command: the command line of the server.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with open(own / "lock.draft", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.rename(lock.name, own / "lock")  # only now: another process must not lock it first, and take us for dead
        java = subprocess.Popen(
            command,
            bufsize=0,  # select does not see what Python has read ahead
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        try:
            _watch(owner, java)
        finally:
            java.kill()  # it has no state that needs an orderly end
            java.wait()
            with contextlib.suppress(FileNotFoundError):
                os.replace(own / LOG, own.parent / f"last-{LOG}")
            shutil.rmtree(own, ignore_errors=True)


def _watch(owner: int, java: subprocess.Popen[bytes]) -> None:
    """Pass on the port that the server prints, and return when the owner or the server ends."""
    assert java.stdout
    # The pipe closes when the owner ends. But a forked child of the owner also keeps it open, so check our parent too.
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
            else:  # such as the reason why Java does not start
                print(line, end="", file=sys.stderr, flush=True)


def _die_with_parent() -> None:
    # This is for a keeper that is killed. The kernel watches the thread that started us, and the keeper has only one.
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


if __name__ == "__main__":
    _keep(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
