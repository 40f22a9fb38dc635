"""The picture of late data as an asset: always the latest, in Dagster's UI."""

import base64
from collections.abc import Sequence
from datetime import datetime, timezone

import dagster as dg

from dedp_assets.late_data_integrator import contract, lake, overview
from dedp_assets.late_data_integrator.picture import Timeline, late_data_picture, timelines

# Of the PNG. Every event that holds a picture stays in Dagster's database, a third larger than this.
MAX_BYTES = 150_000


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

    The picture is in the metadata of the materialization. `dedp late --picture` writes the same to a file.
    """
    progress = overview.look(in_progress=())
    history = overview.read_history(lake.devices_log(), progress.snapshot.version)
    days = timelines(progress, history, overview.known_days(datetime.now(timezone.utc)))
    return dg.MaterializeResult(metadata=metadata_of(days, len(progress.late), history.missing))


def metadata_of(days: Sequence[Timeline], behind: int, missing: int) -> dict[str, dg.MetadataValue]:
    """What the UI shows. behind: days with late data not in the counts; missing: older commits not shown."""
    late = {dot.version for timeline in days for dot in timeline.dots if dot.kind == "late"}
    return {
        "picture": dg.MetadataValue.md(embedded(late_data_picture(days, missing))),
        "days": dg.MetadataValue.int(len(days)),
        "commits": dg.MetadataValue.int(len({dot.version for timeline in days for dot in timeline.dots})),
        "late_commits": dg.MetadataValue.int(len(late)),
        "days_behind": dg.MetadataValue.int(behind),
        "older_commits_not_shown": dg.MetadataValue.int(missing),
    }


def embedded(png: bytes) -> str:
    """Markdown with the picture in it; with words in place of one that is too large for an event."""
    if len(png) > MAX_BYTES:
        return (
            f"The picture takes {len(png):,} bytes, more than the {MAX_BYTES:,} that are kept in an event. "
            "`dedp late --picture late.png` writes it to a file."
        )
    return f"![late data](data:image/png;base64,{base64.b64encode(png).decode()})"
