"""Scenarios of the cookbook run under the settings of the deployment."""

from pathlib import Path

import pytest

import dedp_assets


@pytest.fixture
def scenario_settings() -> Path:
    return Path(dedp_assets.__file__).parent / "deployment" / "dagster.yaml"
