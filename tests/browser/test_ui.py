"""What a person sees and does in the UI of the running system, in a real browser."""

import importlib
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dagster as dg
import pytest
import yaml

from dedp_assets import settings
from dedp_assets.client_uploads import contract as uploads
from dedp_assets.isolated_sequencer import contract as sequencer
from dedp_assets.late_data_integrator import contract as late_data
from dedp_assets.promotions import contract as promotions
from tests.browser.conftest import OpenPage, Photograph
from tests.dedp_command import run_dedp
from tests.scenarios.system import System, temporary_home

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow
expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: make test-browser").expect

TODAY = datetime.now(timezone.utc).date()
# How many devices came on each of the last days, the earliest first.
DEVICES = [120, 180, 150, 240, 210, 330, 300]
DAYS = [(TODAY - timedelta(days=n)).isoformat() for n in range(len(DEVICES), 0, -1)]
# No file came for this day, and no sensor asks for it. Who asks for it gets the undated file.
EARLIER_DAY = (TODAY - timedelta(days=len(DEVICES) + 1)).isoformat()
CLIENTS = ("north", "south")

LAUNCH = """
async partition => {
    const response = await fetch("/graphql", {
        method: "POST",
        headers: {"Content-Type": "application/json"},
        body: JSON.stringify({
            query: `mutation Launch($params: LaunchBackfillParams!) {
                launchPartitionBackfill(backfillParams: $params) { __typename }
            }`,
            variables: {params: {assetSelection: [{path: ["devices_file"]}], partitionNames: [partition]}},
        }),
    });
    return await response.text();
}
"""


@pytest.fixture(scope="module")
def system(chromium: "Browser") -> Iterator[System]:
    """The system after `dedp up`, into which files for every pipeline have come."""
    with temporary_home() as home:
        running = System(home)
        try:
            with running.settings_in_force():
                _write_what_lands(home / "landing")
            running.up()
            yield running
        finally:
            running.down()


def _write_what_lands(landing: Path) -> None:
    for day, number in [*zip(DAYS, DEVICES, strict=True), ("", 90)]:
        devices = "".join(f"phone;Phone {n};v{n % 3}\n" for n in range(number))
        _write(landing / "devices" / day / "dataset.csv", f"type;full_name;version\n{devices}")
    orders = "id,name,value\n" + "".join(f"{n},item {n},{n}.5\n" for n in range(40))
    for client, without_value in zip(CLIENTS, (["40,item 40\n"], []), strict=True):
        _write(landing / "clients" / client / "orders.csv", orders + "".join(without_value))
    for command in (
        ["generate-promotions", "--from", DAYS[-3], "--to", TODAY.isoformat()],
        ["load-delta", *DAYS],
        ["load-delta", DAYS[1]],
    ):
        done = run_dedp(*command)
        assert done.returncode == 0, done.stderr


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def sign_in(page: "Page", url: str, name: str, password: str) -> None:
    """Open the UI as somebody does who has not signed in."""
    page.goto(url)
    if _asks_for_sign_in(page):
        page.locator("input[name=username]").fill(name)
        page.locator("input[name=password]").fill(password)
        page.get_by_role("button", name=re.compile("sign in", re.IGNORECASE)).click()
    expect(page.get_by_role("link", name="Lineage")).to_be_visible()


def _asks_for_sign_in(page: "Page") -> bool:
    address: str = page.url
    return urlsplit(address).path == "/sign-in"


@pytest.fixture
def operator(page: "Page", system: System) -> "Page":
    """The page of somebody who has signed in and may launch runs."""
    sign_in(page, system.url, "dedp", "dedp")
    return page


@pytest.fixture
def viewer(page: "Page", system: System, tmp_path: Path) -> "Page":
    """The page of somebody who has signed in and may only look."""
    page.goto(system.url)
    if not _asks_for_sign_in(page):
        pytest.skip("nobody has to sign in")
    password = tmp_path / "password"
    password.write_text("only looks, changes nothing")
    system.dedp("users", "add", "reader", "--role", "viewer", "--password-file", str(password))
    sign_in(page, system.url, "reader", password.read_text())
    return page


@pytest.fixture
def report(open_page: OpenPage) -> Iterator["Page"]:
    """A page for an HTML file of a pipeline. The test fails if it raises an error."""
    page = open_page()
    errors: list[Any] = []
    page.on("pageerror", lambda error: errors.append(error))  # not the method itself: Playwright marks it
    yield page
    assert errors == []


def _wait_for(system: System, key: dg.AssetKey, *partitions: str) -> None:
    system.wait_until(lambda: set(partitions) <= system.materialized(key))


def test_nobody_sees_anything_before_signing_in(page: "Page", system: System, photograph: Photograph) -> None:
    page.goto(f"{system.url}/assets/devices_file")
    if not _asks_for_sign_in(page):
        pytest.skip("nobody has to sign in")
    expect(page.get_by_text("devices_file")).to_have_count(0)
    photograph(page, "sign_in")
    page.locator("input[name=username]").fill("dedp")
    page.locator("input[name=password]").fill("wrong")
    page.get_by_role("button", name=re.compile("sign in", re.IGNORECASE)).click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.goto(f"{system.url}/assets/devices_file")
    assert _asks_for_sign_in(page)


def test_the_asset_graph_has_every_group_of_all_nine_code_locations(
    operator: "Page", system: System, photograph: Photograph
) -> None:
    workspace = yaml.safe_load((settings.REPOSITORY / "workspace.yaml").read_text())
    locations = [place["python_module"] for place in workspace["load_from"]]
    operator.goto(f"{system.url}/deployment/locations")
    expect(operator.get_by_text("9 code locations")).to_be_visible()
    expect(operator.get_by_text("Loaded", exact=True)).to_have_count(9)
    for location in locations:
        expect(operator.get_by_role("link", name=location).first).to_be_visible()

    operator.goto(f"{system.url}/asset-groups")
    graph = operator.locator("foreignObject")
    expect(graph.first).to_be_visible()
    operator.get_by_role("button", name="zoom_out").click(click_count=3)
    for location in locations:
        groups = _groups(location)
        assert groups
        for group in groups:
            expect(graph.get_by_text(group, exact=True)).to_be_in_viewport()
    expect(graph.filter(has_text="fetching statuses")).to_have_count(0)
    photograph(operator, "all_locations")


def _groups(location: str) -> set[str]:
    definitions: dg.Definitions = importlib.import_module(location).defs
    groups = {spec.group_name for spec in definitions.resolve_all_asset_specs() if spec.group_name}
    return groups - {"default"}  # of assets that the location knows by key only: they are in another one


def test_a_materialization_has_its_metadata_and_a_plot_of_all_loads(
    operator: "Page", system: System, photograph: Photograph
) -> None:
    _wait_for(system, sequencer.DEVICES_RAW, *DAYS)
    operator.goto(f"{system.url}/assets/dedp/devices_raw?view=events")
    operator.get_by_text(DAYS[-1]).first.click()
    expect(operator.get_by_text(f"Partition {DAYS[-1]} materialized in run")).to_be_visible()
    expect(operator.get_by_role("row", name=re.compile("rows_loaded"))).to_contain_text(str(DEVICES[-1]))
    expect(operator.get_by_role("row", name=re.compile("preview"))).to_contain_text("Phone 1")
    photograph(operator, "materialization")

    operator.goto(f"{system.url}/assets/dedp/devices_raw")
    operator.get_by_role("button", name="Plots").click()
    plot = operator.get_by_text("rows_loaded", exact=True).locator("xpath=following::canvas[1]")
    plot.scroll_into_view_if_needed()
    # Chart.js says what it has drawn only to who looks at its pixels. Axes are grey, and loads blue.
    is_drawn = """canvas => {
        const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return data.some((red, at) => at % 4 == 0 && data[at + 3] > 200 && data[at + 2] - red > 100);
    }"""
    operator.wait_for_function(is_drawn, arg=plot.element_handle())
    photograph(operator, "plots")


def test_a_partition_that_is_launched_in_the_ui_succeeds_and_the_other_code_location_follows(
    operator: "Page", system: System, photograph: Photograph
) -> None:
    _wait_for(system, sequencer.DEVICES_FILE, *DAYS)
    assert EARLIER_DAY not in system.materialized(sequencer.DEVICES_FILE)
    operator.goto(f"{system.url}/assets/devices_file")
    operator.get_by_role("button", name="Materialize…").click()
    dialog = operator.get_by_role("dialog")
    choice = dialog.get_by_role("textbox").first
    choice.fill(EARLIER_DAY)
    choice.press("Enter")
    expect(dialog.get_by_text("1 partition", exact=True)).to_be_visible()
    photograph(operator, "launch")
    dialog.get_by_role("button", name="Launch 1 run").click()

    _watch_succeed(operator, system, sequencer.DEVICES_FILE, EARLIER_DAY)
    _wait_for(system, sequencer.DEVICES_FILE, EARLIER_DAY)
    _wait_for(system, sequencer.DEVICES_RAW, EARLIER_DAY)


def _watch_succeed(page: "Page", system: System, key: dg.AssetKey, partition: str | None = None) -> None:
    """Look at the run of an asset until the UI says that it has succeeded."""

    def launched() -> list[str]:
        runs = [run for run in system.instance.get_runs() if key in (run.asset_selection or ())]
        return [run.run_id for run in runs if partition is None or run.tags.get("dagster/partition") == partition]

    page.goto(f"{system.url}/runs/{system.wait_until(launched)[0]}")
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()


def test_a_viewer_sees_the_assets_and_can_launch_nothing(viewer: "Page", open_page: OpenPage, system: System) -> None:
    _wait_for(system, sequencer.DEVICES_FILE, *DAYS)
    viewer.goto(f"{system.url}/assets/devices_file?view=partitions")
    expect(viewer.get_by_text(DAYS[-1]).first).to_be_visible()
    expect(viewer.get_by_role("button", name="Materialize…")).to_be_disabled()
    assert "LaunchBackfillSuccess" not in viewer.evaluate(LAUNCH, DAYS[0])
    assert system.instance.get_backfills() == []

    allowed = open_page()
    sign_in(allowed, system.url, "dedp", "dedp")
    assert "LaunchBackfillSuccess" in allowed.evaluate(LAUNCH, DAYS[0])


def test_the_lineage_of_the_sequencer_crosses_the_code_locations(
    operator: "Page", system: System, photograph: Photograph
) -> None:
    _wait_for(system, sequencer.DEVICES_AGGREGATES, *DAYS)
    operator.goto(f"{system.url}/assets/dedp/devices_raw?view=lineage")
    graph = operator.locator("foreignObject")
    for name in ("devices_loader", "devices_aggregator", "devices_file", "devices_raw", "devices_aggregates"):
        expect(graph.filter(has_text=name).first).to_be_visible()
    expect(graph.filter(has_text="Loading")).to_have_count(0)
    photograph(operator, "asset_graph")


def test_the_dashboard_of_the_promotions_shows_every_supplier(
    operator: "Page", report: "Page", system: System, photograph: Photograph
) -> None:
    with system.settings_in_force():
        dashboard, suppliers = promotions.dashboard_file(), settings.suppliers()
    everybody = f"{len(suppliers)} of {len(suppliers)} suppliers have delivered for {TODAY}."
    system.wait_until(lambda: dashboard.is_file() and everybody in dashboard.read_text())
    operator.goto(f"{system.url}/assets/promotions/dashboard")
    expect(operator.get_by_text(everybody)).to_be_visible()
    expect(operator.get_by_text(str(dashboard))).to_be_visible()

    report.goto(dashboard.as_uri())
    expect(report.get_by_role("heading", name="Promotions")).to_be_visible()
    for supplier in suppliers:
        expect(report.get_by_role("heading", name=supplier)).to_be_visible()
    photograph(report, "promotions_dashboard")


def test_the_report_of_the_uploads_is_made_on_demand_and_shows_every_client(
    operator: "Page", report: "Page", system: System, photograph: Photograph
) -> None:
    _wait_for(system, uploads.RECORDS, *CLIENTS)
    operator.goto(f"{system.url}/assets/uploads/report")
    operator.get_by_role("button", name=re.compile("Materialize$")).click()
    _watch_succeed(operator, system, uploads.REPORT)

    with system.settings_in_force():
        report.goto(uploads.report_file().as_uri())
    expect(report.get_by_role("heading", name="Client uploads")).to_be_visible()
    for client in CLIENTS:
        expect(report.get_by_role("row", name=re.compile(client)).first).to_be_visible()
    photograph(report, "uploads_report")


def test_the_picture_of_late_data_is_in_the_metadata(operator: "Page", system: System, photograph: Photograph) -> None:
    system.wait_until(lambda: system.instance.get_latest_materialization_event(late_data.LATE_DATA_PICTURE))
    operator.goto(f"{system.url}/assets/lake/late_data_picture")
    operator.get_by_text("[Show Markdown]").first.click()
    dialog = operator.get_by_role("dialog")
    picture = dialog.get_by_role("img", name="late data")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    photograph(dialog, "late_data")
