"""Retries with exponential backoff, time limits, and a run again of failed tasks alone."""

import dagster as dg

# Airflow: retries=3, retry_delay=1 min, retry_exponential_backoff=True. The pauses are 60, 180 and 420 s
# here, and about 60, 120 and 240 s there. With `jitter`, tasks that failed together do not come back together.
POLICY = dg.RetryPolicy(max_retries=3, delay=60, backoff=dg.Backoff.EXPONENTIAL)


@dg.op
def download() -> None: ...


@dg.op(retry_policy=POLICY, ins={"after": dg.In(dg.Nothing)})
def store() -> None: ...


# execution_timeout is for a run, not for a task: run monitoring ends a run that takes longer, here than 30 minutes.
# The two other tags: if it fails, Dagster starts it once more, with those steps alone that have not succeeded.
@dg.job(
    tags={
        "dagster/max_runtime": "1800",
        "dagster/max_retries": "1",
        "dagster/retry_strategy": "FROM_FAILURE",
        "dagster/retry_on_asset_or_op_failure": "true",
    }
)
def ingestion() -> None:
    store(download())


defs = dg.Definitions(jobs=[ingestion])
