"""Code location of the cookbook: Airflow's concepts as small examples, see docs/airflow-to-dagster.md.

All its sensors and schedules are off until you turn one on in the UI. Its assets are in the group `cookbook`, unless
their example is about a group.
"""

import warnings

import dagster as dg

from dedp_assets.freshness_from_settings import with_freshness
from dedp_assets.run_processes import in_process_executor
from sensors.automation import SettlingSensor, on_input_change

with warnings.catch_warnings():
    # Some examples use features that are beta in the pinned Dagster. Every command would print a warning about them.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    warnings.filterwarnings("ignore", category=dg.PreviewWarning)
    from dedp_assets.cookbook import (
        alerts,
        another_pipeline,
        asset_events,
        branching,
        clearing,
        custom_operator,
        depends_on_past,
        executors,
        groups,
        limits,
        partition_mappers,
        passing_values,
        retries,
        schedules,
        trigger_rules_between_runs,
        trigger_rules_in_a_run,
        versions,
        waiting,
    )

    defs = with_freshness(
        dg.Definitions.merge(
            alerts.defs,
            another_pipeline.defs.map_resolved_asset_specs(
                selection="billing",
                func=lambda spec: spec.replace_attributes(automation_condition=on_input_change()),
            ),
            asset_events.defs,
            branching.defs,
            clearing.defs,
            custom_operator.defs,
            depends_on_past.defs,
            executors.defs,
            groups.defs,
            limits.defs,
            partition_mappers.defs,
            passing_values.defs,
            retries.defs,
            schedules.defs,
            trigger_rules_between_runs.defs,
            trigger_rules_in_a_run.defs,
            versions.defs,
            waiting.defs,
            dg.Definitions(
                sensors=[
                    SettlingSensor("follow_orders", target="billing", use_user_code_server=True, emit_backfills=False)
                ],
                executor=in_process_executor,
            ),
        ).map_resolved_asset_specs(
            func=lambda spec: (
                spec.replace_attributes(group_name="cookbook") if spec.group_name in (None, "default") else spec
            )
        )
    )
