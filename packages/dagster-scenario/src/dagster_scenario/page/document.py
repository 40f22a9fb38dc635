"""The page of a timeline as text: HTML around SVG, the lanes above the table."""

import html
import re
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from importlib import resources

from dagster_scenario import timeline as timeline_
from dagster_scenario.page.lanes import Bar, Columns, Item, Lane, Sign, lanes
from dagster_scenario.page.layout import (
    HEADING,
    LONG,
    PAD,
    ROW,
    SIGN,
    THIN,
    Layout,
    clock_time,
    gap_text,
    gap_width,
    text_width,
)
from dagster_scenario.page.words import BADLY, short
from dagster_scenario.timeline import Event, Timeline

# The signs, 14 px wide and high, with what the legend says of them.
_SHAPES = {
    "requested": ("requested", '<circle cx="7" cy="7" r="4.6" class="hollow"/>'),
    "started": ("started", '<path d="M4 2.6 11 7 4 11.4Z" class="hollow"/>'),
    "materialized": ("materialized", '<circle cx="7" cy="7" r="5.4"/>'),
    "observed": ("observed", '<path d="M7 .8 13.2 7 7 13.2.8 7Z"/>'),
    "checked": ("check passed", '<rect x="1.6" y="1.6" width="10.8" height="10.8" rx="2.5" class="hollow"/>'
                                '<path d="M4.2 7.2 6.3 9.3 10 4.9" class="hollow"/>'),
    "check-failed": ("check did not pass", '<rect x="1" y="1" width="12" height="12" rx="2.5"/>'
                                           '<path d="M4.4 4.4 9.6 9.6M9.6 4.4 4.4 9.6" class="cut"/>'),
    "succeeded": ("succeeded", '<path d="M2.5 7.6 5.6 10.6 11.5 3.8" class="hollow"/>'),
    "step-started": ("step started", '<path d="M4 2.6 11 7 4 11.4Z" class="hollow"/>'),
    "step-failed": ("step failed", '<path d="M3 3 11 11M11 3 3 11" class="hollow"/>'),
    "failed": ("failed", '<circle cx="7" cy="7" r="6.2"/><path d="M4.6 4.6 9.4 9.4M9.4 4.6 4.6 9.4" class="cut"/>'),
    "killed": ("killed", '<path d="M8.6.4 2.4 8h3.8L5 13.6 11.6 5.8H7.6Z"/>'),
    "canceled": ("canceled", '<circle cx="7" cy="7" r="5.4" class="hollow"/>'
                             '<path d="M3.4 10.6 10.6 3.4" class="hollow"/>'),
    "held": ("held", '<path d="M3.2 2h2.6v10H3.2ZM8.2 2h2.6v10H8.2Z"/>'),
    "resumed": ("resumed", '<path d="M3.4 1.6 12 7 3.4 12.4Z"/>'),
    "waiting": ("sleeps", '<circle cx="7" cy="7" r="5.4" class="hollow"/><path d="M7 3.8V7l2.4 1.6" class="hollow"/>'),
    "sensor": ("a sensor skipped", '<path d="M2.5 7h9" class="hollow"/>'),
    "schedule": ("a schedule skipped", '<path d="M2.5 7h9" class="hollow"/>'),
    "backfill": ("backfill", '<path d="M1 4.2h9V13H1Z"/><path d="M4 2h8.6v8.4" class="hollow"/>'),
    "world": ("the world changed", '<path d="M7 13 1.4 6.4h3.3V1h4.6v5.4h3.3Z"/>'),
    "mark": ("mark", '<path d="M3 13.4V1h8.6L9.4 4.4l2.2 3.4H4.6v5.6Z"/>'),
    "daemon": ("daemons", '<path d="M7 1.2 12.4 4v6L7 12.8 1.6 10V4Z" class="hollow"/>'),
    "clock": ("clock", '<circle cx="7" cy="7" r="3"/>'),
}  # fmt: skip

_STYLES = {"succeeded": "a run", "waits": "held or asleep", "started": "has not ended"}

_NOT_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def render(timeline: Timeline) -> str:
    """The page of a timeline, as HTML: lanes with what happened, above a table that says it in words.

    The same timeline gives the same text. Write it as UTF-8.
    """
    columns = Columns(timeline.events)
    rows = lanes(timeline, columns)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8"/><title>What happened in the scenario</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
            f"<style>{_data('page.css')}</style></head><body>",
            *_header(timeline, columns),
            *(_chart(rows, columns) if timeline.events else ['<p class="none">Nothing has happened yet.</p>']),
            *_table(timeline, rows),
            f"<script>{_data('page.js')}</script></body></html>\n",
        ]
    )


def _data(name: str) -> str:
    return resources.files("dagster_scenario.page").joinpath(name).read_text(encoding="utf-8")


def _text(text: object) -> str:
    """Escaped, without characters that no page can have, such as those of a terminal's colours."""
    return html.escape(_NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", str(text)))


# Above the lanes


def _header(timeline: Timeline, columns: Columns) -> Iterator[str]:
    yield '<header><h1>What happened in the scenario</h1><p class="sum">'
    runs, events = len(timeline.runs), len(timeline.events)
    yield f"<span>{runs} run{'s' * (runs != 1)}, {events} event{'s' * (events != 1)}</span>"
    if columns.moments:
        first, last = columns.moments[0], columns.moments[-1]
        yield f"<span>{first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S} {_text(last.tzname() or '')}</span>"
    for status, count in sorted(Counter(run.status for run in timeline.runs.values()).items()):
        style = "bad" if status in BADLY else "good" if status == timeline_.SUCCEEDED else "open"
        yield f'<span class="chip {style}">{count} {_text(status)}</span>'
    yield '<a href="#text">In words</a></p></header>'


def _legend(rows: list[Lane]) -> Iterator[str]:
    used = {sign.shape for lane in rows for item in lane.items for sign in item.signs}
    yield '<svg class="defs" width="0" height="0" aria-hidden="true"><defs>'
    for name, (_, drawing) in _SHAPES.items():
        if name in used:
            yield f'<g id="s-{name}" class="{name}">{drawing}</g>'
    yield (
        '<pattern id="stripes" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<path d="M0 0V6" class="stripe"/></pattern></defs></svg><ul class="legend" aria-label="Signs">'
    )
    for name, (meaning, _) in _SHAPES.items():
        if name in used:
            yield f'<li><svg width="14" height="14"><use href="#s-{name}"/></svg>{meaning}</li>'
    for style, meaning in _STYLES.items():
        if any(bar.style in style.split() for lane in rows for item in lane.items for bar in item.bars):
            kind = style if style == "waits" else f"bar {style}"
            drawing = f'<rect class="{kind}" x="1" y="1" width="24" height="12" rx="6"/>'
            yield f'<li><svg width="26" height="14" class="item">{drawing}</svg>{meaning}</li>'
    yield "<li>a colour is a partition, #2 is run 2</li></ul>"


# The lanes


def _chart(rows: list[Lane], columns: Columns) -> Iterator[str]:
    layout = Layout(rows, columns)
    yield from _legend(rows)
    yield '<div class="chart" tabindex="0" role="region" aria-label="Lanes over time">'
    yield f'<div class="axis" style="width:{layout.width:.0f}px"><div class="corner">simulated time</div>'
    yield from _days(columns, layout)
    yield from _times(columns, layout)
    yield '</div><div class="body"><div class="names">'
    yield from _names(rows, layout)
    yield f'</div><svg width="{layout.width:.0f}" height="{layout.height:.0f}" role="group" aria-label="Lanes">'
    yield from _background(rows, layout)
    drawn: set[str] = set()
    for number, lane in enumerate(rows):
        yield f'<g class="lane" transform="translate(0,{layout.tops[number] + 4:.0f})"><desc>{_text(lane.name)}</desc>'
        for item in lane.items:
            yield from _item(item, layout, drawn)
        yield "</g>"
    yield "</svg></div></div>"


def _days(columns: Columns, layout: Layout) -> Iterator[str]:
    ends = [left - gap_width(gap) for left, gap in zip(layout.lefts, layout.gaps, strict=True)][1:] + [layout.width]
    days = [moment.date() for moment in columns.moments]
    first = 0
    for column, day in enumerate(days):
        if days[column + 1 : column + 2] != [day]:
            place = _across(layout.lefts[first], ends[column])
            yield f'<div class="day" style="{place}"><span>{day:%Y-%m-%d}</span></div>'
            first = column + 1


def _times(columns: Columns, layout: Layout) -> Iterator[str]:
    for moment, left, gap in zip(columns.moments, layout.lefts, layout.gaps, strict=True):
        if gap > LONG:
            yield f'<div class="gap" style="{_across(left - gap_width(gap), left)}">{gap_text(gap)}</div>'
        soon = f"<small>{gap_text(gap)}</small>" if timedelta() < gap <= LONG else ""
        yield f'<div class="time" style="left:{left:.0f}px">{clock_time(moment)}{soon}</div>'


def _across(left: float, right: float) -> str:
    return f"left:{left:.0f}px;width:{right - left:.0f}px"


def _names(rows: list[Lane], layout: Layout) -> Iterator[str]:
    group = ""
    for lane, height in zip(rows, layout.heights, strict=True):
        if lane.group != group:
            group = lane.group
            yield f'<div class="group" style="height:{HEADING}px">{_text(group)}</div>'
        kind = f"<small>{_text(lane.kind)}</small>" if lane.group and lane.kind != "asset" else ""
        name = f'<b title="{_text(lane.name)}">{_text(lane.name)}</b>'
        yield f'<div class="name" style="height:{height:.0f}px">{name}{kind}</div>'


def _background(rows: list[Lane], layout: Layout) -> Iterator[str]:
    bottom, right = f"{layout.height:.0f}", f"{layout.width:.0f}"
    for left, gap in zip(layout.lefts, layout.gaps, strict=True):
        if width := gap_width(gap):
            yield f'<rect class="break" x="{left - width:.0f}" width="{width:.0f}" y="0" height="{bottom}"/>'
        yield f'<path class="grid" d="M{left:.0f} 0V{bottom}"/>'
    for top, height in zip(layout.tops, layout.heights, strict=True):
        yield f'<path class="grid" d="M0 {top + height:.0f}H{right}"/>'
    for top in layout.headings.values():
        yield f'<rect class="heading" x="0" y="{top:.0f}" width="{right}" height="{HEADING}"/>'
    for lane, top in zip(rows, layout.tops, strict=True):
        for item in lane.items if lane.kind in (timeline_.DAEMON, timeline_.MARK) and not lane.group else ():
            x = layout.start(item) - PAD / 2
            for bar in item.bars:
                width = layout.starts[item, bar.last] - layout.start(item)
                yield f'<rect class="shade" x="{x:.0f}" y="0" width="{width:.0f}" height="{bottom}"/>'
            yield f'<path class="line {lane.kind}" d="M{x:.0f} {top:.0f}V{bottom}"/>'


def _item(item: Item, layout: Layout, drawn: set[str]) -> Iterator[str]:
    runs = f' data-runs="{" ".join(map(str, item.runs))}"' if item.runs else ""
    y = layout.rows[item] * ROW
    yield f'<g class="item {item.colour}"{runs}>'
    if item.detail:
        yield f"<title>{_text(item.detail)}</title>"
    for bar in item.bars:
        yield _bar(item, bar, y, layout, drawn)
    tabbed = False
    for column in layout.spans[item]:
        signs, label, width = layout.contents[item, column]
        x = layout.starts[item, column]
        for sign, left, top, small in signs:
            colour = "" if sign.colour == item.colour else f' class="{sign.colour}"'
            place = f'x="{x + left:g}" y="{y + top:g}"'
            if small:
                place = f'transform="translate({x + left:g},{y + top:g}) scale(.57)"'
            yield _sign(sign, f"{place}{colour}", tabbed, drawn)
            tabbed = True
        if label:
            yield f'<text x="{x + width - text_width(label):.1f}" y="{y + 16}">{_text(label)}</text>'
    yield "</g>"


def _bar(item: Item, bar: Bar, y: float, layout: Layout, drawn: set[str]) -> str:
    begin, end = layout.starts[item, bar.first], layout.starts[item, bar.last]
    if bar.style in (*THIN, "waits"):
        begin += layout.contents[item, bar.first].width + 4
        end -= 3
        # What began and ended in one column has no length.
        end = end if bar.first != bar.last or bar.style == "waits" else begin + 12
        if end <= begin:
            return ""
        if bar.style == "waits":
            return f'<rect class="waits" x="{begin:.0f}" y="{y + 4}" width="{end - begin:.0f}" height="{ROW - 8}"/>'
        return f'<path class="span {bar.style}" d="M{begin:.0f} {y + 12}H{end:.0f}"/>'
    requested = any(sign.shape == "requested" and sign.column == bar.first for sign in item.signs)
    begin += SIGN - 1 if requested else -3
    end += max(layout.contents[item, bar.last].width, SIGN) + 4
    place = f'x="{begin:.0f}" y="{y + 2}" width="{end - begin:.0f}" height="{ROW - 4}" rx="10"'
    return f'<rect{_anchor(f"r{item.runs[0]}", drawn)} class="bar {bar.style}" {place}/>'


def _sign(sign: Sign, place: str, tabbed: bool, drawn: set[str]) -> str:
    # One stop of the Tab key for an item is enough; the arrow keys go on from it.
    stop = ' tabindex="-1"' if tabbed else ""
    anchor = _anchor(f"d{sign.event}", drawn)
    use = f'<use href="#s-{sign.shape if sign.shape in _SHAPES else "clock"}" {place}/>'
    return f'<a{anchor} href="#e{sign.event}"{stop}><title>{_text(sign.detail)}</title>{use}</a>'


def _anchor(name: str, drawn: set[str]) -> str:
    """The id of what is drawn first for an event or a run; the table links to it."""
    if name in drawn:
        return ""
    drawn.add(name)
    return f' id="{name}"'


# The table


def _table(timeline: Timeline, rows: list[Lane]) -> Iterator[str]:
    drawn = {sign.event for lane in rows for item in lane.items for sign in item.signs}
    yield '<section id="text"><div class="tools"><h2>In words</h2>'
    yield '<input id="filter" type="search" placeholder="filter: run 3, failed ..."'
    yield ' aria-label="Filter" hidden=""/>'
    yield '<label><input type="checkbox" id="problems"/> only what went wrong</label>'
    yield '<output id="count" aria-live="polite"></output></div>'
    yield '<table><thead><tr><th scope="col">time</th><th scope="col">kind</th><th scope="col">run</th>'
    yield '<th scope="col">what</th><th scope="col">cause</th></tr></thead><tbody>'
    before: Event | None = None
    for position, event in enumerate(timeline.events):
        yield _table_row(position, event, position in drawn, before is not None and before.at == event.at)
        before = event
    yield "</tbody></table></section>"


def _table_row(position: int, event: Event, drawn: bool, same_time: bool) -> str:
    target = f"#d{position}" if drawn else f"#r{event.run}"
    causes = ", ".join(str(cause) for cause in event.causes)
    run = f"run {event.run}" if event.run else ""
    classes = " ".join([*(["bad"] if event.problem else []), *(["same"] if same_time else [])])
    style = f' class="{classes}"' if classes else ""
    return (
        f'<tr id="e{position}"{style}><td><a href="{target}">{event.at:%Y-%m-%d %H:%M:%S}</a></td>'
        f'<td><span class="kind {event.kind.replace(" ", "-")}">{_text(event.kind)}</span></td><td>{run}</td>'
        f"<td>{_text(short(event.text, 4000))}</td><td>{_text(causes)}</td></tr>"
    )
