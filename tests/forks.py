"""Processes that have Python's modules already: they start in 0.05 s instead of seconds.

One process imports what they need, and is forked for each. An import starts nothing and reads no setting, as
`tests/jobs/test_definitions.py` proves. So a fork does what a new process does. It has an environment, a folder and
outputs of its own, ends as a program ends, and has its exit code.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

# It ends when its standard input is closed. So it never outlives the tests.
_SERVER = """
import gc, importlib, json, os, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
gc.collect()
gc.freeze()  # a fork would copy all that it looks through when it ends
while line := sys.stdin.readline():
    asked = json.loads(line)
    if "wait for" in asked:
        child, status = os.waitpid(asked["wait for"], asked["options"])
        print(json.dumps(os.waitstatus_to_exitcode(status) if child else None), flush=True)
        continue
    child = os.fork()
    if child == 0:
        for number, name in enumerate([os.devnull, *asked["outputs"]]):
            os.dup2(os.open(name, os.O_RDWR), number)
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv[:] = asked["command"]
        module, _, function = asked["main"].partition(":")
        sys.exit(getattr(sys.modules[module], function)())
    print(child, flush=True)
"""


class Fork:
    """A process that may still run."""

    def __init__(self, server: "_Server", pid: int) -> None:
        self._server, self.pid = server, pid
        self._exit_code: int | None = None

    def wait(self) -> int:
        """Wait until it has ended. Returns its exit code: below 0, the signal that has killed it."""
        return self._look(0) or 0

    def poll(self) -> int | None:
        """Return its exit code, or None if it runs."""
        return self._look(os.WNOHANG)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def _look(self, options: int) -> int | None:
        if self._exit_code is None:
            self._exit_code = self._server.ask({"wait for": self.pid, "options": options})
        return self._exit_code


def start(
    main: str,
    command: Sequence[str],
    output: Path,
    errors: Path,
    folder: Path | None = None,
    imports: Sequence[str] = (),
) -> Fork:
    """Start a process with the environment of this moment, and without any input.

    Args:
        main: The function that it calls, as `module:function`.
        command: What it sees as its command line.
        output: An existing file for its output.
        errors: Another one, or the same.
        folder: Where it runs. Otherwise in the folder of this moment.
        imports: The modules that it has, beside that of `main`.
    """
    server = _server(main.partition(":")[0], *imports)
    asked = {
        "main": main,
        "command": list(command),
        "folder": str(folder or os.getcwd()),
        "environment": dict(os.environ),
        "outputs": [str(output), str(errors)],
    }
    return Fork(server, server.ask(asked))


class _Server:
    def __init__(self, *modules: str) -> None:
        # Not with the settings of the test that happens to be the first.
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("DEDP_", "DAGSTER_", "AWS_"))
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
            env=environment,
            text=True,
        )

    def ask(self, asked: dict[str, Any]) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


_server = cache(_Server)
