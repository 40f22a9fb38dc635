"""`uploads/report`: an HTML file about the client uploads, and the same figures as numbers in the metadata."""

from typing import Any

import dagster as dg

from dedp_assets.client_uploads import contract
from dedp_assets.client_uploads.charts import Moment
from dedp_assets.client_uploads.figures import Figures, read_figures
from dedp_assets.client_uploads.report import moment, moment_of, numbers, report_html, verdict
from dedp_assets.failures import named_failures
from dedp_assets.pages.writing import write_page
from dedp_assets.resources.postgres import PostgresResource

# The charts of the sensor show this many reports.
_MOST_MOMENTS = 240


@dg.asset(
    key=contract.REPORT,
    deps=[contract.RECORDS],
    # It has no partitions. With this it may be selected along with a range of clients.
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="client_uploads",
    kinds={"html"},
    owners=["team:client-uploads"],
    retry_policy=dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL),
)
def report(context: dg.AssetExecutionContext, postgres: PostgresResource) -> dg.MaterializeResult[None]:
    """What became of the clients' files in the last 30 days, how long they waited, and which directories need somebody.

    The page is in the file that the materialization names, always the latest. Its figures are in the metadata, so that
    the UI plots them over time.
    """
    with named_failures(context.log):
        with postgres.connect() as connection:
            figures = read_figures(connection)
        html = report_html(figures, _moments(context.instance, figures))
        write_page(contract.report_file(), html, page="the report", asset="uploads/report")
    return dg.MaterializeResult(
        metadata=_metadata(figures), data_version=dg.DataVersion(figures.version) if figures.version else None
    )


def _metadata(figures: Figures) -> dict[str, Any]:
    return {
        "file": dg.MetadataValue.path(str(contract.report_file())),
        "verdict": verdict(figures)[1],
        **numbers(figures),
    }


def _moments(instance: dg.DagsterInstance, figures: Figures) -> list[Moment]:
    """What the reports before this one say of the sensor, and this one, oldest first."""
    found = [moment(figures)]
    for record in instance.fetch_materializations(contract.REPORT, limit=_MOST_MOMENTS).records:
        event = record.asset_materialization
        if event is not None:
            found.append(moment_of(record.timestamp, {name: each.value for name, each in event.metadata.items()}))
    return [each for each in reversed(found) if each is not None]
