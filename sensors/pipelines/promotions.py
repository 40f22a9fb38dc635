"""What the promotions' deliveries watch: the folders of all suppliers, and whatever stays behind them."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import dagster as dg

from dedp_assets import settings
from dedp_assets.landing.copies import read_refusal
from dedp_assets.landing.deliveries import MAX_DELIVERIES_PER_RUN, Key, Ready, is_day
from dedp_assets.landing.delivery_copies import Copy, read_copy, record_file
from dedp_assets.landing.versions import FileVersion
from dedp_assets.notifications.notification import Notification
from dedp_assets.origin import origin_tag
from dedp_assets.partition_runs import partitions_of, runs_in_progress
from dedp_assets.promotions import contract
from dedp_assets.promotions.contract import Delivery
from dedp_assets.promotions.deliveries.config import Deliveries, ToTake, to_take
from dedp_assets.promotions.deliveries.tables import LoadState, ensure_tables, loaded_versions, loads_since
from sensors.deliveries import DeliveryPipeline, delivery_sensor
from sensors.reconciliation import CAUSE_TAG, Observation, Waiting, describe_cause, reconciling_sensor

TARGETS = [contract.RAW, contract.CLEANED, contract.METRICS]
LINES_CHECK = dg.AssetCheckKey(contract.CLEANED, "lines_accounted_for")
MISSING_CHECK = "every_supplier_delivered"

# Each tick of the reconciliation reads so many of our copies: those of the last days, and of the others in turn.
_COPIES_PER_TICK = 50
# After so many ticks all loads are compared with their metrics, and not only the new ones.
_FULL_COMPARISON_TICKS = 60
# A first tick looks for the materializations of so many of the last loads.
_LAST_LOADS = 100


def _taken(context: dg.SensorEvaluationContext, keys: Iterable[Key]) -> dict[Key, Mapping[str, FileVersion]]:
    copies = {key: copy for key in keys if (copy := read_copy(contract.internal_folder(Delivery(*key)))) is not None}
    with context.resources.postgres.connect() as connection:
        ensure_tables(connection)
        loaded = loaded_versions(connection, copies)
    return {key: copy.sources for key, copy in copies.items() if not _is_behind(Delivery(*key), copy, loaded)}


def _is_behind(delivery: Delivery, copy: Copy, loaded: Mapping[Delivery, str]) -> bool:
    """Whether a copy could be loaded, and is not."""
    if loaded.get(delivery) == copy.version:
        return False
    refusal = read_refusal(record_file(contract.internal_folder(delivery)))
    return refusal is None or refusal.sha256 != copy.version


def _run_config(deliveries: Sequence[ToTake]) -> dg.RunConfig:
    return dg.RunConfig(ops={"promotion_deliveries": Deliveries(deliveries=list(deliveries), again=False)})


def _deliveries_of(run: dg.DagsterRun) -> Iterator[Key]:
    """The deliveries of any run of these assets, whoever has started it."""
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
    return _run_config(to_take(ready))


promotions_delivered = delivery_sensor(
    "promotions_delivered",
    DeliveryPipeline(
        targets=TARGETS,
        checks=[LINES_CHECK],
        suppliers=contract.SUPPLIERS.get_partition_keys,
        landing=contract.landing_folder,
        copies=lambda supplier: settings.internal() / "promotions" / supplier,
        settle_seconds=settings.settle_seconds,
        first_day=contract.DAYS.start.date().isoformat(),
        window_closes=contract.window_closes,
        taken=_taken,
        run_config=_ready_config,
        partition=lambda key: Delivery(*key).key,
        deliveries_of=_deliveries_of,
        missing_check=MISSING_CHECK,
        notify=_notify,
    ),
    description="Takes each supplier's delivery as soon as it is complete, and reports those that are missing.",
    required_resource_keys={"postgres", "notifier"},
)


def loads_behind(loads: Sequence[LoadState], reported: Mapping[Delivery, str]) -> dict[Delivery, str]:
    """Loads that are not measured, or of which Dagster does not know.

    Args:
        loads: Loads, in the order of their numbers.
        reported: The version in the last materialization of `promotions/metrics`, for those loads to be compared. ""
            if there is none.

    Returns:
        For each of these deliveries what is wrong, with the version and the load.
    """
    behind = {}
    for load in loads:
        if not load.is_measured:
            behind[load.delivery] = f"not measured: {load.version} {load.load_number}"
        elif reported.get(load.delivery, load.version) != load.version:
            behind[load.delivery] = f"not reported: {load.version}"
    return behind


class _Progress:
    """How far this process has compared. A new process begins again, which costs one full comparison."""

    def __init__(self) -> None:
        self._compared: int | None = None
        self._ticks = 0
        self._turns = count()

    def since(self) -> int:
        """After which load to compare loads."""
        self._ticks += 1
        if self._compared is None or self._ticks % _FULL_COMPARISON_TICKS == 0:
            return 0
        return self._compared

    def is_first(self) -> bool:
        """Whether nothing was compared before."""
        return self._compared is None

    def compared(self, loads: Sequence[LoadState], behind: Mapping[Delivery, str]) -> None:
        """Note that these loads were compared. Those that are behind will be again."""
        first_behind = next((load.load_number for load in loads if load.delivery in behind), None)
        last = max([self._compared or 0, *(load.load_number for load in loads[-1:])])
        self._compared = last if first_behind is None else first_behind - 1

    def copies(self) -> list[Delivery]:
        """The copies whose turn it is."""
        found: list[Delivery] = []
        for supplier in contract.SUPPLIERS.get_partition_keys():
            folder = settings.internal() / "promotions" / supplier
            days = sorted(filter(is_day, _names_in(folder)))
            share = _COPIES_PER_TICK // 2
            turns = max(1, -(-len(days) // share))
            begin = next(self._turns) % turns * share
            found += [Delivery(supplier, day) for day in dict.fromkeys([*days[-3:], *days[begin : begin + share]])]
        return found


def _names_in(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []


_progress = _Progress()


def _observe(context: dg.SensorEvaluationContext, notes: list[str]) -> Observation:
    # Read the runs before the copies and the loads. Otherwise a run that ends in between would be requested again.
    in_progress = {
        Delivery(*key).key
        for target in TARGETS
        for run in runs_in_progress(context.instance, target)
        for key in _deliveries_of(run)
    }
    copies = {
        delivery: copy
        for delivery in _progress.copies()
        if (copy := read_copy(contract.internal_folder(delivery))) is not None
    }
    is_first, since = _progress.is_first(), _progress.since()
    with context.resources.postgres.connect() as connection:
        ensure_tables(connection)
        loaded = loaded_versions(connection, copies)
        loads = loads_since(connection, since)
    to_look_up = loads[-_LAST_LOADS:] if is_first or since == 0 else loads
    behind = loads_behind(loads, {load.delivery: _reported(context.instance, load.delivery) for load in to_look_up})
    _progress.compared(loads, behind)
    for delivery, copy in copies.items():
        if _is_behind(delivery, copy, loaded):
            behind[delivery] = f"not loaded: {copy.version}"
    return Observation({delivery.key: why for delivery, why in behind.items()}, in_progress)


def _reported(instance: dg.DagsterInstance, delivery: Delivery) -> str:
    """The version in the last materialization of a delivery's metrics; "" if there is none."""
    latest = dg.AssetRecordsFilter(contract.METRICS, asset_partitions=[delivery.key])
    for record in instance.fetch_materializations(latest, limit=1).records:
        materialization = record.asset_materialization
        return (materialization.tags or {}).get("dagster/data_version", "") if materialization else ""
    return ""


def _shared_requests(waiting: Mapping[str, Waiting]) -> list[dg.RunRequest]:
    """Runs for deliveries that are behind, many of them in one."""
    keys = sorted(waiting)
    requests = []
    for group in (keys[at : at + MAX_DELIVERIES_PER_RUN] for at in range(0, len(keys), MAX_DELIVERIES_PER_RUN)):
        inputs = hashlib.sha256(json.dumps([waiting[key] for key in group]).encode()).hexdigest()[:16]
        deliveries = [Delivery.of_key(key) for key in group]
        requests.append(
            dg.RunRequest(
                run_key=f"{group[0]}:{inputs}",
                asset_selection=TARGETS,
                asset_check_keys=[LINES_CHECK],
                run_config=_run_config(
                    [ToTake(supplier=each.supplier, day=each.day, look="", ready_at="") for each in deliveries]
                ),
                partition_key=deliveries[0].key if len(group) == 1 else None,
                tags={CAUSE_TAG: describe_cause([waiting[key] for key in group]), **origin_tag("rule")},
            )
        )
    return requests


promotions_reconciled = reconciling_sensor(
    "promotions_reconciled",
    TARGETS,
    _observe,
    description="Requests deliveries whose load or metrics stay behind our copy, whatever events say.",
    request=_shared_requests,
    required_resource_keys={"postgres"},
)
