"""Where devices files arrive, and which of them belongs to which day."""

import os
from pathlib import Path

from dedp_assets import settings

FILE_NAME = "dataset.csv"


def folder() -> Path:
    """The landing folder of the devices."""
    return settings.landing() / "devices"


def undated_file() -> Path:
    """The one file that every day takes for which nothing else has come."""
    return folder() / FILE_NAME


def dated_file(partition_key: str) -> Path:
    """The file that came for one day."""
    return folder() / partition_key / FILE_NAME


def file_of(partition_key: str) -> Path:
    """The file that a day takes: its own if there is one, usable or not, or else the undated one."""
    dated = dated_file(partition_key)
    return dated if os.path.lexists(dated) else undated_file()
