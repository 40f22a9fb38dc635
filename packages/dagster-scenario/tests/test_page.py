"""The page of a timeline: what it shows, and that it is one file that every browser can open."""

import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from xml.etree import ElementTree

import dagster as dg
import pytest
from dagster_scenario import Scenario
from dagster_scenario import timeline as timeline_
from dagster_scenario.page import render
from dagster_scenario.page.lanes import Columns, lanes
from dagster_scenario.page.layout import Layout
from dagster_scenario.timeline import Cause, Run, Timeline

_DAYS = dg.DailyPartitionsDefinition("2024-01-01")
_ATTACK = "</title><script>alert('<&>')</script>\x1b[31m\x00\ud800"


def play() -> Timeline:
    """A late day, a failure with a hostile message, a held run, daemons down and a report without a run."""

    @dg.asset(partitions_def=_DAYS)
    def orders() -> None: ...

    @dg.asset(partitions_def=_DAYS, deps=[orders])
    def daily() -> None: ...

    @dg.sensor(target=dg.AssetSelection.assets(orders), default_status=dg.DefaultSensorStatus.RUNNING)
    def landed(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        if context.cursor:
            return dg.SkipReason("nothing new")
        return dg.SensorResult([dg.RunRequest(partition_key="2024-01-01")], cursor="seen")

    external = dg.AssetSpec("vendor/prices", partitions_def=_DAYS)
    with Scenario(start="2024-01-05 08:00") as scenario:
        scenario.load(shop=dg.Definitions([orders, daily, external], sensors=[landed]))
        scenario.folder().drop("2024-01-01.csv")
        scenario.run_until_quiet()
        scenario.mark("before the faults")
        scenario.fail("daily", error=_ATTACK)
        scenario.hold("orders", partition="2024-01-03")
        scenario.materialize("daily", partition="2024-01-02")
        scenario.materialize("orders", partition="2024-01-03")
        with scenario.daemons_down("sensors"):
            scenario.at("15:30")
        scenario.release()
        scenario.report("vendor/prices", "2024-01-04")
        return scenario.timeline


@pytest.fixture(scope="module")
def played() -> Timeline:
    return play()


@pytest.fixture(scope="module")
def page(played: Timeline) -> ElementTree.Element:
    return parse(render(played))


def parse(page: str) -> ElementTree.Element:
    """Well-formed XML, which leaves an HTML parser nothing to repair."""
    page.encode("utf-8")
    return ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))


def styled(root: ElementTree.Element, *classes: str) -> Iterator[ElementTree.Element]:
    return (found for found in root.iter() if set(classes) <= set(found.get("class", "").split()))


def said(element: ElementTree.Element) -> str:
    return "".join(element.itertext())


def crowd(assets: int, events: int) -> Timeline:
    """Runs that wait, that overlap, that crowd one moment, and that span hours, of several assets each."""
    now = datetime(2024, 1, 1, tzinfo=timezone.utc)
    timeline = Timeline(lambda: now)
    names = tuple(f"shop/asset_{number}" for number in range(assets))
    while len(timeline.events) < events:
        number = len(timeline.runs) + 1
        key = f"2024-01-{number % 28 + 1:02}"
        causes = (Cause("sensor", "landed"),)
        run = Run(number, str(number), "shop", "job", names, (key,), causes, {}, requested=now, started=now)
        timeline.runs[run.id] = run
        timeline.add(timeline_.WORLD, f"{key}.csv arrives with a name that needs more room than its column has")
        timeline.add(timeline_.REQUESTED, run.what, run=number, causes=causes)
        timeline.add(timeline_.STARTED, run.what, run=number)
        now += timedelta(hours=number % 3 if number > 30 else 0)
        for name in names:
            timeline.add(timeline_.MATERIALIZED, f"{name} [{key}]", run=number, asset=name, partition=key)
        run.ended, run.status = now, timeline_.SUCCEEDED if number % 5 else timeline_.FAILED
        timeline.add(run.status, run.what, run=number)
        now -= timedelta(hours=number % 3 if number > 30 and number % 7 else 0)
    timeline.events.sort(key=lambda event: event.at)
    return timeline


def test_the_page_needs_no_other_file_and_no_network(page: ElementTree.Element) -> None:
    assert not [found.tag for found in page.iter() if found.tag in ("link", "iframe", "img", "object", "image")]
    addresses = [found.get(name) for found in page.iter() for name in ("href", "src", "data", "action")]
    assert all(address.startswith("#") for address in addresses if address)
    (style,) = page.iter("style")
    assert "@import" not in said(style)
    assert said(style).count("url(") == said(style).count("url(#")
    assert page.get("lang") == "en"
    assert page.find("head/title") is not None
    assert any(meta.get("name") == "viewport" for meta in page.iter("meta"))


def test_what_users_write_stays_text(played: Timeline, page: ElementTree.Element) -> None:
    assert any("<script>alert('<&>')" in event.text for event in played.events)
    assert len(list(page.iter("script"))) == 1
    assert "alert" not in said(next(page.iter("script")))
    row = next(row for row in styled(page, "bad") if "step failed" in said(row))
    assert "</title><script>alert('<&>')</script>\N{REPLACEMENT CHARACTER}[31m" in said(row)


def test_each_asset_and_each_sensor_has_a_lane_below_its_code_location(page: ElementTree.Element) -> None:
    names = [said(name) for name in next(styled(page, "names"))]
    assert names == [
        "the world",
        "marks",
        "daemons",
        "shop",
        "landedsensor",
        "orders",
        "daily",
        "reported without a run",
        "vendor/prices",
    ]
    drawn = [lane.findtext("desc") for lane in styled(page, "lane")]
    assert drawn == ["the world", "marks", "daemons", "landed", "orders", "daily", "vendor/prices"]


def test_each_materialized_partition_is_a_dot_that_tells_its_story(played: Timeline, page: ElementTree.Element) -> None:
    dots = {
        link.get("href"): link.findtext("title") or ""
        for link in page.iter("a")
        if any(use.get("href") == "#s-materialized" for use in link.iter("use"))
    }
    materialized = {
        f"#e{position}" for position, event in enumerate(played.events) if event.kind == timeline_.MATERIALIZED
    }
    assert set(dots) == materialized
    story = next(title for title in dots.values() if "orders [2024-01-01]" in title)
    assert story.splitlines() == [
        "2024-01-05 08:00:00  materialized",
        "orders [2024-01-01]",
        "run 1: succeeded, partition 2024-01-01",
        "by sensor landed",
    ]


def test_every_link_leads_somewhere_and_every_row_to_the_lanes(page: ElementTree.Element) -> None:
    ids = [found.get("id") for found in page.iter() if found.get("id")]
    assert len(ids) == len(set(ids))
    links = [link.get("href", "") for link in page.iter("a")]
    assert {link[1:] for link in links} <= set(ids)
    rows = list(page.iter("tr"))[1:]
    assert all(row.find("td/a") is not None for row in rows)


def test_runs_that_fail_or_are_held_are_drawn_differently(page: ElementTree.Element) -> None:
    drawn = {
        lane.findtext("desc"): [bar.get("class") for bar in lane.iter("rect") if bar.get("class")]
        for lane in styled(page, "lane")
    }
    assert drawn["orders"] == ["bar succeeded", "bar succeeded", "waits"]
    assert drawn["daily"] == ["bar failed"]
    assert len(list(styled(page, "shade"))) == 1, "while the daemons were down"


def test_skipped_time_is_marked_between_two_columns() -> None:
    now = datetime(2024, 1, 1, 8, tzinfo=timezone.utc)
    timeline = Timeline(lambda: now)
    timeline.add(timeline_.WORLD, "a file arrives")
    now += timedelta(seconds=30)
    timeline.add(timeline_.WORLD, "another one")
    now += timedelta(hours=7, minutes=30)
    timeline.add(timeline_.WORLD, "a late one")
    page = parse(render(timeline))
    assert [said(time_) for time_ in styled(page, "time")] == ["08:00:00", "08:00:30+30 s", "15:30:30"]
    assert [said(gap) for gap in styled(page, "gap")] == ["+7 h 30 min"]


def test_a_run_that_is_killed_ends_there_whatever_dagster_finds_out_later() -> None:
    now = datetime(2024, 1, 1, 8, tzinfo=timezone.utc)
    timeline = Timeline(lambda: now)
    run = Run(1, "a", "shop", "job", ("orders",), (), (Cause("hand"),), {}, requested=now, started=now)
    timeline.runs["a"] = run
    timeline.add(timeline_.REQUESTED, run.what, run=1, causes=run.causes)
    timeline.add(timeline_.STARTED, run.what, run=1)
    timeline.add(timeline_.KILLED, f"{run.what}, by SIGKILL, start", run=1)
    now += timedelta(minutes=5)
    run.ended, run.status = now, timeline_.FAILED
    timeline.add(timeline_.FAILED, run.what, run=1)
    columns = Columns(timeline.events)
    (lane,) = lanes(timeline, columns)
    assert [(bar.first, bar.last, bar.style) for bar in lane.items[0].bars] == [(0, 0, "killed"), (0, 1, "queued")]
    assert [sign.shape for sign in lane.items[0].signs] == ["requested", "killed", "failed"]


def test_nothing_in_a_lane_covers_anything_else() -> None:
    timeline = crowd(assets=2, events=400)
    columns = Columns(timeline.events)
    rows = lanes(timeline, columns)
    layout = Layout(rows, columns)
    for lane in rows:
        taken = defaultdict(list)
        for item in lane.items:
            last = layout.spans[item][-1]
            end = layout.starts[item, last] + layout.contents[item, last].width
            taken[layout.rows[item]].append((layout.start(item), end))
        for spans in taken.values():
            spans.sort()
            assert all(before[1] < after[0] for before, after in pairwise(spans))
    assert layout.width > max(end for spans in taken.values() for _, end in spans)


def test_the_same_scenario_gives_the_same_page_without_ids(played: Timeline) -> None:
    page = render(played)
    assert page == render(played) == render(play())
    assert not any(run.id in page for run in played.runs.values())


def test_a_timeline_without_events_is_a_page_too() -> None:
    page = parse(render(Timeline(lambda: datetime(2024, 1, 1, tzinfo=timezone.utc))))
    assert "Nothing has happened yet." in said(page)


def test_two_thousand_events_are_a_page_of_less_than_three_megabytes_in_less_than_a_second() -> None:
    timeline = crowd(assets=40, events=2000)
    began = time.process_time()
    page = render(timeline)
    assert time.process_time() - began < 1
    assert len(page.encode()) < 3_000_000
