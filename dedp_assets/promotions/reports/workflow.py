"""The reports on promotions as one job: whatever starts them, their runs stand in one list, each with its origin."""

import dagster as dg

from dedp_assets.promotions import contract

WORKFLOW = dg.define_asset_job(
    "promotion_reports_workflow",
    selection=dg.AssetSelection.assets(contract.DIFFERENCES, contract.DASHBOARD, contract.NOTIFICATION),
    description="Compares deliveries with those before them, draws the dashboard, and tells people of each delivery.",
)
