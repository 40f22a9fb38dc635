"""`pytest tests/docs --site site` keeps the site that the tests build."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--site", metavar="FOLDER", help="build the documentation into this folder")
