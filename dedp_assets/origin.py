"""What has started a run: the tag that says it, so that the runs of one workflow can be told apart."""

from typing import Literal

ORIGIN_TAG = "dedp/origin"

# A run without the tag was started by hand.
Origin = Literal["file", "schedule", "http", "rule", "sensor"]


def origin_tag(origin: Origin) -> dict[str, str]:
    """The tag of a run, to add to its other tags."""
    return {ORIGIN_TAG: origin}
