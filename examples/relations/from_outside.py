"""Another system starts a job, with parameters that are checked before there is a run: `{"supermarket_id": 1}`."""

import dagster as dg

from dedp_assets.run_processes import in_process_executor

SUPERMARKETS = {1: "supermarket1", 2: "supermarket2", 3: "supermarket3", 4: "supermarket4"}


class Request(dg.Config):
    """What a caller may ask for.

    Attributes:
        supermarket_id: Which supermarket, 1 to 4.
    """

    supermarket_id: int


class Supermarket(dg.Config):
    name: str


@dg.asset
def offers(config: Supermarket) -> dg.MaterializeResult[None]:
    """What a supermarket offers now."""
    return dg.MaterializeResult(metadata={"supermarket": config.name})


@dg.config_mapping
def config_of(request: Request) -> dict[str, object]:
    """The run's own config. It is made while the caller waits, so that a wrong request never becomes a run."""
    name = SUPERMARKETS.get(request.supermarket_id)
    if name is None:
        known = ", ".join(map(str, SUPERMARKETS))
        raise ValueError(f"there is no supermarket {request.supermarket_id}; expected one of {known}")
    return {"ops": {"offers": {"config": {"name": name}}}}


refresh_supermarket = dg.define_asset_job("refresh_supermarket", selection=[offers], config=config_of)

defs = dg.Definitions(assets=[offers], jobs=[refresh_supermarket], executor=in_process_executor)
