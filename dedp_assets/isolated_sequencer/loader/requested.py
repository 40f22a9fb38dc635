"""The run config of `devices_file`: what the sensor asks a run to take in."""

import dagster as dg
from pydantic import Field


class LandedFiles(dg.Config):
    """Which file each day is taken in from, and in which version: what the sensor has seen.

    Left empty, as by hand: each day takes its own file if there is one, or else the undated one.
    """

    sources: dict[str, str] = Field({}, description="Day to landed file: `2024-01-03/dataset.csv` or `dataset.csv`.")
    complete: dict[str, str] = Field({}, description="Landed file to the version that was seen to be complete.")
