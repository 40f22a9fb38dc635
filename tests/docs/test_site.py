"""The documentation as a site: no warning, no link that leads nowhere, and the diagrams and the API reference."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import dagster_scenario
import pytest

from dedp_assets import settings

pytestmark = pytest.mark.slow

DOCS = settings.REPOSITORY / "docs"


class Page(HTMLParser):
    """The addresses that a page links to, and the anchors that it has."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src"):
                self.addresses.append(value or "")
            elif name in ("id", "name"):
                self.anchors.add(value or "")


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site. The strict build fails for a link to a file or heading that is not there, and for a bad docstring."""
    # Not with --quiet: what is not logged does not fail a strict build.
    if find_spec("mkdocs") is None:
        pytest.skip("MkDocs is not installed: make docs")
    chosen = request.config.getoption("--site", None)
    folder = Path(chosen).resolve() if chosen else tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-f",
        str(DOCS / "mkdocs.yml"),
        "-d",
        str(folder),
    ]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_no_link_of_the_site_leads_nowhere(site: Path) -> None:
    pages = {page: Page(page) for page in site.rglob("*.html")}
    broken = []
    for page, content in pages.items():
        if page.name == "404.html":  # its links start at the root of a server
            continue
        for address in content.addresses:
            link = urlsplit(address)
            if link.scheme or link.netloc:
                continue
            target = (page.parent / unquote(link.path)).resolve() if link.path else page
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (
                link.fragment and target in pages and unquote(link.fragment) not in pages[target].anchors
            ):
                broken.append(f"{page.relative_to(site)}: {link.geturl()}")
    assert broken == []


def test_every_document_is_a_page_and_its_diagrams_stay_diagrams(site: Path) -> None:
    for document in DOCS.glob("*.md"):
        page = (site / "docs" / document.stem / "index.html").read_text(encoding="utf-8")
        assert page.count('class="mermaid"') == document.read_text(encoding="utf-8").count("```mermaid"), document


def test_the_navigation_shows_every_page_by_its_name(site: Path) -> None:
    """A theme may take a README for the page of the section that it is in, and show it nowhere."""
    _, _, navigation = (DOCS / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")
    titles = set(re.findall(r"- (.+?):", navigation))
    assert {"Docker", "Benchmarks", "dagster-scenario"} <= titles
    page = (site / "index.html").read_text(encoding="utf-8")
    assert titles - set(re.findall(r'<span class="md-ellipsis">\s*(.*?)\s*<', page)) == set()


def test_the_reference_has_every_public_name_of_the_harness_with_its_methods(site: Path) -> None:
    page = (site / "docs" / "api" / "scenario" / "index.html").read_text(encoding="utf-8")
    assert [name for name in dagster_scenario.__all__ if f'id="dagster_scenario.{name}"' not in page] == []
    methods = [name for name in vars(dagster_scenario.Scenario) if not name.startswith("_")]
    assert [name for name in methods if f'id="dagster_scenario.Scenario.{name}"' not in page] == []


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("warm_launcher", ["dagster_warm_launcher.launcher.WarmRunLauncher", "dagster_warm_launcher.forks.Zygote"]),
        ("sensors", ["sensors.landed_files.sensor.landed_files_sensor", "sensors.reconciliation.reconciling_sensor"]),
        ("pipelines", ["dedp_assets.delimited.format.Format", "dedp_assets.launching.launch"]),
    ],
)
def test_the_reference_has_what_others_build_on(site: Path, page: str, names: list[str]) -> None:
    text = (site / "docs" / "api" / page / "index.html").read_text(encoding="utf-8")
    assert [name for name in names if f'id="{name}"' not in text] == []
