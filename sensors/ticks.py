"""What a sensor's tick hands to Dagster, also when it meets an error that we can name."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import dagster as dg

from dedp_assets.errors import TICK_ERROR, DedpError, ErrorNote

# A tick message that lists every name would be too long to read.
_NAMED = 20


@dataclass
class TickReport:
    """What a tick has found so far.

    Attributes:
        cursor: the cursor to store. A tick starts with the cursor that the tick before it stored. Set the new cursor
            together with the run requests and events that belong to it.
        run_requests: the runs to start.
        asset_events: the materializations and the results of checks to record.
        new_partitions: the partitions to add before the runs are requested.
        notes: what the message of the tick says; an `ErrorNote` for what somebody may have to mend. In a tick with run
            requests they go to its log instead.
    """

    cursor: str | None
    run_requests: list[dg.RunRequest] = field(default_factory=list)
    asset_events: list[dg.AssetMaterialization | dg.AssetCheckEvaluation] = field(default_factory=list)
    new_partitions: list[dg.AddDynamicPartitionsRequest] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@contextmanager
def noting_errors(notes: list[str]) -> Iterator[None]:
    """Add the text of a DedpError that is raised in the block to the notes, and go on after the block."""
    try:
        yield
    except DedpError as error:
        note = str(error) if error.is_a_wait else ErrorNote(error)
        if note not in notes:
            notes.append(note)


def reporting_tick(
    evaluate: Callable[[dg.SensorEvaluationContext, TickReport], None],
) -> Callable[[dg.SensorEvaluationContext], dg.SensorResult]:
    """Make the evaluation function of a sensor from a function that fills in a report.

    A DedpError ends the tick. Its text becomes part of the message, and the report stays as it is at that moment: the
    cursor is unchanged unless `evaluate` has set it, and requests, events and notes are not lost. Any other exception
    fails the tick with a traceback.

    Args:
        evaluate: fills in the report of one tick.
    """

    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        report = TickReport(context.cursor)
        with noting_errors(report.notes):
            evaluate(context, report)
        if report.run_requests:
            # Dagster shows no message beside run requests, but it keeps the log of the tick, and the alerts read it.
            for note in report.notes:
                context.log.log(logging.ERROR if isinstance(note, ErrorNote) else logging.INFO, note)
        return dg.SensorResult(
            run_requests=report.run_requests,
            asset_events=report.asset_events,
            dynamic_partitions_requests=report.new_partitions,
            # Dagster shows the message of every tick without run requests. It records the events all the same.
            skip_reason=None if report.run_requests else _message(report.notes),
            cursor=report.cursor,
        )

    return tick


def _message(notes: Sequence[str]) -> str:
    """The notes in one line. The alerts look at its beginning, so errors come first."""
    return "; ".join(f"{TICK_ERROR}{note}" if isinstance(note, ErrorNote) else note for note in errors_first(notes))


def errors_first(notes: Sequence[str]) -> list[str]:
    """The same notes, those that are errors before the others."""
    return sorted(notes, key=lambda note: not isinstance(note, ErrorNote))


def some_of(names: list[str]) -> str:
    """At most 20 of the names, and how many more there are."""
    more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
