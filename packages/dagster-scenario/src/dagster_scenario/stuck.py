"""What never comes back in real time: who watches for it, where it is, and how Ctrl-C and SIGTERM end it."""

import ctypes
import linecache
import signal
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import dagster as dg

from dagster_scenario.clock import undone_in_children
from dagster_scenario.errors import ScenarioError

# Real seconds without any progress after which a run, or a pass of the daemons, is reported.
STUCK_AFTER = 60.0

_OURS = str(Path(__file__).parent)
_STDLIB = sysconfig.get_path("stdlib")
# Where threads of the standard library stand while they wait for other threads.
_WAITING_IN = ("threading.py", "queue.py", "selectors.py", "concurrent/futures/", "multiprocessing/")
_DEBUGGERS = {"pdb", "bdb", "pydevd", "_pydevd_bundle", "debugpy", "pudb", "ipdb"}


class Stuck(ScenarioError):
    """A run, or a pass of the daemons, has made no progress for too long."""

    def __init__(self, limit: float, where: str, stack: list[str], who: str = "it") -> None:
        self.limit, self.where, self.stack = limit, where, stack
        super().__init__(
            f"{who} has not come back for {limit:g} s of real time, without any progress. It is at {where}\n"
            "If it needs longer, give it more: scenario.stuck_after = <seconds>, or None for no limit (pytest: "
            "scenario_stuck_after in the ini file, or --scenario-stuck-after). Where it hangs:\n" + "".join(stack)
        )

    def of(self, who: str) -> "Stuck":
        """The same, about something that has a name."""
        return Stuck(self.limit, self.where, self.stack, who)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or SIGTERM, has ended the scenario. It says where it was."""


# What a signal raises: ours, or Dagster's while code of the project runs.
_INTERRUPTIONS = (Interrupted, dg.DagsterExecutionInterruptedError)


def limit(seconds: float | None) -> float | None:
    """Real seconds after which something counts as stuck; None for no limit."""
    if seconds is not None and not seconds > 0:
        raise ScenarioError(f"stuck_after={seconds:g} is not a time; give seconds of real time, or None for no limit")
    return seconds


class Watch:
    """Knows for how long there has been no progress, in real time."""

    def __init__(self) -> None:
        self.moved()

    def moved(self) -> None:
        """There was progress."""
        self._last = time.monotonic()

    def still_for(self) -> float:
        """Real seconds without progress."""
        return time.monotonic() - self._last


# Where a thread is


@dataclass
class Stack:
    """The frames of a thread, outermost first, without those that only start threads."""

    frames: list[FrameType] = field(default_factory=list)

    @property
    def is_debugged(self) -> bool:
        """Whether a debugger holds it; then it may take as long as it likes."""
        return any(str(frame.f_globals.get("__name__", "")).split(".")[0] in _DEBUGGERS for frame in self.frames)

    def format(self) -> list[str]:
        """As the lines of a traceback."""
        return traceback.format_list(
            traceback.StackSummary.extract(((frame, frame.f_lineno) for frame in self.frames), limit=-20)
        )

    def line(self) -> str:
        """The innermost line of the project's own code, or the innermost of all, in words."""
        if not self.frames:
            return ""
        own = [frame for frame in self.frames if _is_projects(frame.f_code.co_filename)]
        frame = (own or self.frames)[-1]
        code = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        return f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})" + (f": {code}" if code else "")


def stack_of(thread: threading.Thread) -> Stack:
    """Where a thread is now."""
    return stack_from(sys._current_frames().get(thread.ident or 0))


def stack_from(innermost: FrameType | None) -> Stack:
    """The stack that ends in this frame."""
    frames = []
    frame = innermost
    while frame is not None:
        if not frame.f_code.co_filename.startswith(_OURS) and frame.f_code.co_name not in (
            "_bootstrap",
            "_bootstrap_inner",
        ):
            frames.append(frame)
        frame = frame.f_back
    return Stack(frames[::-1])


def place(stacks: list[Stack]) -> str:
    """The line to look at first: in the project's code where there is some, and what does not only wait for others."""
    lines = [stack.line() for stack in stacks if stack.frames]
    busy = [stack.line() for stack in stacks if stack.frames and not _waits(stack.frames[-1])]
    return (busy or lines or ["an unknown place"])[0]


def position(thread: threading.Thread) -> Any:
    """Something that stays the same while a thread does not move."""
    frame = sys._current_frames().get(thread.ident or 0)
    return (id(frame), frame.f_lasti) if frame is not None else None


def is_blocked(thread: threading.Thread) -> bool:
    """Whether a thread stands where the standard library waits for other threads."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and _waits(frame)


def is_runnable(thread: threading.Thread) -> bool:
    """Whether the operating system has a thread compute, or wait for a processor: it stands still and yet will move.

    Known on Linux alone; elsewhere False.
    """
    try:
        stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
    except OSError:
        return False
    # The state stands behind the name, which may have any characters.
    return stat.rpartition(")")[2].split()[0] == "R"


def _waits(frame: FrameType) -> bool:
    file = frame.f_code.co_filename.replace("\\", "/")
    return file.startswith(_STDLIB.replace("\\", "/")) and any(part in file for part in _WAITING_IN)


def _is_projects(file: str) -> bool:
    return not file.startswith((_OURS, _STDLIB, "<")) and "site-packages" not in file


# Signals


@contextmanager
def signals_end(where: Callable[[FrameType | None], str]) -> Iterator[None]:
    """Within it, Ctrl-C and SIGTERM raise `Interrupted`, also where asyncio or Dagster would only take note of them.

    where: says what was going on, given the frame of the main thread. Handlers of the project's own stay.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise Interrupted(f"ended by {signal.Signals(number).name} while {where(frame)}")

    undo = []
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            if before in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, end)
                undo.append((number, before))

    def give_back() -> None:
        for number, before in undo:
            signal.signal(number, before)

    try:
        with undone_in_children(give_back):
            yield
    finally:
        give_back()


# The daemons, which run in the thread of the test


class DaemonWatch:
    """Watches the thread of the test while Dagster's daemons make a pass in it."""

    def __init__(self, stuck_after: Callable[[], float | None]) -> None:
        self._stuck_after = stuck_after
        self.watch = Watch()
        self._found: Stuck | None = None
        # The thread in which a pass is under way.
        self._watched: threading.Thread | None = None
        self._watcher: threading.Thread | None = None
        # Held to raise in the watched thread, and to end the watching: nothing is raised after the end.
        self._raising = threading.Lock()
        self._closed = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within it, no progress for too long raises `Stuck` in this thread."""
        self._found = None
        self.watch.moved()
        if self._watcher is None:
            # One for all passes: to start a thread for each, and to wait for its turn, was a tenth of an idle pass.
            self._watcher = threading.Thread(target=self._watch, name="dagster_scenario watch", daemon=True)
            self._watcher.start()
        self._watched = threading.current_thread()
        try:
            try:
                yield
            finally:
                with self._raising:
                    self._watched = None
                if self._found is not None and not isinstance(sys.exc_info()[1], _INTERRUPTIONS):
                    _await_interruption()
        except _INTERRUPTIONS as error:
            if self._found is not None:
                raise self._found from None
            if isinstance(error, dg.DagsterExecutionInterruptedError):
                # Dagster's own handler of signals, while a sensor's code ran.
                at = stack_from(_innermost(error)).line()
                raise Interrupted(f"ended by a signal while the daemons were at {at}") from error
            raise

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()
        if self._watcher is not None:
            self._watcher.join()

    def _watch(self) -> None:
        while not self._closed.wait(0.1):
            limit, thread = self._stuck_after(), self._watched
            if thread is None or limit is None or self.watch.still_for() <= limit:
                continue
            stack = stack_of(thread)
            if stack.is_debugged:
                continue
            with self._raising:
                if self._watched is thread:
                    self._watched = None
                    self._found = Stuck(limit, stack.line(), stack.format(), "a pass of the daemons")
                    _raise_in(thread)


def _innermost(error: BaseException) -> FrameType | None:
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    return step.tb_frame if step is not None else None


def _await_interruption() -> None:
    """Let what has been raised in this thread arrive here, and not in whatever comes next."""
    for _ in range(100):
        time.sleep(0.01)


def _raise_in(thread: threading.Thread) -> None:
    """Raise in a thread: by a signal, which ends system calls too, where that is possible."""
    handler = signal.getsignal(signal.SIGINT)
    if thread is threading.main_thread() and callable(handler) and handler is not signal.default_int_handler:
        signal.pthread_kill(thread.ident or 0, signal.SIGINT)
    else:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(dg.DagsterExecutionInterruptedError)
        )
