"""Deprecated: the test harness is a distribution of its own now. Import it from `dagster_scenario`."""

import warnings

from dagster_scenario import *  # noqa: F403

warnings.warn(
    "dedp_assets.testing is deprecated; import the same names from dagster_scenario", DeprecationWarning, stacklevel=2
)
