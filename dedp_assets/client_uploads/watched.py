"""The clients that are watched now, by the settings file or without one."""

import os
from dataclasses import replace
from pathlib import Path

from dedp_assets import settings
from dedp_assets.client_uploads.settings_file import (
    DEFAULT,
    ClientFinder,
    Clients,
    QuarantineLimits,
    SettingsProblem,
    UploadSettings,
    read_settings,
)
from dedp_assets.whole_files import write_whole


def settings_file() -> Path:
    """`DEDP_UPLOADS`, or `uploads.yaml` in the home."""
    value = os.environ.get("DEDP_UPLOADS")
    return Path(value).expanduser().resolve() if value else settings.home() / "uploads.yaml"


class WatchedClients:
    """Reads the settings file when it has changed. A file that is wrong changes nothing: the last good one counts.

    The last good one is kept in the home, so that it counts after a restart, too.
    """

    def __init__(self) -> None:
        self._read: tuple[Path, bytes] | None = None
        self._settings = DEFAULT
        self._problem = ""
        self._finder: ClientFinder | None = None

    def now(self) -> Clients:
        """The clients, and what is wrong with the settings or with single directories."""
        self._refresh()
        if self._finder is None:
            self._finder = ClientFinder(settings.settle_seconds())
        clients = self._finder.find(self._settings, settings.landing())
        if not self._problem:
            return clients
        return replace(clients, problems=[*self._problem.splitlines(), *clients.problems])

    def quarantine_limits(self) -> QuarantineLimits:
        """When too many lines are in quarantine, by the settings that are in force."""
        self._refresh()
        return self._settings.quarantine

    def _refresh(self) -> None:
        path = settings_file()
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            self._read, self._settings, self._problem = None, DEFAULT, ""
            return
        except OSError as error:
            self._problem = f"{path} can't be read: {error.strerror}; the last good settings stay in force"
            return
        if self._read == (path, text):
            return
        good = settings.home() / "uploads" / "last_good_settings.yaml"
        try:
            self._settings, self._problem = _parsed(text, path), ""
            good.parent.mkdir(parents=True, exist_ok=True)
            write_whole(good, text)
        except SettingsProblem as problem:
            self._problem = f"{problem}\nthe last good settings stay in force"
            if self._read is None:
                self._settings = _last_good(good)
        self._read = path, text


def _parsed(text: bytes, path: Path) -> UploadSettings:
    try:
        return read_settings(text.decode(), str(path))
    except UnicodeDecodeError as error:
        raise SettingsProblem(f"{path} is not UTF-8: byte {text[error.start]:#04x}; write it in UTF-8") from None


def _last_good(path: Path) -> UploadSettings:
    try:
        return read_settings(path.read_text(encoding="utf-8"), str(path))
    except (OSError, ValueError, SettingsProblem):
        return DEFAULT
