"""Concurrency pools: how many runs of a kind may be under way at once. Their limits are in dagster.yaml."""

import dagster as dg


def ensure_limit(instance: dg.DagsterInstance, pool: str) -> None:
    """Give a pool its default limit, before the first runs are queued that count against it.

    Dagster does this when it first sees such a run, but then the limit holds only from the next pass of the queue on.
    The first burst of runs would have no limit. A limit that somebody has set stays as it is.

    Args:
        instance: the instance that has the pool.
        pool: the name of the pool.
    """
    storage = instance.event_log_storage
    if storage.supports_global_concurrency_limits and pool not in {limit.name for limit in storage.get_pool_limits()}:
        storage.initialize_concurrency_limit_to_default(pool)
