"""The picture of late data: what it is made of, and what it looks like for few days and for many."""

import base64
import io
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

import dagster as dg
import matplotlib.image
import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from PIL import Image

from dedp_assets.late_data_integrator import contract, overview, picture_asset
from dedp_assets.late_data_integrator.picture import (
    MAX_DAYS,
    Dot,
    Timeline,
    days_to_draw,
    describe_picture,
    dot_positions,
    late_data_picture,
    timelines,
)
from dedp_assets.late_data_integrator.tables import observe_progress
from dedp_assets.resources_from_settings import LakeFromSettings
from tests.dedp_assets.late_data_integrator.device_tables import Lake, Run

D1, D2, D3 = "2024-01-01", "2024-01-02", "2024-01-03"
LATER = datetime(2024, 2, 1, tzinfo=timezone.utc)
LATE_COLOUR = (0xD9, 0x48, 0x0F)


# The colours of each pixel.
Pixels: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


class Drawn(Protocol):
    """The timelines of the tables as they are now, by day. At most `limit` commits are read."""

    def __call__(self, limit: int = ...) -> dict[str, Timeline]: ...


@pytest.fixture
def drawn(lake: Lake) -> Drawn:
    def drawn(limit: int = overview.MAX_COMMITS) -> dict[str, Timeline]:
        progress = observe_progress(LakeFromSettings(), in_progress=())
        history = overview.read_history(lake.log, progress.snapshot.version, limit)
        return {day.day: day for day in timelines(progress, history, overview.known_days(LATER))}

    return drawn


def kinds(timeline: Timeline) -> list[tuple[int, str, bool]]:
    return [(dot.version, dot.kind, dot.counted) for dot in timeline.dots]


def test_a_commit_is_late_if_it_comes_after_the_first_one_of_the_next_day(lake: Lake, run: Run, drawn: Drawn) -> None:
    lake.append(D1, "a")
    lake.append(D1, "b")
    lake.append(D2, "a")
    run(D1)
    lake.append(D1, "late")
    days = drawn()
    assert kinds(days[D1]) == [(0, "first", True), (1, "more", True), (3, "late", False)]
    assert kinds(days[D2]) == [(2, "first", False)]
    assert (days[D1].counts_version, days[D2].counts_version) == (2, None)
    assert (days[D1].is_behind, days[D2].is_behind) == (True, False)
    assert days[D1].closed == days[D2].dots[0].at
    assert days[D2].closed is None
    run(D1)
    assert kinds(drawn()[D1])[-1] == (3, "late", True)


def test_a_day_whose_first_load_comes_after_the_next_day_has_a_first_load_all_the_same(
    lake: Lake, drawn: Drawn
) -> None:
    lake.append(D2, "a")
    lake.append(D1, "a")
    lake.append(D1, "b")
    assert kinds(drawn()[D1]) == [(1, "first", False), (2, "late", False)]


def test_a_commit_that_closes_a_day_is_not_late_for_it_even_if_it_changes_it_too(lake: Lake, drawn: Drawn) -> None:
    lake.append(D1, "a")
    both = pa.concat_tables([lake.rows(D1, "b"), lake.rows(D2, "a")])
    write_deltalake(lake.devices_uri, both, mode="append")
    lake.append(D1, "late")
    days = drawn()
    assert [kind for _, kind, _ in kinds(days[D1])] == ["first", "more", "late"]
    assert kinds(days[D2]) == [(1, "first", False)]


def test_a_restored_day_reflects_its_input_so_nothing_of_it_is_hollow(lake: Lake, run: Run, drawn: Drawn) -> None:
    lake.append(D1, "a")
    lake.append(D2, "a")
    run(D1)
    lake.append(D1, "b")
    lake.devices.restore(1)
    assert [counted for _, _, counted in kinds(drawn()[D1])] == [True, True, True]
    assert not drawn()[D1].is_behind


def test_partitions_that_are_no_days_of_ours_are_not_drawn(lake: Lake, drawn: Drawn) -> None:
    lake.append("2023-12-31", "a")
    lake.append(D1, "a")
    assert list(drawn()) == [D1]


def test_days_older_than_the_history_are_neither_loaded_first_in_it_nor_still_open(lake: Lake, drawn: Drawn) -> None:
    lake.append(D1, "a")
    lake.append(D2, "a")
    lake.append(D1, "late")
    lake.append(D2, "more")
    lake.append(D3, "a")
    days = drawn(limit=3)
    assert kinds(days[D1]) == [(2, "late", False)]
    assert kinds(days[D2]) == [(3, "more", False)]
    assert kinds(days[D3]) == [(4, "first", False)]
    assert days[D1].closed == days[D1].dots[0].at


def test_the_picture_is_a_png_that_fits_a_page_and_a_small_one_fits_an_event_with_one_day_as_with_400() -> None:
    for number in (0, 1, 7, 400):
        png = late_data_picture(made_up(number))
        height, width = pixels(png).shape[:2]
        assert width == 920
        assert 50 < height <= 1100
        small = picture_asset.small_enough(png)
        assert small is not None
        assert len(picture_asset.embedded(png)) <= 10_000
        # Of the same shape, and not so small that nobody sees anything.
        small_height, small_width = small_pixels(small).shape[:2]
        assert abs(small_height / small_width - height / width) < 0.01
        assert small_width >= 400


def test_the_same_days_give_the_same_picture() -> None:
    assert late_data_picture(made_up(7)) == late_data_picture(made_up(7))


def test_late_commits_have_a_colour_and_what_the_counts_do_not_reflect_is_hollow() -> None:
    clean = made_up(7)
    late = made_up(7, late={3: True})
    hollow = [replace(day, dots=tuple(dot._replace(counted=False) for dot in day.dots)) for day in late]
    of_nothing, of_late, of_hollow = (coloured(late_data_picture(days)) for days in (clean, late, hollow))
    assert of_nothing < of_hollow < of_late


def test_a_day_that_is_behind_has_a_mark() -> None:
    days = made_up(7)
    assert coloured(late_data_picture(days)) < coloured(
        late_data_picture([replace(days[0], is_behind=True), *days[1:]])
    )


def test_the_line_below_the_title_counts_commits_once_and_says_what_is_not_shown() -> None:
    days = made_up(3, late={0: False, 1: True})
    assert describe_picture(days, 3, 0) == [
        "5 commits to 3 days, 2 of them late; 1 day with late data that the counts don't reflect yet"
    ]
    assert describe_picture(days, 2, 1)[1:] == [
        "Not shown: 1 older commit, not read or gone from the log; all days but the 2 that changed last"
    ]


def test_of_too_many_days_those_are_drawn_that_changed_last() -> None:
    days = made_up(MAX_DAYS + 2, late={0: False})
    assert [day.day for day in days_to_draw(days)] == [days[0].day, *[day.day for day in days[3:]]]


def test_of_dots_on_top_of_each_other_one_is_drawn_and_a_hollow_one_is_not_lost() -> None:
    at = datetime(2024, 1, 2, 12, tzinfo=timezone.utc)
    dots = [Dot(version, at, "late", version < 999) for version in range(1_000)]
    (found,) = [dot_positions([Timeline(D1, tuple(dots), at, 998, is_behind=True)], left=19_723.0, right=19_725.0)]
    assert {key: len(of) for key, of in found.items() if of} == {("late", True): 1, ("late", False): 1}


def test_drawing_leaves_no_trace_of_pyplot_and_the_code_location_does_not_wait_for_matplotlib() -> None:
    program = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "from dedp_assets.late_data_integrator import picture, picture_asset\n"
        "assert not [name for name in sys.modules if name.startswith('matplotlib')]\n"
        "picture.late_data_picture([])\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_asset_shows_the_picture_and_its_numbers_in_the_ui(lake: Lake, run: Run) -> None:
    lake.append(D1, "a")
    lake.append(D2, "a")
    run(D1)
    lake.append(D1, "late")
    result = dg.materialize([picture_asset.picture], resources={"lake": LakeFromSettings()})
    (materialization,) = result.asset_materializations_for_node("lake__late_data_picture")
    metadata = {name: value.value for name, value in materialization.metadata.items()}
    shown, file = str(metadata.pop("picture")), str(metadata.pop("file"))
    assert file == f"{contract.uri(contract.LATE_DATA_PICTURE)}.png"
    assert pixels(Path(file).read_bytes()).shape[1] == 920
    assert [path.name for path in Path(file).parent.iterdir() if "picture" in path.name] == ["late_data_picture.png"]
    assert metadata == {
        "days": 2,
        "commits": 3,
        "late_commits": 1,
        "days_behind": 1,
        "older_commits_not_shown": 0,
    }
    start = "![late data](data:image/webp;base64,"
    assert shown.startswith(start)
    assert small_pixels(base64.b64decode(shown[len(start) : -1])).shape[1] >= 600
    assert not Path(contract.uri(contract.PARTITIONS_STATE)).exists()


@pytest.mark.slow
def test_an_event_stays_small_however_much_there_is_in_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = io.BytesIO()
    colours = np.random.default_rng(1).integers(0, 255, (1100, 920, 3), dtype=np.uint8)
    matplotlib.image.imsave(noise, colours, format="png")
    assert len(noise.getvalue()) > 1_000_000
    assert len(picture_asset.embedded(noise.getvalue())) <= 10_000
    monkeypatch.setattr(picture_asset, "MAX_BYTES", 100)
    said = picture_asset.embedded(noise.getvalue())
    assert said == "The picture is in the file; it has too much in it to be shown small."


def test_a_picture_small_enough_still_has_the_colour_of_late_data() -> None:
    png = late_data_picture(made_up(30, late={row: True for row in range(0, 30, 3)}))
    small = picture_asset.small_enough(png)
    assert small is not None
    near = np.abs(small_pixels(small) - np.array(LATE_COLOUR)).max(axis=2) < 60
    assert near.sum() > 20


def made_up(number: int, late: Mapping[int, bool] = MappingProxyType({})) -> list[Timeline]:
    """Consecutive days, each loaded and counted once. `late`: rows with a late commit, and whether it is counted."""
    start = date(2024, 1, 1)
    at = [datetime.combine(start, datetime.min.time(), timezone.utc) + timedelta(days=row) for row in range(number + 1)]
    days = []
    for row in range(number):
        dots = [Dot(row, at[row], "first", True)]
        behind = False
        if row in late:
            dots.append(Dot(number + row, at[number] + timedelta(hours=row), "late", late[row]))
            behind = not late[row]
        day = (start + timedelta(days=row)).isoformat()
        days.append(Timeline(day, tuple(dots), at[row + 1], row, is_behind=behind))
    return days


def pixels(png: bytes) -> Pixels:
    found: Pixels = (matplotlib.image.imread(io.BytesIO(png)) * 255).round().astype(int)
    return found


def small_pixels(webp: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(webp)).convert("RGB")).astype(int)


def coloured(png: bytes) -> int:
    """How many pixels have the colour of late data."""
    return int(np.all(pixels(png)[:, :, :3] == LATE_COLOUR, axis=2).sum())
