"""The timeline as one HTML page that needs no other file: lanes, a column for each time, and all of it in words.

It works without JavaScript; with it, a box tells what a sign means and the table can be filtered. The page is
well-formed XML as well, so that a test can read it.
"""

from dagster_scenario.page.document import render

__all__ = ["render"]
