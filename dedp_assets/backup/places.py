"""Where the parts of a system are, and which of them a backup has."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dedp_assets.resources import object_store

# In a home, but not in its backup: what the dump has, what is made anew, what a running system needs, and secrets.
NOT_COPIED = ("postgres", "spark", "run", "logs", "dagster", "up.pid", "demo")

# The parts of a backup, in the order in which they are copied: what was made before what it was made from.
LAKE, INTERNAL, HOME, LANDING, LOGS = "lake", "internal", "home", "landing", "logs"


@dataclass(frozen=True)
class Places:
    """The places of a system.

    Attributes:
        home: DEDP_HOME.
        internal: the folder of our copies.
        landing: the folder where files arrive.
        lake: the folder or URI of the Delta tables.
        logs: the folder of the output of runs.
        database: the folder of the embedded server; None if the database is elsewhere.
        temporary: folders with copies that runs need only while they are under way.
        sources: the names of the Delta tables from which others are made, to be copied last.
    """

    home: Path
    internal: Path
    landing: Path
    lake: str
    logs: Path
    database: Path | None = None
    temporary: Sequence[Path] = ()
    sources: Sequence[str] = ()

    def is_in_home(self, place: str | Path) -> bool:
        """Whether a folder is the home, or below it."""
        return Path(place) == self.home or self.home in Path(place).parents

    def around(self, folder: Path) -> Path | None:
        """Which place of the system a folder is in; None if it is in none."""
        local = [] if object_store.is_object_store(self.lake) else [Path(self.lake)]
        own = (self.home, self.internal, self.landing, self.logs, *local)
        return next((place for place in own if folder.is_relative_to(place)), None)
