"""`clear`, with downstream, past, future and recursive: materialize again what you name.

In the UI: select assets and partitions, then "Materialize". In the terminal:

    dagster asset materialize -m jobs.cookbook --select 'transformed+' --partition-range 2024-01-02...2024-01-04
"""

from collections.abc import Sequence

import dagster as dg

DAYS = dg.DailyPartitionsDefinition("2024-01-01")


@dg.asset(partitions_def=DAYS, group_name="clearing")
def extracted() -> None: ...


@dg.asset(partitions_def=DAYS, deps=[extracted], group_name="clearing")
def transformed() -> None: ...


@dg.asset(partitions_def=DAYS, deps=[transformed], group_name="clearing")
def reported() -> None: ...


def days_to_clear(done: Sequence[str], day: str, *, past: bool = False, future: bool = False) -> list[str]:
    """The days that `airflow tasks clear --past --future` names: those that were run before.

    Args:
        done: the days that exist, such as `instance.get_materialized_partitions(key)`.
        day: the day that was selected.
        past: also all days before it.
        future: also all days after it.
    """
    return sorted(other for other in done if other == day or (past and other < day) or (future and other > day))


defs = dg.Definitions(assets=[extracted, transformed, reported])
