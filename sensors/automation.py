"""When does a partition re-run? When its input changed, in any time window; this condition says exactly when."""

import dagster as dg

SENSOR_NAME = "follow_inputs"


def on_input_change() -> dg.AutomationCondition:
    """A partition is missing, or its input was updated, since it was last requested; its inputs are all there.

    Unlike `AutomationCondition.eager()` it acts on every time window, so late partitions run. And an update that
    lands between a request and the next tick is not forgotten with that request: `newly_requested` resets the
    wait only in a tick that brings no update.
    """
    updated = dg.AutomationCondition.any_deps_updated()
    changed = (dg.AutomationCondition.newly_missing() | updated).with_label("input changed")
    return (
        changed.since(dg.AutomationCondition.newly_requested() & ~updated)
        & ~dg.AutomationCondition.any_deps_missing()
        & ~dg.AutomationCondition.in_progress()
    ).with_label("on_input_change")


def automation_sensor() -> dg.AutomationConditionSensorDefinition:
    """Evaluates the conditions of every asset and check in its code location."""
    return dg.AutomationConditionSensorDefinition(
        SENSOR_NAME,
        target=dg.AssetSelection.all() | dg.AssetSelection.all_asset_checks(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=1,
        # A backfill waits for its daemon, which wakes every 30 s; a run per partition starts at once.
        emit_backfills=False,
    )
