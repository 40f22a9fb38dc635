"""What the promotions' deliveries watch: the folders of all suppliers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from dedp_assets import settings
from dedp_assets.doorbell.woken_by import woken_by
from dedp_assets.landing.copies import read_refusal
from dedp_assets.landing.deliveries import Key, Ready
from dedp_assets.landing.delivery_copies import Copy, read_copy, record_file
from dedp_assets.landing.versions import FileVersion
from dedp_assets.notifications.notification import Notification
from dedp_assets.partition_runs import partitions_of
from dedp_assets.promotions import contract
from dedp_assets.promotions.contract import Delivery
from dedp_assets.promotions.deliveries.config import Deliveries, ToTake, to_take
from dedp_assets.promotions.deliveries.refresh_request import JOB, asked_for
from dedp_assets.promotions.deliveries.tables import ensure_tables, loaded_versions
from sensors.deliveries import DeliveryPipeline, delivery_sensor

TARGETS = [contract.RAW, contract.CLEANED, contract.METRICS]
LINES_CHECK = dg.AssetCheckKey(contract.CLEANED, "lines_accounted_for")
MISSING_CHECK = "every_supplier_delivered"


def _taken(context: dg.SensorEvaluationContext, keys: Iterable[Key]) -> dict[Key, Mapping[str, FileVersion]]:
    copies = copies_of(Delivery(*key) for key in keys)
    with context.resources.postgres.connect() as connection:
        ensure_tables(connection)
        loaded = loaded_versions(connection, copies)
    return {delivery: copy.sources for delivery, copy in copies.items() if not is_behind(delivery, copy, loaded)}


def copies_of(deliveries: Iterable[Delivery]) -> dict[Delivery, Copy]:
    """Our copies of these deliveries. Those that have none are missing."""
    root = contract.internal_folders()  # looked up once: a tick asks for many
    return {delivery: copy for delivery in deliveries if (copy := read_copy(root.joinpath(*delivery))) is not None}


def is_behind(delivery: Delivery, copy: Copy, loaded: Mapping[Delivery, str]) -> bool:
    """Whether a copy could be loaded, and is not."""
    if loaded.get(delivery) == copy.version:
        return False
    refusal = read_refusal(record_file(contract.internal_folder(delivery)))
    return refusal is None or refusal.sha256 != copy.version


def run_config(deliveries: Sequence[ToTake]) -> dg.RunConfig:
    """What a run is told: the deliveries that it takes, each unless it was taken already."""
    return dg.RunConfig(ops={"promotion_deliveries": Deliveries(deliveries=list(deliveries), again=False)})


def deliveries_of(run: dg.DagsterRun) -> Iterator[Key]:
    """The deliveries that any run takes, whoever has started it."""
    if run.job_name == JOB:
        yield from asked_for(run)
        return
    config: Any = run.run_config
    listed = config.get("ops", {}).get("promotion_deliveries", {}).get("config", {}).get("deliveries", [])
    for delivery in listed:
        yield Delivery(delivery["supplier"], delivery["day"])
    if not listed:
        yield from map(Delivery.of_key, partitions_of(run, contract.DELIVERIES))


def _notify(context: dg.SensorEvaluationContext, key: Key) -> None:
    supplier, day = key
    closed = contract.window_closes(day).isoformat(sep=" ", timespec="minutes")
    context.resources.notifier.send(
        Notification(
            key=f"promotions/missing/{supplier}/{day}",
            subject=f"{supplier} has not delivered its promotions of {day}",
            text=f"The window closed at {closed} UTC. A complete delivery has data files and the marker _SUCCESS in "
            f"{contract.landing_folder() / supplier / day}. It is taken also when it comes later.",
            severity="warning",
        )
    )


def _ready_config(ready: Sequence[Ready]) -> dg.RunConfig:
    return run_config(to_take(ready))


PIPELINE = DeliveryPipeline(
    targets=TARGETS,
    checks=[LINES_CHECK],
    suppliers=contract.SUPPLIERS.get_partition_keys,
    landing=contract.landing_folder,
    copies=lambda supplier: contract.internal_folders() / supplier,
    settle_seconds=settings.settle_seconds,
    first_day=contract.DAYS.start.date().isoformat(),
    window_closes=contract.window_closes,
    taken=_taken,
    run_config=_ready_config,
    partition=lambda key: Delivery(*key).key,
    deliveries_of=deliveries_of,
    missing_check=MISSING_CHECK,
    notify=_notify,
    jobs=[JOB],
)

promotions_delivered = delivery_sensor(
    "promotions_delivered",
    PIPELINE,
    description="Takes each supplier's delivery as soon as it is complete, and reports those that are missing.",
    required_resource_keys={"postgres", "notifier"},
    metadata=woken_by(folders="sensors.watched_folders:promotions", own_runs=True, polls=True),
)
