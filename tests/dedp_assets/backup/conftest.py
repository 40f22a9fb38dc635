from collections.abc import Iterator
from pathlib import Path

import pytest

from dedp_assets.backup.archive import Draft


@pytest.fixture
def draft(tmp_path: Path) -> Iterator[Draft]:
    """A backup that is being written, and never completed."""
    folder = tmp_path / "draft"
    folder.mkdir()
    with open(folder / "files.jsonl", "xb") as listed:
        yield Draft(folder, listed)
