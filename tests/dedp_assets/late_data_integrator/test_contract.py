"""Where the tables are."""

from pathlib import Path

import pytest

from dedp_assets.errors import SettingError
from dedp_assets.late_data_integrator import contract


@pytest.mark.parametrize(
    "lake",
    [
        "la%20ke",
        "la%5B1",
        "la\\ke",
        "la\nke",
        "la[1]",
        "la^",
        "la|",
        "s3://bucket/lake#1",
        "s3://bucket/lake?x",
        "abfss://c@a/l#",
    ],
)
def test_a_place_where_deltalake_cannot_put_a_table_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lake: str
) -> None:
    """It reads and writes `la ke` for `la%20ke`, and all tables of s3://bucket/lake#1 in s3://bucket/lake."""
    monkeypatch.setenv("DEDP_DATA_URI", lake if "://" in lake else str(tmp_path / lake))
    with pytest.raises(SettingError, match=r"deltalake can't use.*DEDP_DATA_URI"):
        contract.uri(contract.DEVICES)


@pytest.mark.parametrize("lake", ["la ke", "la{1}", "la*", "la?#", "100%", "lä", "s3://bucket/my%20lake"])
def test_every_other_place_is_as_it_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lake: str) -> None:
    place = lake if "://" in lake else str(tmp_path / lake)
    monkeypatch.setenv("DEDP_DATA_URI", place)
    assert contract.uri(contract.DEVICES) == f"{place}/devices"
