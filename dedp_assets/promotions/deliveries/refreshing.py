"""The job `refresh_supermarket`, which other systems start: it takes one delivery, as the assets would.

It is no job of assets. Those have partitions, for which Dagster knows no function that checks and maps a config.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from dedp_assets.failures import named_failures
from dedp_assets.landing.copies import named_storage_errors
from dedp_assets.landing.deliveries import READY, directory_of, state_of
from dedp_assets.landing.delivery_copies import NotDelivered, read_copy
from dedp_assets.landing.directories import scan_directory
from dedp_assets.partition_runs import PARTITION_TAG
from dedp_assets.promotions import contract
from dedp_assets.promotions.contract import Delivery
from dedp_assets.promotions.deliveries.assets import RETRIES, take_deliveries
from dedp_assets.promotions.deliveries.config import ToTake
from dedp_assets.promotions.deliveries.refresh_request import JOB, PARAMETERS, Refresh, checked
from dedp_assets.resources.postgres import PostgresResource

_TAKEN = (contract.RAW, contract.CLEANED, contract.METRICS)


def latest_delivery(supplier: str) -> Delivery:
    """The latest delivery of a supplier: one that is complete in the landing folder, or that we have a copy of.

    Raises:
        NotDelivered: There is none.
    """
    landed, copied = contract.landing_folder() / supplier, contract.internal_folders() / supplier
    for day in sorted({*_names_in(landed), *_names_in(copied)}, reverse=True):
        if contract.DAYS.has_partition_key(day) and _is_there(Delivery(supplier, day)):
            return Delivery(supplier, day)
    raise NotDelivered(
        f"{supplier} has no complete delivery: {landed} has no day with data files and a marker _SUCCESS"
    )


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []  # nothing was delivered, or copied, yet


def _is_there(delivery: Delivery) -> bool:
    if read_copy(contract.internal_folder(delivery)) is not None:
        return True
    return state_of(scan_directory(directory_of(contract.landing_folder(), delivery))) in READY


@dg.op(retry_policy=RETRIES)
def refresh(context: dg.OpExecutionContext, config: Refresh, postgres: PostgresResource) -> None:
    """Take a delivery, with the work and the records of the assets promotions/raw, cleaned and metrics."""
    with named_failures(context.log), named_storage_errors(f"list the deliveries of {config.supplier}"):
        delivery = Delivery(config.supplier, config.day) if config.day else latest_delivery(config.supplier)
    context.instance.add_run_tags(context.run_id, {PARTITION_TAG: delivery.key})
    asked = ToTake(supplier=delivery.supplier, day=delivery.day, look="", ready_at="")
    for evaluation in take_deliveries(context, postgres, [asked], again=config.again, selected=_TAKEN, is_checked=True):
        context.log_event(evaluation)  # type: ignore[arg-type]  # Dagster takes it, and its annotation lacks it


@dg.config_mapping(config_schema=PARAMETERS)
def config_of(request: Mapping[str, Any]) -> dict[str, object]:
    """The config of the run. It is made while the caller waits, so that a wrong request never becomes a run."""
    return {"ops": {"refresh": {"config": checked(request).model_dump()}}}


@dg.job(name=JOB, config=config_of)
def refresh_supermarket() -> None:
    """Takes the delivery of a supermarket: the one of a day, or its latest. Loads nothing that is loaded already."""
    refresh()
