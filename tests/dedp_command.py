"""The command `dedp` as a process of its own that has Python's modules already: it starts in 0.05 s instead of 2 s.

One process imports `dedp`, and is forked for each command. An import starts nothing and reads no setting, as
`tests/jobs/test_definitions.py` proves. So a fork does what a new process does. It has an environment, a folder and
outputs of its own, and ends with its exit code. `DEDP` is the installed program.
"""

import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

DEDP = str(Path(sys.executable).with_name("dedp"))

# It ends when its standard input is closed. So it never outlives the tests.
_FORKS = """
import gc, json, os, sys
from dedp_assets import cli

gc.collect()
gc.freeze()  # a fork would copy all that it looks through when it ends
while line := sys.stdin.readline():
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, name in enumerate([os.devnull, *asked["outputs"]]):
            os.dup2(os.open(name, os.O_RDWR), number)
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv[:] = asked["command"]
        sys.exit(cli.main())
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def run_dedp(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, with the environment and the folder of this moment, and without any input."""
    server = _server()
    assert server.stdin
    assert server.stdout
    with tempfile.NamedTemporaryFile("r") as output, tempfile.NamedTemporaryFile("r") as errors:
        command = [DEDP, *arguments]
        asked = {
            "command": command,
            "folder": os.getcwd(),
            "environment": dict(os.environ),
            "outputs": [output.name, errors.name],
        }
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        returned = int(server.stdout.readline())
        return subprocess.CompletedProcess(command, returned, output.read(), errors.read())


@cache
def _server() -> "subprocess.Popen[str]":
    # Not with the settings of the test that happens to be the first.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DEDP_", "AWS_"))}
    return subprocess.Popen(
        [sys.executable, "-c", _FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    )
