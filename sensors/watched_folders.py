"""Which directories the sensors watch: a function for each, which the doorbell calls (`dedp_assets.doorbell`).

The daemon's process imports this module. So what takes memory is imported only by the function that needs it.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from dedp_assets import settings
from dedp_assets.doorbell.folders import Polled, Watch
from dedp_assets.landing.versions import DRAFT_ENDINGS

if TYPE_CHECKING:
    from dedp_assets.client_uploads.watched import WatchedClients


def devices() -> list[Watch]:
    """The landing folder of the devices, and its folder for each day."""
    return [_landing("devices", depth=1)]


def devices_table() -> list[Watch | Polled]:
    """The log of the Delta table that others write: each commit is a new file."""
    return _commits("devices")


def flight_searches() -> list[Watch]:
    """The folder that files of events arrive in."""
    return [_landing("flight_searches")]


def promotions() -> list[Watch]:
    """The folders of the suppliers, and in them those of the days."""
    return [_landing("promotions", depth=2)]


def uploads() -> Iterator[Watch | Polled]:
    """The directories of all clients, those above them, where new ones appear, and the settings file."""
    from dedp_assets.client_uploads.watched import settings_file

    clients = _watched_clients().now()
    paths = {}
    for directory in clients.directories:
        if isinstance(directory.path, Path):
            paths[directory.path] = directory.settle_seconds
        else:
            yield Polled(f"{directory.path} is in an object store")
    # Where there is no settings file, every directory in it is a client.
    above = {path.parent for path in paths} | {settings.landing() / "clients"}
    yield Watch(settings_file().parent, name=settings_file().name)
    yield from (Watch(path) for path in sorted(above))
    for path, seconds in sorted(paths.items()):
        yield Watch(path, settle_seconds=seconds, draft_endings=DRAFT_ENDINGS)


@cache
def _watched_clients() -> "WatchedClients":
    from dedp_assets.client_uploads.watched import WatchedClients

    return WatchedClients()


def _landing(name: str, depth: int = 0) -> Watch:
    folder = settings.landing() / name
    return Watch(folder, depth, settings.settle_seconds(), draft_endings=DRAFT_ENDINGS)


def _commits(table: str) -> list[Watch | Polled]:
    lake = settings.data_uri()
    if "://" in lake:
        return [Polled(f"{lake} is an object store")]
    return [Watch(Path(lake) / table / "_delta_log", draft_endings=DRAFT_ENDINGS)]
