"""A headless Chromium for the tests of what a person sees, and the pictures of the documentation that it takes.

`pytest tests/browser --screenshots docs/images` writes the pictures again. What a test that failed has seen is kept
below .dedp/browser/: a picture, and a trace for `playwright show-trace`.
"""

import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from PIL import Image

from dedp_assets import settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

KEPT = settings.REPOSITORY / ".dedp" / "browser"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
# Of a test that runs: how long a step may take until it counts as failed. The machine may be slow and busy.
PATIENCE_MILLISECONDS = 60_000

Photograph: TypeAlias = Callable[["Page | Locator", str], None]
OpenPage: TypeAlias = Callable[[], "Page"]

_failed = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", metavar="FOLDER", help="write the pictures of the documentation into this folder")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.failed:
        item.stash[_failed] = True
    return report  # type: ignore[return-value]


@pytest.fixture(scope="module")
def chromium() -> "Iterator[Browser]":
    """The browser of all tests of a file."""
    from playwright.sync_api import expect, sync_playwright

    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no Chromium on PATH (looked for {', '.join(NAMES)}); on Debian: apt-get install chromium")
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: "Browser", request: pytest.FixtureRequest) -> Iterator[OpenPage]:
    """Opens a page as a person without any cookie. What it has shown is kept if the test fails."""
    opened: list[Page] = []

    def open_() -> "Page":
        # Twice as many pixels, so that pictures are sharp; light and English, wherever it runs.
        context = chromium.new_context(
            viewport={"width": 1280, "height": 800},
            device_scale_factor=1.5,
            color_scheme="light",
            locale="en-US",
            timezone_id="UTC",
        )
        context.set_default_timeout(PATIENCE_MILLISECONDS)
        context.tracing.start(screenshots=True, snapshots=True)
        opened.append(context.new_page())
        return opened[-1]

    yield open_
    folder = KEPT / re.sub(r"\W+", "_", request.node.name)
    shutil.rmtree(folder, ignore_errors=True)
    for number, page in enumerate(opened, start=1):
        if request.node.stash.get(_failed, False):
            page.screenshot(path=folder / f"page_{number}.png")
            page.context.tracing.stop(path=folder / f"trace_{number}.zip")
            print(f"kept: {folder}/page_{number}.png, trace_{number}.zip ({page.url})")
        page.context.close()


@pytest.fixture
def page(open_page: OpenPage) -> "Page":
    """A page of a person who has not signed in."""
    return open_page()


@pytest.fixture(scope="session")
def photograph(request: pytest.FixtureRequest) -> Photograph:
    """Writes a page, or a part of it, as a picture of the documentation, if these are asked for."""
    folder = request.config.getoption("--screenshots", None)

    def write(shown: "Page | Locator", name: str) -> None:
        if folder:
            # Nothing is hovered over, nothing has the focus.
            page: Any = getattr(shown, "page", shown)
            page.mouse.move(0, 0)
            page.evaluate("document.activeElement?.blur()")
            _write_small(shown.screenshot(animations="disabled"), Path(folder) / f"{name}.png")

    return write


def _write_small(png: bytes, path: Path) -> None:
    """Write a picture of a UI, which has few colours, with a palette: a third of the size, and looks the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)
