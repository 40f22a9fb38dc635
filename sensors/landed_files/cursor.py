"""What a tick stores for the next one."""

import json
from dataclasses import dataclass, field
from typing import Any

from dedp_assets.landing.versions import FileVersion, Seen
from sensors.reconciliation import Waiting

_CURSOR_VERSION = 2


@dataclass(frozen=True)
class Cursor:
    """What earlier ticks have seen and requested. Dagster stores it as JSON, with these names.

    Attributes:
        began: when this cursor was begun, in s since the epoch. Part of each run key.
        requests: how many runs were requested since. Part of each run key, so that no key is used twice.
        seen: files whose present version was not requested yet, and since when each has been unchanged.
        asked: the version of each day's own file that was handled last.
        undated: the version of the undated file that was handled last.
        undated_days: days for which that version was requested, and that have not been materialized yet.
        compared: when copies and files were compared last, in s since the epoch.
        waiting: the days that were behind then.
        told: the notes on the files that were logged last.
    """

    began: float = 0.0
    requests: int = 0
    seen: dict[str, Seen] = field(default_factory=dict)
    asked: dict[str, FileVersion] = field(default_factory=dict)
    undated: FileVersion | None = None
    undated_days: list[str] = field(default_factory=list)
    compared: float = 0.0
    waiting: dict[str, Waiting] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """The text that Dagster stores."""
        return json.dumps({"cursor": _CURSOR_VERSION, **self.__dict__})

    @classmethod
    def from_json(cls, text: str | None) -> "Cursor":
        """The stored cursor; an empty one if there is none, or if it has another version.

        An empty cursor is safe: the records of the copies say which versions were copied before.
        """
        try:
            stored = json.loads(text or "{}")
            if stored.pop("cursor") != _CURSOR_VERSION:
                return cls()
            seen = {name: Seen(_version(version), float(since)) for name, (version, since) in stored["seen"].items()}
            asked = {day: _version(version) for day, version in stored["asked"].items()}
            undated = _version(stored["undated"]) if stored["undated"] else None
            waiting = {day: Waiting(str(i), int(n), float(due)) for day, (i, n, due) in stored["waiting"].items()}
            return cls(**{**stored, "seen": seen, "asked": asked, "undated": undated, "waiting": waiting})
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
            return cls()


def _version(stored: Any) -> FileVersion:
    return FileVersion(*map(int, stored))
