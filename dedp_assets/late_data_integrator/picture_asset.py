"""The picture of late data as an asset: always the latest, in Dagster's UI."""

import base64
import io
from collections.abc import Sequence
from datetime import datetime, timezone

import dagster as dg

from dedp_assets.late_data_integrator import contract, lake, overview
from dedp_assets.late_data_integrator.picture import Timeline, late_data_picture, timelines
from dedp_assets.resources.object_store import write_bytes

# Of the picture in an event. Every event stays in Dagster's database, with its picture a third larger than this.
MAX_BYTES = 7_400

# What is tried for the picture in the event, in pixels: as it is, and smaller. The quality, of 100, is that of WebP.
_WIDTHS = (920, 760, 620, 540, 460, 400, 320, 240)
_QUALITY = 30


@dg.asset(
    key=contract.LATE_DATA_PICTURE,
    deps=[contract.PARTITIONS_STATE],
    # It has no partitions; with this it may be selected along with a range of those that have.
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="late_data_integrator",
    kinds={"matplotlib"},
)
def picture() -> dg.MaterializeResult:
    """When each day of lake/devices was loaded, what came late, and what of it the counts reflect.

    The picture is in the file that the materialization names, always the latest, and a small one in its metadata.
    `dedp late --picture` writes the same to another file.
    """
    progress = overview.look(in_progress=())
    history = overview.read_history(lake.devices_log(), progress.snapshot.version)
    days = timelines(progress, history, overview.known_days(datetime.now(timezone.utc)))
    png = late_data_picture(days, history.missing)
    uri = f"{contract.uri(contract.LATE_DATA_PICTURE)}.png"
    write_bytes(uri, png)
    return dg.MaterializeResult(
        metadata={
            "file": dg.MetadataValue.path(uri),
            "picture": dg.MetadataValue.md(embedded(png)),
            **metadata_of(days, len(progress.late), history.missing),
        }
    )


def metadata_of(days: Sequence[Timeline], behind: int, missing: int) -> dict[str, dg.MetadataValue]:
    """What the UI shows beside the picture.

    behind: days with late data that is not in the counts. missing: older commits that are not shown.
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
    """Markdown with the picture in it, or a smaller one; with words where the smallest is too large for an event."""
    small = in_few_bytes(png)
    if small is None:
        return "The picture is in the file; it has too much in it to be shown small."
    return f"![late data](data:image/webp;base64,{base64.b64encode(small).decode()})"


def in_few_bytes(png: bytes) -> bytes | None:
    """The picture as a WebP, as large as it can be in MAX_BYTES; None if there is no such size."""
    # Not at the top: a code location need not wait for it.
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
