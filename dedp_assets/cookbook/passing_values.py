"""XCom: values between tasks by an IO manager, small facts as metadata, parameters as config.

A value is written where the IO manager says (a file here, S3 or a table elsewhere). Dagster's database gets its place,
and metadata that you choose. So a value may have any size, and metadata should be small.
"""

import dagster as dg


class Size(dg.Config):
    """Parameters of a run, checked before it starts: Airflow's `conf` and `params`."""

    rows: int = 3


@dg.asset
def users(config: Size) -> dg.MaterializeResult[list[str]]:
    """`xcom_push` of a value and, as metadata, of a fact about it."""
    rows = [f"user {number}" for number in range(config.rows)]
    return dg.MaterializeResult(value=rows, metadata={"rows": len(rows)})


@dg.asset
def greetings(users: list[str]) -> list[str]:
    """`xcom_pull`: the argument has the name of the asset, and mypy checks its type."""
    return [f"hello {user}" for user in users]


@dg.asset(deps=[users])
def rows_of_users(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """`xcom_pull` of the fact alone, without the value."""
    latest = context.instance.get_latest_materialization_event(dg.AssetKey("users"))
    event = latest.asset_materialization if latest else None
    return dg.MaterializeResult(metadata={"rows": event.metadata["rows"].value if event else 0})


defs = dg.Definitions(assets=[users, greetings, rows_of_users])
