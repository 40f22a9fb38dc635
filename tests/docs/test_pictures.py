"""Every picture of the UI in the documents is taken by a test of the UI, and so can be taken again."""

import re

from dedp_assets import settings

TAKES = (settings.REPOSITORY / "tests" / "browser" / "test_ui.py").read_text()


def test_the_pictures_are_those_that_the_browser_takes() -> None:
    taken = set(re.findall(r'photograph\(\w+, "(\w+)"\)', TAKES))
    assert {picture.stem for picture in (settings.REPOSITORY / "docs" / "images").glob("*.png")} == taken
