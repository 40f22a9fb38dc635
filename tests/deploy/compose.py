"""docker/compose.yaml as Docker Compose understands it: names replaced, anchors and defaults filled in."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from dedp_assets import settings

DOCKER = settings.REPOSITORY / "docker"
COMPOSE_FILE = DOCKER / "compose.yaml"


def program(name: str) -> str | None:
    """Return the path of a program of requirements-dev.txt or of this machine, or None."""
    beside_python = str(Path(sys.executable).parent)
    return shutil.which(name, path=os.pathsep.join([beside_python, os.environ.get("PATH", "")]))


def resolved(docker_compose: str, environment: dict[str, str]) -> dict[str, Any]:
    """Return what `docker compose config` makes of the file.

    Args:
        docker_compose: the path of the program.
        environment: the variables that the user has set, and no others.
    """
    done = subprocess.run(
        [docker_compose, "-f", str(COMPOSE_FILE), "config", "--format", "json"],
        env={"PATH": os.environ.get("PATH", ""), "HOME": "/nonexistent", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # It writes a dollar as the file has to.
    found: dict[str, Any] = json.loads(done.stdout.replace("$$", "$"))
    return found
