"""Records many materializations of one asset at once.

Dagster's storage opens several connections for each event, so one event takes longer than to load a small file. Dagster
can store the materializations of one asset in one write, but offers that only for runs over a range of partitions, and
only if an environment variable is set.
"""

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventBatchMetadata

_BATCH_SIZE = "DAGSTER_EVENT_BATCH_SIZE"


def record_materializations(
    context: dg.AssetExecutionContext, materializations: Sequence[dg.AssetMaterialization]
) -> None:
    """Record materializations of one asset, as `context.log_event` does one by one.

    Args:
        context: Of the step that made them.
        materializations: All of the same asset.

    Raises:
        ValueError: They are of several assets. Dagster would note only the last one as materialized.
    """
    if len({each.asset_key for each in materializations}) > 1:
        raise ValueError("the materializations are of several assets; expected one asset")
    step, batch = context.get_step_execution_context(), str(uuid.uuid4())
    with _batches_of(len(materializations)):
        for number, each in enumerate(materializations, start=1):
            DagsterEvent.asset_materialization(
                step, each, DagsterEventBatchMetadata(batch, is_end=number == len(materializations))
            )


@contextmanager
def _batches_of(size: int) -> Iterator[None]:
    before = os.environ.get(_BATCH_SIZE)
    os.environ[_BATCH_SIZE] = str(size)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_BATCH_SIZE]
        else:
            os.environ[_BATCH_SIZE] = before
