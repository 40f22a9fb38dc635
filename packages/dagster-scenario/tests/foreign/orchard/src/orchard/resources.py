"""What the code locations reach the outside world through."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg


class Yard(dg.ConfigurableResource):
    """The folders that scales, scanners and the office exchange files in."""

    folder: str

    def files(self, kind: str) -> Sequence[Path]:
        """The files of a kind that have arrived, by name."""
        return sorted((Path(self.folder) / "yard").glob(f"*.{kind}"))

    def alert(self, text: str) -> None:
        """Tell the office."""
        with (Path(self.folder) / "alerts.txt").open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")
