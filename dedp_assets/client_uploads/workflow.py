"""The client uploads as one job: whatever starts them, their runs stand in one list, each with its origin."""

import dagster as dg

from dedp_assets.client_uploads import contract

# A run is of some of these assets: of the first two for some files, or of the report. The report does not follow within
# the same run: a run that takes files records what it has made by itself, so Dagster would skip what depends on it.
WORKFLOW = dg.define_asset_job(
    "uploads_workflow",
    selection=dg.AssetSelection.assets(contract.RECEIVED, contract.RECORDS, contract.REPORT),
    description=(
        "Takes what clients have uploaded, or makes the report. Started by a file, a schedule, an HTTP call or a rule: "
        "the tag dedp/origin of a run says which."
    ),
)
