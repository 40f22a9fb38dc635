"""Commands that a user would type, executed while the acts of the demo go on."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence

from dedp_assets import settings
from dedp_assets.demo.timeline import DemoFailed


def by_hand(command: Sequence[str]) -> Generator[Callable[[], bool], None, None]:
    """Run a command of Dagster, such as `dagster asset materialize ...`, as a part of an act. Raises DemoFailed."""
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-m", *command], cwd=settings.REPOSITORY, stdout=subprocess.DEVNULL, stderr=errors
        ) as process,
    ):
        try:
            yield lambda: process.poll() is not None
        except BaseException:
            process.kill()
            raise
        if process.returncode:
            errors.seek(0)
            raise DemoFailed(f"the command failed: {' '.join(command)}\n{errors.read()[-2000:]}")
