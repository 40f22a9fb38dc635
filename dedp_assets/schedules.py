"""Schedules that do not align: which partition of an input a partition reads if both begin at different times.

A partition runs when its window has ended. What it can read then is the input's window that ended last before that.
`ended_last_before` is this rule, by the calendar of the time zone. The two mappings are Dagster's own. With offsets
they give the same answer; without offsets they would also take windows that have not ended yet. A mapping of a class
of one's own is no choice: Dagster's UI and its backfills ignore it. `inputs_of` and `readers_of` ask a mapping, for a
test that compares it with the rule.
"""

from collections.abc import Sequence
from datetime import datetime

import dagster as dg

# The input has the same period and begins earlier in it: every day at 16:00 and at 18:00. Both have one time zone.
LAST_OF_SAME_PERIOD = dg.TimeWindowPartitionMapping(end_offset=-1)


def last_of_longer_period(windows: int) -> dg.TimeWindowPartitionMapping:
    """The input has a longer period, whose boundaries are also ours: each day, and every five hours of it.

    Args:
        windows: How many of our windows one window of the input has, always the same number. With the cron schedule
            `0 */5 * * *` a day has five, from 00:00, 05:00, 10:00, 15:00 and 20:00, also when the clocks change.
    """
    return dg.TimeWindowPartitionMapping(start_offset=-windows, end_offset=-windows)


def ended_last_before(definition: dg.TimeWindowPartitionsDefinition, moment: datetime) -> str:
    """The partition that ended last before a moment. One that ends at this very moment is not there yet.

    Args:
        definition: The partitions.
        moment: The moment, with a time zone.

    Returns:
        The partition key. It may be of a partition before the first one of the definition.
    """
    window = definition.get_prev_partition_window(moment, respect_bounds=False)
    assert window  # there is always one before
    if window.end.timestamp() == moment.timestamp():
        window = definition.get_prev_partition_window(window.start, respect_bounds=False)
        assert window
    return definition.get_partition_key_for_timestamp(window.start.timestamp())


def inputs_of(
    mapping: dg.PartitionMapping,
    partition: str,
    definition: dg.PartitionsDefinition,
    input_definition: dg.PartitionsDefinition,
    now: datetime,
) -> Sequence[str]:
    """The partitions of the input that a partition reads, by a mapping.

    Args:
        mapping: The mapping between both.
        partition: The partition.
        definition: The partitions of which it is one.
        input_definition: The partitions of the input.
        now: When the question is asked, with a time zone: later partitions do not exist.
    """
    result = mapping.get_upstream_mapped_partitions_result_for_partitions(
        definition.subset_with_partition_keys([partition]), definition, input_definition, current_time=now
    )
    return list(result.partitions_subset.get_partition_keys())


def readers_of(
    mapping: dg.PartitionMapping,
    input_partition: str,
    definition: dg.PartitionsDefinition,
    input_definition: dg.PartitionsDefinition,
    now: datetime,
) -> Sequence[str]:
    """The partitions that read a partition of the input, by a mapping. They run again when it changes."""
    subset = input_definition.subset_with_partition_keys([input_partition])
    found = mapping.get_downstream_partitions_for_partitions(subset, input_definition, definition, current_time=now)
    return list(found.get_partition_keys())
