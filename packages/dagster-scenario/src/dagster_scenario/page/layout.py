"""Where the page of a timeline draws what: columns, lanes and items, so that nothing covers anything else."""

import unicodedata
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from typing import NamedTuple

from dagster_scenario import timeline as timeline_
from dagster_scenario.page.lanes import Columns, Item, Lane, Sign

# Sizes in px. A character's width is that of 11 px in every common monospaced font.
CHARACTER, SIGN, ROW, PAD, HEADING = 6.65, 17, 24, 10, 26
_NARROWEST = 80
# Gaps longer than this are marked between the columns.
LONG = timedelta(minutes=5)
# As many items that begin and end in one column stand below each other; more go beside them.
_STACK = 6
# As many like signs, such as a run's partitions, are beside each other in full size; more are small, in two rows.
_DOTS, _DOT = 4, 9
# Spans that are lines; the others are as high as their row.
THIN = ("queued", "idle", "down")


class Placed(NamedTuple):
    """A sign, and where it is in its item's content of a column."""

    sign: Sign
    left: float
    top: float
    small: bool


class Content(NamedTuple):
    """What an item has in one column: signs, with a label after them."""

    signs: list[Placed]
    label: str
    width: float


class Layout:
    """All places, in px."""

    def __init__(self, lanes: list[Lane], columns: Columns) -> None:
        items = [item for lane in lanes for item in lane.items]
        self.spans = {item: item.columns() for item in items}
        self.contents = {(item, column): _content(item, column) for item in items for column in self.spans[item]}
        self.gaps = [timedelta(), *columns.gaps()][: len(columns.moments)]
        # Where columns begin, and where in a column an item's content begins.
        self.lefts: list[float] = []
        self.starts: dict[tuple[Item, int], float] = {}
        right = self._place_columns(lanes, columns)
        # An item's row in its lane; where lanes and the headings of groups begin.
        self.rows: dict[Item, int] = {}
        self.tops: list[float] = []
        self.heights: list[float] = []
        self.headings: dict[str, float] = {}
        self.height = self._place_rows(lanes)
        self.width = max([right, *(self._end(item) for item in items)]) + PAD

    def _place_columns(self, lanes: list[Lane], columns: Columns) -> float:
        """Returns where the last column ends."""
        widths = [max(_NARROWEST, text_width(clock_time(moment)) + 2 * PAD) for moment in columns.moments]
        offsets: dict[tuple[Item, int], float] = {}
        for lane in lanes:
            for column, width in self._place_in_columns(lane, offsets).items():
                widths[column] = max(widths[column], width + PAD)
        left = float(PAD)
        for width, gap in zip(widths, self.gaps, strict=True):
            left += gap_width(gap)
            self.lefts.append(left)
            left += width
        for (item, column), offset in offsets.items():
            self.starts[item, column] = self.lefts[column] + PAD + offset
        return left

    def _place_in_columns(self, lane: Lane, offsets: dict[tuple[Item, int], float]) -> dict[int, float]:
        """Returns how wide this lane needs its columns to be."""
        crowds = Counter(self.spans[item][0] for item in lane.items if len(self.spans[item]) == 1)
        stacks: dict[int, list[float]] = defaultdict(lambda: [0.0])
        stacked: Counter[int] = Counter()
        stack_of: dict[tuple[Item, int], int] = {}
        for item in lane.items:
            for column in self.spans[item]:
                number = 0
                if len(self.spans[item]) == 1:
                    number = stacked[column] // _STACK
                    stacked[column] += 1
                # What a run is drawn with widens its column; other texts reach into the next ones, if not in a crowd.
                width = self.contents[item, column].width + PAD
                if not item.runs and crowds[column] <= _STACK:
                    width = min(width, _NARROWEST)
                stack = stacks[column]
                stack[number:] = [max(width, *stack[number : number + 1], 0.0)]
                stack_of[item, column] = number
        for (item, column), number in stack_of.items():
            offsets[item, column] = sum(stacks[column][:number])
        return {column: sum(stack) for column, stack in stacks.items()}

    def _place_rows(self, lanes: list[Lane]) -> float:
        """Give each item a row of its lane in which nothing else is where it is. Returns the height of it all."""
        top, group = 0.0, ""
        for lane in lanes:
            if lane.group != group:
                group = lane.group
                self.headings[group] = top
                top += HEADING
            ends: list[float] = []
            for item in sorted(lane.items, key=self.start):
                row = next((row for row, end in enumerate(ends) if end <= self.start(item)), len(ends))
                ends[row : row + 1] = [self._end(item)]
                self.rows[item] = row
            self.tops.append(top)
            self.heights.append(max(1, len(ends)) * ROW + 8)
            top += self.heights[-1]
        return top

    def start(self, item: Item) -> float:
        """Where an item begins."""
        return self.starts[item, self.spans[item][0]]

    def _end(self, item: Item) -> float:
        last = self.spans[item][-1]
        width = self.contents[item, last].width
        if not width and all(bar.style in THIN for bar in item.bars):
            return self.starts[item, last]
        return self.starts[item, last] + max(width, SIGN) + PAD - 1


def text_width(text: str) -> float:
    """The width of a text, in px."""
    return CHARACTER * sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def clock_time(moment: datetime) -> str:
    """The time of day, to the second or as exact as it is."""
    return f"{moment:%H:%M:%S}" + (f".{moment:%f}".rstrip("0") if moment.microsecond else "")


def gap_text(gap: timedelta) -> str:
    """How much time has passed: `+7 h 30 min`."""
    return f"+{timeline_.lateness(gap)}" if gap >= timedelta(seconds=1) else f"+{gap.total_seconds():g} s"


def gap_width(gap: timedelta) -> float:
    """The space between two columns for the time that has passed, in px."""
    return text_width(gap_text(gap)) + 2 * PAD if gap > LONG else 0


def _content(item: Item, column: int) -> Content:
    signs = [sign for sign in item.signs if sign.column == column]
    often = Counter(sign.shape for sign in signs)
    dots = [sign for sign in signs if often[sign.shape] > _DOTS]
    large = [sign for sign in signs if often[sign.shape] <= _DOTS]
    placed = [Placed(sign, number * SIGN, 5, False) for number, sign in enumerate(large)]
    left = len(large) * SIGN
    placed += [Placed(sign, left + number // 2 * _DOT, 3 + number % 2 * _DOT, True) for number, sign in enumerate(dots)]
    left += (len(dots) + 1) // 2 * _DOT + (3 if dots else 0)
    label = item.labels.get(column, "")
    return Content(placed, label, left + (text_width(label) + 3 if label else 0))
