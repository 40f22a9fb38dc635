"""A code location with one of each that the web server can change."""

import dagster as dg

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-05")
CLIENTS = dg.DynamicPartitionsDefinition(name="clients")


@dg.asset(partitions_def=DAYS)
def tide() -> None:
    """An asset with partitions."""


@dg.asset(partitions_def=CLIENTS)
def orders() -> None:
    """An asset with dynamic partitions."""


class Words(dg.Config):
    word: str = ""


@dg.op
def work(config: Words) -> None:
    """Nothing."""


@dg.job
def nightly() -> None:
    work()


@dg.sensor(job=nightly)
def doorbell() -> dg.SkipReason:
    return dg.SkipReason("nobody is there")


@dg.schedule(job=nightly, cron_schedule="0 3 * * *")
def at_three() -> dg.RunRequest:
    return dg.RunRequest()


defs = dg.Definitions(assets=[tide, orders], jobs=[nightly], sensors=[doorbell], schedules=[at_three])
