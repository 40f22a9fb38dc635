"""The test harness at its old place."""

import importlib
import sys

import dagster_scenario
import pytest


def test_the_old_place_has_the_same_names_and_says_where_they_are_now() -> None:
    sys.modules.pop("dedp_assets.testing", None)
    with pytest.warns(DeprecationWarning, match="import the same names from dagster_scenario"):
        testing = importlib.import_module("dedp_assets.testing")
    assert {name: getattr(testing, name) for name in dagster_scenario.__all__} == {
        name: getattr(dagster_scenario, name) for name in dagster_scenario.__all__
    }
