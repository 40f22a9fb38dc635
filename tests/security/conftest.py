import os
from pathlib import Path

import pytest


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file outside of every folder that the pipelines may read: its content must not appear anywhere."""
    path = tmp_path / "elsewhere" / "secret.csv"
    path.parent.mkdir()
    path.write_text("type;full_name;version\nsecret;word;1\n")
    os.utime(path, (0, 0))
    return path
