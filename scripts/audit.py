"""Looks for known vulnerabilities in the pinned packages: `make audit`.

pip-audit asks a public database. Where it can't be installed, or nobody answers, the check is skipped, and says so: it
found nothing, which is not the same as that there is nothing.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# In an environment of its own: the product does not need it.
PIP_AUDIT = "pip-audit==2.10.1"
PINS = ("requirements.txt", "requirements-dev.txt")


class Verdict(NamedTuple):
    """What an audit has shown: the exit code, and the text for people."""

    code: int
    text: str


def verdict(dependencies: Sequence[Mapping[str, Any]]) -> Verdict:
    """Judge the answer of pip-audit.

    Args:
        dependencies: the packages of its JSON report.
    """
    unknown = [each for each in dependencies if "skip_reason" in each]
    if dependencies and len(unknown) == len(dependencies):
        return skipped(f"the index knows none of the packages: {unknown[0]['skip_reason']}")
    found = [
        f"{each['name']} {each['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'no version'}"
        for each in dependencies
        for flaw in each.get("vulns", ())
    ]
    rest = f"; {len(unknown)} could not be looked up: {', '.join(each['name'] for each in unknown)}" if unknown else ""
    if found:
        return Verdict(1, "\n".join([*found, f"{len(found)} known vulnerabilities{rest}"]))
    return Verdict(0, f"no known vulnerability in {len(dependencies) - len(unknown)} packages{rest}")


def skipped(why: str) -> Verdict:
    """The verdict of an audit that could not be made."""
    return Verdict(0, f"skipped: make audit could not look for known vulnerabilities: {why}")


def audit(root: Path) -> Verdict:
    """Ask for the pinned packages of the project."""
    files = [option for name in PINS for option in ("--requirement", str(root / name))]
    options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
    uv = str(Path(sys.executable).with_name("uv"))
    try:
        done = subprocess.run(
            [uv, "tool", "run", PIP_AUDIT, *files, *options], capture_output=True, text=True, timeout=600
        )
        dependencies = json.loads(done.stdout)["dependencies"]
    except (OSError, subprocess.TimeoutExpired) as error:
        return skipped(str(error))
    except ValueError:
        return skipped(" ".join(done.stderr.split())[-300:])
    return verdict(dependencies)


if __name__ == "__main__":
    result = audit(Path(__file__).resolve().parent.parent)
    print(result.text)
    sys.exit(result.code)
