"""What the conditions of automation sensors keep between two ticks stays in memory, as the objects that it is.

Dagster writes it as text after each tick and reads the text in the next one, which was a third of a tick over 400
conditions. A scenario keeps the states of sensors in memory in any case.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dagster_scenario import _dagster as dagster_


class KeptCursor(str):
    """Stands in a sensor's state for the text of its cursor."""

    # What Dagster wrote: the cursor, without those of the assets that are kept.
    written: str
    # Those in their order; None for one that is written.
    kept: list[Any]


@contextmanager
def cursors_are_kept() -> Iterator[None]:
    """Within it, Dagster's automation daemon does not write what reads back as it is."""
    daemon = dagster_.ASSET_DAEMON
    write, read = dagster_.WRITE_CURSOR, dagster_.READ_CURSOR
    originals = getattr(daemon, write), getattr(daemon, read)

    def keep(cursor: Any) -> str:
        # A sensor that evaluates its conditions in the project's code calls it too, and has its cursor in its result.
        by_daemon = sys._getframe(1).f_globals is vars(daemon)
        text: str = _kept(cursor, originals[0]) if by_daemon else originals[0](cursor)
        return text

    setattr(daemon, write, keep)
    setattr(daemon, read, lambda text, asset_graph: _read(text, asset_graph, originals[1]))
    try:
        yield
    finally:
        setattr(daemon, write, originals[0])
        setattr(daemon, read, originals[1])


def _kept(cursor: Any, write: Callable[[Any], str]) -> str:
    """What stands for a cursor in the sensor's state."""
    conditions = cursor.previous_condition_cursors
    if not conditions:
        return write(cursor)
    kept = [each if _reads_back_as_it_is(each) else None for each in conditions]
    to_write = [each for each, found in zip(conditions, kept, strict=True) if found is None]
    text = KeptCursor(f"kept by the scenario, of evaluation {cursor.evaluation_id}")
    text.written = write(dataclasses.replace(cursor, previous_condition_cursors=to_write))
    text.kept = kept
    return text


def _read(text: str | None, asset_graph: Any, read: Callable[[str | None, Any], Any]) -> Any:
    """The cursor for which this stands."""
    if not isinstance(text, KeptCursor):
        return read(text, asset_graph)
    cursor = read(text.written, asset_graph)
    written = iter(cursor.previous_condition_cursors)
    conditions = [each if each is not None else next(written) for each in text.kept]
    return dataclasses.replace(cursor, previous_condition_cursors=conditions)


def _reads_back_as_it_is(condition: Any) -> bool:
    """Whether Dagster reads the same back when it has written what is kept of one asset.

    It does for an asset without partitions. Sets of partitions change on the way: "all of them" are those of now. So
    they are written, and so is what a release of Dagster may have added.
    """
    if not isinstance(condition.previous_requested_subset.value, bool):
        return False
    for node in condition.node_cursors_by_unique_id.values():
        state = node.extra_state
        if not (
            isinstance(node.true_subset.value, bool)
            and isinstance(node.candidate_subset, dagster_.SerializableEntitySubset)
            and isinstance(node.candidate_subset.value, bool)
            and not node.subsets_with_metadata
            and (
                state is None
                or isinstance(state, str)
                or (isinstance(state, dagster_.SerializableEntitySubset) and isinstance(state.value, bool))
            )
        ):
            return False
    return True
