"""The event that tells Dagster that a day has changed."""

import dagster as dg

from sensors.delta_commits.planning import ChangedDay


def materialization(key: dg.AssetKey, change: ChangedDay) -> dg.AssetMaterialization:
    """The materialization of a changed day, with the version of the table as its data version.

    Args:
        key: the asset that stands for the table.
        change: the day, and what is known of its change.
    """
    metadata: dict[str, dg.MetadataValue] = {"version": dg.MetadataValue.int(change.version)}
    if change.commits:
        metadata |= _commit_metadata(change)
    if change.files is not None:
        metadata["files"] = dg.MetadataValue.int(change.files)
    return dg.AssetMaterialization(
        key,
        partition=change.day,
        metadata=metadata,
        tags={"dagster/data_version": str(change.version)},
    )


def _commit_metadata(change: ChangedDay) -> dict[str, dg.MetadataValue]:
    commits = change.commits
    changes = [commit.changes[change.day] for commit in commits]
    metadata: dict[str, dg.MetadataValue] = {
        "operation": dg.MetadataValue.text(", ".join(dict.fromkeys(commit.operation for commit in commits))),
        "committed": dg.MetadataValue.timestamp(commits[-1].timestamp),
        "files_added": dg.MetadataValue.int(sum(each.files_added for each in changes)),
        "files_removed": dg.MetadataValue.int(sum(each.files_removed for each in changes)),
    }
    rows = {
        "rows_added": [each.rows_added for each in changes],
        "rows_removed": [each.rows_removed for each in changes],
    }
    for name, numbers in rows.items():
        known = [number for number in numbers if number is not None]
        if len(known) == len(numbers):  # A sum that leaves out a commit would be wrong.
            metadata[name] = dg.MetadataValue.int(sum(known))
    if len(commits) > 1:
        metadata["commits"] = dg.MetadataValue.json([commit.version for commit in commits])
    return metadata
