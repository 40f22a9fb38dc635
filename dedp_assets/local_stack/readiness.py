"""Whether a system is ready, and what its log says if not."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dedp_assets.local_stack.errors import StackError

# What does not start is told by its death. So this is only for what hangs, and a busy machine may take its time.
_READY_SECONDS = 600
_LOCATIONS = """
    { workspaceOrError { ... on Workspace { locationEntries {
        name loadStatus locationOrLoadError { __typename ... on PythonError { message } }
    } } } }
"""
# No proxy for an address on this machine.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def wait_until_ready(url: str, authorization: str, log: Path, deaths: Callable[[], dict[str, int]]) -> dict[str, str]:
    """Wait until the web server answers, and has loaded the code locations.

    Args:
        url: the address of the web server.
        authorization: the HTTP header of that name, with a user of the web server.
        log: the log of the system.
        deaths: returns how often which process has died.

    Returns:
        The errors of the locations that can't be loaded, by name.

    Raises:
        StackError: the web server or the daemon does not start, or nothing is ready for too long.
    """
    give_up = time.monotonic() + _READY_SECONDS
    while time.monotonic() < give_up:
        for name, times in deaths().items():
            if times >= 2 or name in ("daemon", "web server"):
                raise StackError(f"the {name} does not start.\n{log_tail(log)}")
        entries = _location_entries(url, authorization)
        if entries and all(entry["loadStatus"] == "LOADED" for entry in entries):
            return {
                entry["name"]: entry["locationOrLoadError"]["message"]
                for entry in entries
                if entry["locationOrLoadError"]["__typename"] == "PythonError"
            }
        time.sleep(0.05)
    raise StackError(f"Dagster is not ready after {_READY_SECONDS} s.\n{log_tail(log)}")


def _location_entries(url: str, authorization: str) -> list[dict[str, Any]]:
    """Ask the web server for its code locations; return an empty list while it does not answer."""
    headers = {"Content-Type": "application/json", "Authorization": authorization}
    asked = urllib.request.Request(f"{url}/graphql", json.dumps({"query": _LOCATIONS}).encode(), headers)
    try:
        with _open(asked, timeout=60) as response:
            answer = json.load(response)
    except (OSError, ValueError):  # an HTTP error is an OSError
        return []
    return list(answer["data"]["workspaceOrError"].get("locationEntries", []))


def log_tail(log: Path, lines: int = 25) -> str:
    """Return the last lines of the log, with a heading that names the file."""
    with open(log, errors="replace") as text:
        tail = text.readlines()[-lines:]
    return f"The last lines of {log}:\n" + "".join(f"  {line}" for line in tail)
