"""What a tick stores for the next one."""

import json
from dataclasses import dataclass, field

_FORMAT = 2


@dataclass(frozen=True)
class Cursor:
    """How far earlier ticks have followed the table. Dagster stores it as JSON.

    Attributes:
        table_id: the identity of the table that was followed.
        version: the version of the last commit that was read.
        mark: tells the file of that commit from the file of the same version in a table that was created again. None if
            the file did not exist any more.
        fingerprints: for each partition a number that stands for its files at `version`, also for partitions that are
            never reported. For the partitions in `touched` it is only what their commits seemed to say.
        waiting: days that have no partition in Dagster yet, and the version that changed each of them last.
        touched: partitions that commits have changed since the last snapshot of the table.
    """

    table_id: str
    version: int
    mark: str | None
    fingerprints: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    touched: frozenset[str] = frozenset()

    def to_json(self) -> str:
        """The text that Dagster stores."""
        stored = self.__dict__ | {"touched": sorted(self.touched), "format": _FORMAT}
        return json.dumps(stored, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | None) -> "Cursor | None":
        """The stored cursor. None if there is none, or if it is not ours: then every day is reported once more."""
        try:
            stored = json.loads(text or "null")
            mark = stored["mark"]
            if stored.get("format", 1) not in (1, _FORMAT):
                return None
            # The first format had no `touched`: it added up what commits said, and took no snapshot to correct that.
            touched = stored["touched"] if "format" in stored else [*stored["fingerprints"]]
            return cls(
                table_id=str(stored["table_id"]),
                version=int(stored["version"]),
                mark=None if mark is None else str(mark),
                fingerprints={str(name): int(value) for name, value in stored["fingerprints"].items()},
                waiting={str(name): int(version) for name, version in stored["waiting"].items()},
                touched=frozenset(str(name) for name in touched),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
            return None
