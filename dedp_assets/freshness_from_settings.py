"""Freshness policies by the setting DEDP_FRESHNESS: whoever runs the system knows when its inputs come."""

import re
from datetime import timedelta

import dagster as dg

from dedp_assets import settings
from dedp_assets.errors import SettingError

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}

# `26h`, or `6h before 0 6 * * *`, to which a time zone may be added.
_POLICY = re.compile(r"([1-9][0-9]{0,4})([mhd])(?: before (\S+ \S+ \S+ \S+ \S+)(?: (\S+))?)?")


def with_freshness(definitions: dg.Definitions) -> dg.Definitions:
    """Give the assets that the setting names its policies, in the place of their own.

    Raises:
        SettingError: the setting can't be used.
    """
    policies = freshness_policies()
    if not policies:
        return definitions
    return definitions.map_asset_specs(
        func=lambda spec: spec.replace_attributes(freshness_policy=policies[spec.key]) if spec.key in policies else spec
    )


def freshness_policies() -> dict[dg.AssetKey, dg.FreshnessPolicy]:
    """The policies of the setting, by asset.

    Raises:
        SettingError: the setting can't be used.
    """
    return {dg.AssetKey.from_user_string(asset): _policy(asset, text) for asset, text in settings.freshness().items()}


def _policy(asset: str, text: str) -> dg.FreshnessPolicy:
    parts = _POLICY.fullmatch(" ".join(text.split()))
    why = ""
    if parts:
        amount, unit, deadlines, zone = parts.groups()
        window = timedelta(**{_UNITS[unit]: int(amount)})
        try:
            if deadlines:
                return dg.FreshnessPolicy.cron(deadlines, window, zone or "UTC")
            return dg.FreshnessPolicy.time_window(window)
        except Exception as error:  # Dagster's own, which is not public
            why = f" ({str(error).rpartition('Description: ')[2]})"
    raise SettingError(f"DEDP_FRESHNESS has {f'{asset}={text}'!r}{why}; {settings.EXPECTED_FRESHNESS}")
