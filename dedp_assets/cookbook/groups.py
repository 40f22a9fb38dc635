"""Task groups and SubDAGs: a graph is a group of steps that is used as one, also several times in one job."""

import dagster as dg


@dg.op
def extract(source: str) -> list[str]:
    return [source]


@dg.op
def load(rows: list[str]) -> int:
    return len(rows)


@dg.graph
def extract_and_load(source: str):  # type: ignore[no-untyped-def]  # inside, it is not an int but a step's output
    """In the UI one box, which opens. Its steps run in the run of the job, with its executor: no deadlock."""
    return load(extract(source))


@dg.op
def name_of_shop() -> str:
    return "lyon"


@dg.op
def name_of_warehouse() -> str:
    return "ghent"


@dg.job
def load_all() -> None:
    extract_and_load.alias("shop")(name_of_shop())
    extract_and_load.alias("warehouse")(name_of_warehouse())


# For assets a group is a name, and jobs, backfills and the UI select it.
@dg.asset(group_name="sales")
def sold() -> None: ...


@dg.asset(group_name="sales", deps=[sold])
def turnover() -> None: ...


sales = dg.define_asset_job("sales", dg.AssetSelection.groups("sales"))

defs = dg.Definitions(assets=[sold, turnover], jobs=[load_all, sales])
