"""The picture of late data as an asset. Dagster's UI shows the latest one."""

import base64
import io
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import dagster as dg

from dedp_assets.failures import named_failures
from dedp_assets.late_data_integrator import contract, overview
from dedp_assets.late_data_integrator.picture import Timeline, late_data_picture, timelines
from dedp_assets.late_data_integrator.tables import observe_progress, open_devices_log
from dedp_assets.resources.lake import LakeResource
from dedp_assets.resources.object_store import write_bytes

# The greatest size of a picture in an event. Dagster's database keeps every event, with the picture a third larger.
MAX_BYTES = 7_400

# The widths, in pixels, that we try for the picture in the event: the first is its own. The quality is WebP's, of 100.
_WIDTHS = (920, 760, 620, 540, 460, 400, 320, 240)
_QUALITY = 30


@dg.asset(
    key=contract.LATE_DATA_PICTURE,
    deps=[contract.PARTITIONS_STATE],
    # It has no partitions. With this policy it can be selected together with a range of assets that have partitions.
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="late_data_integrator",
    kinds={"matplotlib"},
)
def picture(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult[None]:
    """When each day of lake/devices was loaded, what came late, and which of these commits the counts reflect.

    The materialization names a file that always has the latest picture. Its metadata has a small copy of the picture.
    `dedp late --picture` draws the same into another file.
    """
    with named_failures(context.log):
        progress = observe_progress(lake, in_progress=())
        history = overview.read_history(open_devices_log(lake), progress.snapshot.version)
        days = timelines(progress, history, overview.known_days(datetime.now(timezone.utc)))
        png = late_data_picture(days, history.missing)
        uri = f"{lake.table_uri(contract.LATE_DATA_PICTURE)}.png"
        write_bytes(uri, png)
    return dg.MaterializeResult(
        metadata={
            "file": dg.MetadataValue.path(uri),
            "picture": dg.MetadataValue.md(embedded(png)),
            **metadata_of(days, len(progress.late), history.missing),
        }
    )


def metadata_of(days: Sequence[Timeline], behind: int, missing: int) -> dict[str, dg.MetadataValue[Any]]:
    """What the UI shows beside the picture.

    Args:
        days: the days in the picture.
        behind: how many days have late data that is not in the counts.
        missing: how many older commits are not in the picture.
    """
    late = {dot.version for timeline in days for dot in timeline.dots if dot.kind == "late"}
    return {
        "days": dg.MetadataValue.int(len(days)),
        "commits": dg.MetadataValue.int(len({dot.version for timeline in days for dot in timeline.dots})),
        "late_commits": dg.MetadataValue.int(len(late)),
        "days_behind": dg.MetadataValue.int(behind),
        "older_commits_not_shown": dg.MetadataValue.int(missing),
    }


def embedded(png: bytes) -> str:
    """Markdown that has the picture in it, made smaller if needed. If no size fits into an event, it is a sentence."""
    small = small_enough(png)
    if small is None:
        return "The picture is in the file; it has too much in it to be shown small."
    return f"![late data](data:image/webp;base64,{base64.b64encode(small).decode()})"


def small_enough(png: bytes) -> bytes | None:
    """The picture as WebP, in the greatest width that fits into MAX_BYTES; None if no width does."""
    # Imported here because a code location would load more slowly with it.
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for width in _WIDTHS:
        size = (width, max(1, round(picture.height * width / picture.width)))
        scaled = picture if width >= picture.width else picture.resize(size, Image.Resampling.LANCZOS)
        content = io.BytesIO()
        scaled.save(content, format="webp", quality=_QUALITY, method=6)
        if content.tell() <= MAX_BYTES:
            return content.getvalue()
    return None
