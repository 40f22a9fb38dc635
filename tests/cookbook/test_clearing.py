"""What `clear` names is materialized again, and nothing else."""

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster._cli.asset import asset_cli
from dagster_scenario import Scenario

from dedp_assets.cookbook import clearing

ASSETS = ("extracted", "transformed", "reported")
DONE = ["2024-01-01", "2024-01-02", "2024-01-04"]


@pytest.mark.parametrize(
    ("past", "future", "expected"),
    [
        (False, False, ["2024-01-02"]),
        (True, False, ["2024-01-01", "2024-01-02"]),
        (False, True, ["2024-01-02", "2024-01-04"]),
        (True, True, DONE),
    ],
)
def test_past_and_future_are_the_days_that_were_run(past: bool, future: bool, expected: list[str]) -> None:
    assert clearing.days_to_clear(DONE, "2024-01-02", past=past, future=future) == expected


def test_a_day_and_those_after_it_are_cleared_with_what_follows_downstream(scenario: Scenario) -> None:
    scenario.start("2024-01-08 08:00")
    scenario.load(clearing.defs)
    scenario.backfill(*ASSETS, partitions=DONE)
    scenario.run_until_quiet()

    cleared = scenario.mark("clear")
    days = clearing.days_to_clear(DONE, "2024-01-02", future=True)
    scenario.backfill("transformed", "reported", partitions=days)
    scenario.run_until_quiet()
    scenario.expect("extracted").not_materialized(since=cleared)
    for asset in ("transformed", "reported"):
        scenario.expect(asset).materialized(*days, since=cleared, in_any_order=True).by_backfill()


@pytest.mark.slow
def test_the_command_materializes_an_asset_and_all_downstream_of_it_for_one_day(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = str(tmp_path_factory.mktemp("dagster"))
    monkeypatch.setenv("DAGSTER_HOME", home)
    command = ["materialize", "-m", "jobs.cookbook", "--select", "transformed+"]
    done = CliRunner().invoke(asset_cli, [*command, "--partition", "2024-01-02"])
    assert done.exit_code == 0, done.output
    with dg.DagsterInstance.from_config(home) as instance:
        made = {key: instance.get_materialized_partitions(dg.AssetKey(key)) for key in ASSETS}
    assert made == {"extracted": set(), "transformed": {"2024-01-02"}, "reported": {"2024-01-02"}}
