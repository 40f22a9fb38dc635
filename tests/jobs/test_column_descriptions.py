"""Whoever opens a table in the UI reads what each of its columns means."""

import dagster as dg
import pytest

from jobs import (
    devices_aggregator,
    devices_loader,
    flight_search,
    late_data_integrator,
    promotion_reports,
    promotions,
    user_intake,
)

LOCATIONS = {
    "devices_loader": devices_loader.defs,
    "devices_aggregator": devices_aggregator.defs,
    "late_data_integrator": late_data_integrator.defs,
    "promotions": promotions.defs,
    "promotion_reports": promotion_reports.defs,
    "user_intake": user_intake.defs,
    "flight_search": flight_search.defs,
}


def columns_of(location: dg.Definitions) -> dict[str, str | None]:
    """The description of each column of each asset that has a column schema, by asset and column."""
    found: dict[str, str | None] = {}
    for spec in location.resolve_all_asset_specs():
        schema = spec.metadata.get("dagster/column_schema")
        columns = schema.columns if isinstance(schema, dg.TableSchema) else []
        found |= {f"{spec.key.to_user_string()}.{column.name}": column.description for column in columns}
    return found


@pytest.mark.parametrize("location", LOCATIONS.values(), ids=LOCATIONS)
def test_every_column_in_the_ui_says_what_its_values_are(location: dg.Definitions) -> None:
    columns = columns_of(location)
    assert columns
    undescribed = [name for name, description in columns.items() if not description]
    assert undescribed == []
