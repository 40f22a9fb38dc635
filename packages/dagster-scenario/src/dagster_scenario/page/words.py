"""What the page of a timeline says of an event or a run when it is pointed at, as lines of text."""

from collections.abc import Iterator

from dagster_scenario import timeline as timeline_
from dagster_scenario.timeline import Event, Run

# How a run can end otherwise than well.
BADLY = frozenset({timeline_.FAILED, timeline_.KILLED, timeline_.CANCELED})


def about_event(event: Event, run: Run | None) -> str:
    """What is to be known at a glance. It stands in the page once for each lane of the run, so it is short."""
    head = f"{event.at:%Y-%m-%d %H:%M:%S}  {event.kind}"
    if run is None:
        return "\n".join([head, short(event.text, 300), *(str(cause) for cause in event.causes)])
    text = event.text
    if len(run.assets) > 3:
        text = text.replace(", ".join(run.assets), f"{', '.join(run.assets[:2])} and {len(run.assets) - 2} more")
    lines = [head, short(text, 200), _standing(run), ", ".join(str(cause) for cause in run.causes)]
    if run.error and not event.problem:
        lines.append(short(f"error: {run.error}", 200))
    return "\n".join(lines)


def about_run(run: Run) -> str:
    """What it was to do, why, when it did, and what came of it."""
    return "\n".join(_about_run(run))


def _about_run(run: Run) -> Iterator[str]:
    yield _standing(run)
    yield short(", ".join(run.assets) or f"job {run.job}", 120)
    yield ", ".join(str(cause) for cause in run.causes)
    times = [("requested", run.requested), ("started", run.started), ("ended", run.ended)]
    yield from (f"{name} {at:%Y-%m-%d %H:%M:%S}" for name, at in times if at)
    for since, until, where in run.waits[:5]:
        yield f"slept {timeline_.between(since, until) if until else 'without an end'} in {where}"
    if run.error:
        yield short(f"error: {run.error}", 200)
        yield from run.trace[:1]


def _standing(run: Run) -> str:
    return f"run {run.number}: {run.status}" + (f", partition {' to '.join(run.partitions)}" if run.partitions else "")


def short(text: str, length: int) -> str:
    """The text, cut when it is longer than this."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
