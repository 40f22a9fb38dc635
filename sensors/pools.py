"""Concurrency pools: how many runs of a kind there are at once. Their limits stand in dagster.yaml."""

import dagster as dg


def ensure_limit(instance: dg.DagsterInstance, pool: str) -> None:
    """Give a pool its default limit before the first runs that count against it are queued.

    Dagster does so itself when it first sees such a run, but only for the pass of the queue after that one: the first
    burst would not be limited. A limit that somebody has set is left alone.
    """
    storage = instance.event_log_storage
    if storage.supports_global_concurrency_limits and pool not in {limit.name for limit in storage.get_pool_limits()}:
        storage.initialize_concurrency_limit_to_default(pool)
