"""What a run is told of the deliveries that it takes: typed and validated."""

from collections.abc import Iterable
from datetime import datetime, timezone

import dagster as dg
from pydantic import Field, field_validator

from dedp_assets.landing.deliveries import Ready, is_day
from dedp_assets.promotions.contract import SUPPLIERS, Delivery


class ToTake(dg.Config):
    """A delivery to take. If nobody has seen it complete, the run finds out whether it is."""

    supplier: str = Field(description="One of DEDP_SUPPLIERS, such as supermarket1.")
    day: str = Field(description="The day that it is for, such as 2024-01-05.")
    look: str = Field("", description="What it looked like when the sensor saw it complete, or empty.")
    ready_at: str = Field("", description="Since when the sensor has seen it complete, as ISO 8601, or empty: now.")

    @field_validator("supplier")
    @classmethod
    def _check_supplier(cls, supplier: str) -> str:
        known = SUPPLIERS.get_partition_keys()
        if supplier not in known:
            raise ValueError(f"expected a supplier of DEDP_SUPPLIERS ({', '.join(known)}), found {supplier!r}")
        return supplier

    @field_validator("day")
    @classmethod
    def _check_day(cls, day: str) -> str:
        if not is_day(day):
            raise ValueError(f"expected a day such as 2024-01-05, found {day!r}")
        return day

    @field_validator("ready_at")
    @classmethod
    def _check_time(cls, time: str) -> str:
        if time and datetime.fromisoformat(time).tzinfo is None:
            raise ValueError(f"expected a time with its offset, such as 2024-01-31T18:00:00+00:00, found {time!r}")
        return time

    @property
    def delivery(self) -> Delivery:
        """Which one."""
        return Delivery(self.supplier, self.day)

    @property
    def ready(self) -> datetime:
        """Since when it is known to be complete, in UTC."""
        return datetime.fromisoformat(self.ready_at) if self.ready_at else datetime.now(timezone.utc)


class Deliveries(dg.Config):
    """The deliveries that a run takes. Left empty, as by hand: those of its partitions."""

    deliveries: list[ToTake] = Field([], description="In the order in which they are taken.")
    again: bool = Field(False, description="Load also versions that are loaded, for example after a change of a rule.")


def to_take(ready: Iterable[Ready]) -> list[ToTake]:
    """What a run is told of deliveries that the sensor has found complete."""
    return [
        ToTake(
            supplier=each.key[0],
            day=each.key[1],
            look=each.look,
            ready_at=datetime.fromtimestamp(each.ready_since, timezone.utc).isoformat(timespec="milliseconds"),
        )
        for each in ready
    ]
