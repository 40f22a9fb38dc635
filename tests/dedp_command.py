"""The command `dedp`: `DEDP` is the installed program, and `run_dedp` a faster way to run it (see forks.py)."""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests import forks

DEDP = str(Path(sys.executable).with_name("dedp"))


def run_dedp(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, with the environment and the folder of this moment, and without any input."""
    with tempfile.NamedTemporaryFile("r") as output, tempfile.NamedTemporaryFile("r") as errors:
        command = [DEDP, *arguments]
        process = forks.start("dedp_assets.cli:main", command, Path(output.name), Path(errors.name))
        return subprocess.CompletedProcess(command, process.wait(), output.read(), errors.read())
