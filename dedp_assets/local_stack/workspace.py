"""The code locations of workspace.yaml, and the workspace of their servers that Dagster's processes read."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dedp_assets.local_stack.errors import StackError

# The keys of workspace.yaml, and the options of a code server.
_KINDS = {
    "python_module": ("module_name", "--module-name"),
    "python_package": ("package_name", "--package-name"),
    "python_file": ("relative_path", "--python-file"),
}
# Linux allows 107 bytes. A server adds the id of its process, and its template a word.
_LONGEST_SOCKET = 80


@dataclass(frozen=True)
class Location:
    """A code location.

    Attributes:
        name: its name in Dagster, on which cursors and the state of sensors depend.
        options: the options of its code server that say what to import.
    """

    name: str
    options: tuple[str, ...]


def locations(workspace: Path) -> list[Location]:
    """Return the code locations of a workspace.yaml. They have the names that Dagster gives them.

    Raises:
        StackError: an entry is of a kind that this system does not start.
    """
    entries = yaml.safe_load(workspace.read_text(encoding="utf-8"))["load_from"]
    return [_location(workspace.resolve().parent, entry) for entry in entries]


def _location(folder: Path, entry: dict[str, Any]) -> Location:
    ((kind, target),) = entry.items()
    if kind not in _KINDS:
        raise StackError(f"workspace.yaml: {kind!r} can't be started; expected one of {', '.join(_KINDS)}")
    key, option = _KINDS[kind]
    details = {key: target} if isinstance(target, str) else dict(target)
    what = details[key]
    name = Path(what).name if kind == "python_file" else what
    attribute = details.get("attribute")
    return Location(
        details.get("location_name") or (f"{name}:{attribute}" if attribute else name),
        (
            *(option, str(folder / what) if kind == "python_file" else what),
            *(("--attribute", attribute) if attribute else ()),
            *("--working-directory", str(folder / details.get("working_directory", "."))),
        ),
    )


@contextmanager
def sockets(home: Path) -> Iterator[Path]:
    """Provide a folder for sockets that only this user can enter: in the home, or elsewhere if its path is too long."""
    folder = home / "run"
    if len(str(folder)) > _LONGEST_SOCKET - 40:
        with tempfile.TemporaryDirectory(prefix="dedp-") as short:
            yield Path(short)
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    for left in folder.iterdir():
        left.unlink()
    yield folder
    for left in folder.iterdir():
        left.unlink()


def socket_of(folder: Path, location: Location) -> Path:
    """Return the socket on which clients find the code server of a location, whichever process it is."""
    return folder / f"{location.name[:40].replace('/', '_')}.sock"


def write_workspace(folder: Path, found: Sequence[Location]) -> Path:
    """Write the workspace.yaml of the running code servers. Returns its path."""
    entries = [
        {"grpc_server": {"location_name": location.name, "socket": str(socket_of(folder, location))}}
        for location in found
    ]
    path = folder / "workspace.yaml"
    path.write_text(yaml.safe_dump({"load_from": entries}), encoding="utf-8")
    return path
