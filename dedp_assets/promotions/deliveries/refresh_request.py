"""What another system may ask for: `{"supermarket_id": 1}`. It is checked before there is a run."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from dedp_assets.errors import PermanentError
from dedp_assets.partition_runs import PARTITION_TAG
from dedp_assets.promotions.contract import DAYS, SUPPLIERS, Delivery

JOB = "refresh_supermarket"


class RefusedRequest(PermanentError, dg.DagsterError):
    """There is no such supermarket, or no such day.

    It is a DagsterError, so that Dagster shows it as it is, and not as an unexpected error of a config mapping.
    """


# Not a dg.Config: in one, a value may also be {"env": "NAME"}, and a refusal would show our environment to the caller.
PARAMETERS = {
    "supermarket_id": dg.Field(dg.Int, description="The number at the end of a name in DEDP_SUPPLIERS."),
    "day": dg.Field(
        dg.Noneable(dg.String),
        is_required=False,
        description="Such as 2024-01-05. Without it, the latest that was delivered.",
    ),
    "again": dg.Field(
        dg.Bool,
        default_value=False,
        description="Load also a version that is loaded, for example after a change of a rule.",
    ),
}


class Refresh(dg.Config):
    """A request that was checked."""

    supplier: str
    day: str | None
    again: bool


def checked(request: Mapping[str, Any]) -> Refresh:
    """What a request means.

    Args:
        request: Values of PARAMETERS.

    Raises:
        RefusedRequest: There is no such supermarket, or no such day.
    """
    return Refresh(
        supplier=_supplier(request["supermarket_id"]),
        day=_day(request.get("day")),
        again=request.get("again", False),
    )


def _supplier(supermarket_id: int) -> str:
    numbered = [(int(end[0]), name) for name in SUPPLIERS.get_partition_keys() if (end := re.search(r"\d+$", name))]
    found = [name for number, name in numbered if number == supermarket_id]
    if len(found) == 1:
        return found[0]
    if found:
        raise RefusedRequest(f"there are several supermarkets {supermarket_id} in DEDP_SUPPLIERS: {', '.join(found)}")
    known = ", ".join(str(number) for number, _ in numbered) or "none, because no name in DEDP_SUPPLIERS has a number"
    raise RefusedRequest(f"there is no supermarket {supermarket_id}; expected one of {known}")


def _day(day: str | None) -> str | None:
    if day is not None and not DAYS.has_partition_key(day):
        first, last = DAYS.get_first_partition_key(), DAYS.get_last_partition_key()
        raise RefusedRequest(f"expected a day from {first} to {last}, found {day!r}")
    return day


def asked_for(run: dg.DagsterRun) -> Iterator[Delivery]:
    """The delivery that a run of the job takes. Without a day in its request, it has chosen one once it has begun."""
    try:
        request = checked(run.run_config)
    except (RefusedRequest, KeyError, TypeError, ValueError):
        return  # of another version of the job, or of other settings
    if request.day is not None:
        yield Delivery(request.supplier, request.day)
    elif PARTITION_TAG in run.tags:
        yield Delivery.of_key(run.tags[PARTITION_TAG])
