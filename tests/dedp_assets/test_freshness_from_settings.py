"""Whoever runs the system says when assets have to be up to date, by a setting."""

import datetime as dt
import re
import runpy

import dagster as dg
import pytest
import yaml

from dedp_assets import settings
from dedp_assets.errors import SettingError
from dedp_assets.freshness_from_settings import freshness_policies, with_freshness


@dg.asset(freshness_policy=dg.FreshnessPolicy.time_window(dt.timedelta(hours=1)))
def ebb() -> None: ...


@dg.asset(key_prefix="tides")
def flood() -> None: ...


@dg.asset
def moon() -> None: ...


DEFS = dg.Definitions(assets=[ebb, flood, moon])


def policies(definitions: dg.Definitions) -> dict[str, dg.FreshnessPolicy | None]:
    return {spec.key.to_user_string(): spec.freshness_policy for spec in definitions.resolve_all_asset_specs()}


def test_without_the_setting_nothing_changes() -> None:
    assert with_freshness(DEFS) is DEFS


def test_a_policy_is_a_window_of_time_or_a_window_before_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "DEDP_FRESHNESS", "ebb = 26h;tides/flood=6h before 0 6 * * 1,3 Europe/Berlin; other_location=1d;"
    )
    assert policies(with_freshness(DEFS)) == {
        "ebb": dg.FreshnessPolicy.time_window(dt.timedelta(hours=26)),
        "tides/flood": dg.FreshnessPolicy.cron("0 6 * * 1,3", dt.timedelta(hours=6), "Europe/Berlin"),
        "moon": None,
    }
    monkeypatch.setenv("DEDP_FRESHNESS", "moon=30m before 0 6 * * *")
    assert policies(with_freshness(DEFS))["moon"] == dg.FreshnessPolicy.cron("0 6 * * *", dt.timedelta(minutes=30))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("ebb", "'ebb='"),
        ("=26h", "'=26h'"),
        ("ebb=", "'ebb='"),
        ("ebb=soon", "'ebb=soon'"),
        ("ebb=0h", "'ebb=0h'"),
        ("ebb=26", "'ebb=26'"),
        ("ebb=99999999d", "'ebb=99999999d'"),
        ("ebb=26h, moon=1h", "'ebb=26h, moon=1h'"),
        ("ebb=6h before", "'ebb=6h before'"),
        ("ebb=6h before noon", "'ebb=6h before noon'"),
        ("ebb=6h before 0 25 * * *", "'ebb=6h before 0 25 * * *'"),
        ("ebb=6h before 0 6 * * * Berlin", "'ebb=6h before 0 6 * * * Berlin'"),
        ("ebb=25h before 0 6 * * *", "smallest cron interval"),
        ("ebb=1h;ebb=2h", "ebb stands there twice"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_the_part_that_is_wrong(
    value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDP_FRESHNESS", value)
    with pytest.raises(SettingError, match=r"^DEDP_FRESHNESS") as refused:
        with_freshness(DEFS)
    assert said in str(refused.value)
    assert "dedp/devices_aggregates=26h" in str(refused.value)


@pytest.mark.slow
def test_every_code_location_takes_its_policies_from_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    locations = yaml.safe_load((settings.REPOSITORY / "workspace.yaml").read_text())["load_from"]
    window = dg.FreshnessPolicy.time_window(dt.timedelta(hours=26))
    deployed = set()
    for module in [location["python_module"] for location in locations]:
        # What a location knows from others by its key alone has no policy here.
        made = runpy.run_module(module)["defs"].resolve_asset_graph().materializable_asset_keys
        names = {key.to_user_string() for key in made}
        deployed |= names
        monkeypatch.setenv("DEDP_FRESHNESS", "; ".join(f"{name}=26h" for name in names))
        changed = runpy.run_module(module)["defs"]
        dg.Definitions.validate_loadable(changed)
        assert {name for name, policy in policies(changed).items() if policy == window} == names, module
        monkeypatch.delenv("DEDP_FRESHNESS")
    page = (settings.REPOSITORY / "docs" / "alerts.md").read_text()
    (example,) = re.findall(r'^export DEDP_FRESHNESS="(.*)"$', page, re.MULTILINE)
    monkeypatch.setenv("DEDP_FRESHNESS", example)
    assert {key.to_user_string() for key in freshness_policies()} <= deployed
