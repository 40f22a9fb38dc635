"""How many at once, and who is first: Airflow's pools, max_active_runs, parallelism and priority_weight.

What an asset needs is in the code. How many there may be is in dagster.yaml, which the UI can change for pools:

    concurrency:
      runs:
        max_concurrent_runs: 32             # parallelism
        tag_concurrency_limits:             # max_active_runs of a DAG, by a tag of its job
          - {key: team, value: night, limit: 1}
      pools:
        granularity: op                     # count steps, as Airflow's pools; `run` counts whole runs
        default_limit: 3
"""

import dagster as dg


@dg.asset(pool="warehouse")
def heavy_query() -> None:
    """At most as many at once as the pool has places, in all runs together."""


nightly = dg.define_asset_job("nightly", [heavy_query], tags={"team": "night"})

# Before the others in the queue, which have priority 0.
urgent = dg.define_asset_job("urgent", [heavy_query], tags={"dagster/priority": "10"})


@dg.op
def part() -> None: ...


# max_active_tasks of one run: two of its steps at once.
@dg.job(executor_def=dg.multiprocess_executor.configured({"max_concurrent": 2}))
def two_at_once() -> None:
    for name in ("part_1", "part_2", "part_3"):
        part.alias(name)()


defs = dg.Definitions(assets=[heavy_query], jobs=[nightly, urgent, two_at_once])
