"""What a run config may ask for."""

from pathlib import Path

import pytest

from dedp_assets.landing.copying import NotCopied
from dedp_assets.landing.dated import DatedFolder
from dedp_assets.landing.taking_in import LandedFiles, TakingIn


def test_a_version_that_is_none_is_named_with_what_is_expected(tmp_path: Path) -> None:
    config = LandedFiles(complete={"2024-01-03/dataset.csv": "yesterday"})
    with pytest.raises(
        NotCopied, match=r"gives 2024-01-03/dataset.csv the version 'yesterday'; expected .* such as 120:"
    ):
        TakingIn(DatedFolder(tmp_path, "dataset.csv"), lambda day: tmp_path / day / "dataset.csv", config, 2.0)
