"""What the page of a timeline shows, before it is drawn: columns of time, and lanes with what happened in them."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import pairwise

from dagster_scenario import timeline as timeline_
from dagster_scenario.page.words import about_event, about_run, short
from dagster_scenario.timeline import Event, Run, Timeline

COLOURS = 8

# What is not about an asset, a sensor or a schedule has a lane for each kind, on top.
_NOTES = {
    timeline_.WORLD: "the world",
    timeline_.MARK: "marks",
    timeline_.DAEMON: "daemons",
    timeline_.BACKFILL: "backfills",
}
_INSTIGATORS = {"sensor", "schedule", "automation"}


@dataclass(frozen=True)
class Sign:
    """One event as it is drawn. `event` is its position in the timeline, `colour` a CSS class."""

    column: int
    shape: str
    event: int
    detail: str
    colour: str = ""


@dataclass(frozen=True)
class Bar:
    """A span of an item, from the column in which it begins to the one in which it ends."""

    first: int
    last: int
    style: str


@dataclass(eq=False)
class Item:
    """What shares a row of a lane: a run, or an event without one. `labels` has a text for a column."""

    detail: str = ""
    colour: str = ""
    runs: tuple[int, ...] = ()
    signs: list[Sign] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    labels: dict[int, str] = field(default_factory=dict)

    def columns(self) -> range:
        """From the first column that it has something in to the last."""
        ends = [sign.column for sign in self.signs] + [end for bar in self.bars for end in (bar.first, bar.last)]
        return range(min(ends, default=0), max(ends, default=0) + 1)


@dataclass(eq=False)
class Lane:
    """An asset, a sensor, the world, ..."""

    name: str
    kind: str
    group: str
    items: list[Item] = field(default_factory=list)


class Columns:
    """A column for each distinct time at which something happened."""

    def __init__(self, events: Iterable[Event]) -> None:
        # The same wall clock time comes twice when the clocks go back, so it is not what is compared.
        by_instant = {_instant(event.at): event.at for event in events}
        self._instants = sorted(by_instant)
        self.moments = [by_instant[instant] for instant in self._instants]

    def at(self, moment: datetime) -> int:
        """The column of a time, or the last one before it."""
        return max(0, bisect_right(self._instants, _instant(moment)) - 1)

    def gaps(self) -> Iterator[timedelta]:
        """How long after the column before it each column is, from the second one on."""
        for before, after in pairwise(self._instants):
            yield after - before


def lanes(timeline: Timeline, columns: Columns) -> list[Lane]:
    """All lanes, top down: what happened around the pipelines, then sensors and assets by code location."""
    return _Lanes(timeline, columns).all()


class _Lanes:
    """The lanes as they are being filled, event by event."""

    def __init__(self, timeline: Timeline, columns: Columns) -> None:
        self._timeline, self._columns = timeline, columns
        self._runs = {run.number: run for run in timeline.runs.values()}
        self._lanes: dict[tuple[str, str, str], Lane] = {}
        self._items: dict[tuple[Lane, int], Item] = {}
        self._requests: dict[tuple[Lane, int], Item] = {}
        self._assets_of = _assets_of(timeline, self._runs)
        self._location_of = _locations_of_assets(self._assets_of, self._runs)
        partitions = {event.partition for event in timeline.events if event.partition is not None}
        partitions |= {key for run in self._runs.values() for key in run.partitions}
        self._colours = {key: f"p{number % COLOURS}" for number, key in enumerate(sorted(partitions))}

    def all(self) -> list[Lane]:
        for kind in (timeline_.WORLD, timeline_.MARK, timeline_.DAEMON):
            if any(event.kind == kind for event in self._timeline.events):
                self._lane("", kind, _NOTES[kind])
        for looking in self._timeline.looking.values():
            self._instigator(looking.location, looking.name, looking.kind)
        for position, event in enumerate(self._timeline.events):
            self._add(position, event)
        for run in self._runs.values():
            for lane in self._lanes_of_run(run):
                self._draw_run(self._item_of_run(lane, run), run)
        if any(lane.kind == timeline_.DAEMON for lane in self._lanes.values()):
            self._draw_daemons_down()
        self._draw_idle()
        return self._in_order()

    def _in_order(self) -> list[Lane]:
        """Around the pipelines first; then locations as they had something to do. In each, those that request runs
        first, and assets in the order in which they were first made."""
        first = {lane: _first_sign(lane) for lane in self._lanes.values()}
        groups = {"": -1}
        for lane in self._lanes.values():
            if lane.group:
                groups[lane.group] = min(groups.get(lane.group, first[lane]), first[lane])

        def place(lane: Lane) -> tuple[object, ...]:
            if not lane.group:
                return groups[""], "", 0
            requests = lane.kind in _INSTIGATORS
            return groups[lane.group], lane.group, not requests, lane.name if requests else first[lane]

        return sorted(self._lanes.values(), key=place)

    def _lane(self, group: str, kind: str, name: str) -> Lane:
        return self._lanes.setdefault((group, kind, name), Lane(name, kind, group))

    def _instigator(self, location: str, name: str, kind: str) -> Lane:
        """The lane of a sensor or schedule; an automation's has been made as such when its tick is told of."""
        group = self._group(location)
        for lane in self._lanes.values():
            if lane.name == name and lane.kind in _INSTIGATORS and lane.group == group:
                return lane
        return self._lane(group, kind, name)

    # What is in a lane

    def _add(self, position: int, event: Event) -> None:
        run = self._runs.get(event.run) if event.run else None
        if event.kind in (timeline_.SENSOR, timeline_.SCHEDULE):
            self._add_tick(position, event)
        elif run is not None:
            self._add_of_run(position, event, run)
        elif event.asset:
            group = self._group(self._location_of.get(event.asset))
            self._add_alone(self._lane(group, "asset", event.asset), position, event, event.partition or "no run")
        else:
            down_or_up = event.kind in (timeline_.DOWN, timeline_.UP)
            kind = timeline_.DAEMON if down_or_up else event.kind
            label = event.kind.removeprefix("daemons ") + f": {event.text}" if down_or_up else event.text
            self._add_alone(self._lane("", kind, _NOTES.get(kind, kind)), position, event, label)

    def _add_alone(self, lane: Lane, position: int, event: Event, label: str) -> None:
        colour = self._colours.get(event.partition or "", "")
        column = self._columns.at(event.at)
        sign = Sign(column, _shape(event), position, about_event(event, None), colour)
        lane.items.append(Item(colour=colour, signs=[sign], labels={column: short(label, 44)}))

    def _add_tick(self, position: int, event: Event) -> None:
        lane = self._instigator(event.location, event.subject, event.kind)
        self._add_alone(lane, position, event, event.text.removeprefix(f"{event.subject} "))

    def _add_of_run(self, position: int, event: Event, run: Run) -> None:
        if event.kind == timeline_.REQUESTED:
            self._add_request(position, event, run)
        column = self._columns.at(event.at)
        if event.kind == timeline_.STARTED and column == self._columns.at(run.requested):
            return
        if event.kind == timeline_.SUCCEEDED and run.started and column == self._columns.at(run.started):
            return
        detail = about_event(event, run)
        colour = self._colours[event.partition] if event.partition is not None else self._colour_of(run)
        for lane in self._lanes_of_run(run):
            if _asset_of(event, self._assets_of[run.number]) in ("", lane.name):
                item = self._item_of_run(lane, run)
                item.signs.append(Sign(column, _shape(event), position, detail, colour))

    def _add_request(self, position: int, event: Event, run: Run) -> None:
        """In the lane of the sensor or schedule, all that it requested at a time in one item."""
        column = self._columns.at(event.at)
        for cause in event.causes:
            if cause.kind not in _INSTIGATORS:
                continue
            lane = self._instigator(run.location, cause.name, cause.kind)
            item = self._requests.get((lane, column))
            if item is None:
                item = self._requests[lane, column] = Item()
                lane.items.append(item)
            item.signs.append(Sign(column, "requested", position, about_event(event, run), self._colour_of(run)))
            item.runs = (*item.runs, run.number)
            item.labels[column] = _numbers(item.runs)

    def _lanes_of_run(self, run: Run) -> list[Lane]:
        assets = self._assets_of[run.number]
        if not assets:
            return [self._lane(self._group(run.location), "job", run.job)]
        return [self._lane(self._group(self._location_of[asset]), "asset", asset) for asset in assets]

    def _item_of_run(self, lane: Lane, run: Run) -> Item:
        item = self._items.get((lane, run.number))
        if item is None:
            item = self._items[lane, run.number] = Item(
                detail=about_run(run),
                colour=self._colour_of(run),
                runs=(run.number,),
            )
            lane.items.append(item)
        return item

    def _colour_of(self, run: Run) -> str:
        return self._colours[run.partitions[0]] if run.partitions else ""

    def _group(self, location: str | None) -> str:
        return location or ("reported without a run" if location is None else "no code location")

    # Spans

    def _draw_run(self, item: Item, run: Run) -> None:
        last = max(0, len(self._columns.moments) - 1)
        requested = self._columns.at(run.requested)
        started = self._columns.at(run.started) if run.started else None
        ended = self._columns.at(run.ended) if run.ended else None
        killed = next((sign.column for sign in item.signs if sign.shape == "killed"), None)
        begun = started if started is not None else (ended if ended is not None else last)
        if begun > requested:
            item.bars.append(Bar(requested, begun, "queued"))
        if started is not None:
            end = min(column for column in (killed, ended, last) if column is not None)
            status = timeline_.KILLED if killed is not None else run.status
            item.bars.append(Bar(started, end, status))
            if killed is not None and ended is not None and ended > killed:
                item.bars.append(Bar(killed, ended, "queued"))
            self._draw_waits(item, run, end)
        for column in sorted({sign.column for sign in item.signs}):
            item.labels[column] = f"{self._partition_label(item, run, column)} #{run.number}".strip()

    def _draw_waits(self, item: Item, run: Run, end: int) -> None:
        since: int | None = None
        for sign in item.signs:
            if sign.shape == timeline_.HELD and since is None:
                since = sign.column
            elif sign.shape == timeline_.RESUMED and since is not None:
                item.bars.append(Bar(since, sign.column, "waits"))
                since = None
        if since is not None:
            item.bars.append(Bar(since, end, "waits"))
        for begin, until, _ in run.waits:
            item.bars.append(Bar(self._columns.at(begin), self._columns.at(until) if until else end, "waits"))

    def _partition_label(self, item: Item, run: Run, column: int) -> str:
        events = [self._timeline.events[sign.event] for sign in item.signs if sign.column == column]
        keys = list(dict.fromkeys(event.partition for event in events if event.partition is not None))
        keys = keys or list(run.partitions)
        return short(keys[0], 26) if len(keys) == 1 else "…".join(short(key, 16) for key in keys[:1] + keys[-1:])

    def _draw_daemons_down(self) -> None:
        lane = self._lane("", timeline_.DAEMON, _NOTES[timeline_.DAEMON])
        down: dict[str, Item] = {}
        for item in lane.items:
            sign = item.signs[0]
            event = self._timeline.events[sign.event]
            if event.kind not in (timeline_.DOWN, timeline_.UP):
                continue
            names = event.text.split(", ")
            for name in [*down] if names == ["all daemons"] else names:
                if before := down.pop(name, None):
                    before.bars = [Bar(before.signs[0].column, sign.column, "down")]
            if event.kind == timeline_.DOWN:
                item.bars = [Bar(sign.column, len(self._columns.moments) - 1, "down")]
                down.update(dict.fromkeys(names, item))

    def _draw_idle(self) -> None:
        for looking in self._timeline.looking.values():
            if looking.idle_since is None or not self._timeline.events:
                continue
            lane = self._instigator(looking.location, looking.name, looking.kind)
            first, last = self._columns.at(looking.idle_since), self._columns.at(looking.last)
            # What the sensor last did or said is in that column, or the time that it has waited since has none.
            said = [item for item in lane.items if item.columns()[0] == first]
            item = said[-1] if said else Item(labels={first: "nothing to do"})
            if not said:
                lane.items.append(item)
            item.detail = "\n".join(
                [
                    f"{looking.name} has found nothing to do since {looking.idle_since:%Y-%m-%d %H:%M:%S}",
                    f"it last looked at {looking.last:%Y-%m-%d %H:%M:%S}",
                    *(short(text, 400) for text in (looking.reason, looking.error) if text),
                ]
            )
            item.bars.append(Bar(first, last, "idle"))


def _first_sign(lane: Lane) -> int:
    """When it was first made, or, if it never was, when it was first meant."""
    signs = [sign for item in lane.items for sign in item.signs]
    made = [sign.event for sign in signs if sign.shape in ("materialized", "observed")]
    return min(made or [sign.event for sign in signs], default=1_000_000_000)


def _instant(moment: datetime) -> datetime:
    return moment.astimezone(timezone.utc) if moment.tzinfo else moment


def _assets_of(timeline: Timeline, runs: dict[int, Run]) -> dict[int, list[str]]:
    """The assets of each run, those also that only its events name."""
    known = {event.asset for event in timeline.events} | {asset for run in runs.values() for asset in run.assets}
    assets = {number: {_asset(name, known): None for name in run.assets} for number, run in runs.items()}
    for event in timeline.events:
        if event.asset and event.run in assets:
            assets[event.run][event.asset] = None
    return {number: list(names) for number, names in assets.items()}


def _asset(name: str, known: set[str]) -> str:
    """The asset of a name that is its own or that of one of its checks, `asset:check`."""
    asset = name.rpartition(":")[0]
    return asset if asset and asset in known else name


def _locations_of_assets(assets_of: dict[int, list[str]], runs: dict[int, Run]) -> dict[str, str]:
    # A run may only check an asset of another location; what it was asked to compute is its own.
    locations = {asset: run.location for run in reversed(runs.values()) for asset in run.assets}
    for number, assets in assets_of.items():
        for asset in assets:
            locations.setdefault(asset, runs[number].location)
    return locations


def _asset_of(event: Event, assets: list[str]) -> str:
    """The asset among these that an event of a run is about; none for what is about the run as a whole."""
    if event.kind in (timeline_.STEP_STARTED, timeline_.STEP_FAILED):
        return next((asset for asset in assets if asset.replace("/", "__") == event.subject), "")
    return event.asset


def _shape(event: Event) -> str:
    if event.kind == timeline_.CHECKED:
        return "check-failed" if event.problem else "checked"
    if event.kind in (timeline_.SENSOR, timeline_.SCHEDULE, timeline_.DAEMON) and event.problem:
        return "failed"
    if event.kind in (timeline_.DOWN, timeline_.UP):
        return timeline_.DAEMON
    return event.kind.replace(" ", "-")


def _numbers(numbers: tuple[int, ...]) -> str:
    """`#2`, `#2 to #5`, `#2, #7`."""
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"#{numbers[0]} to #{numbers[-1]}"
    return short(", ".join(f"#{number}" for number in numbers), 34)
