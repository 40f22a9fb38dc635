"""What Dagster's UI shows of the columns of a Delta table."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import deltalake
import pyarrow as pa


def column_metadata(schema: pa.Schema, descriptions: Mapping[str, str]) -> dict[str, Any]:
    """Metadata with which the UI shows the columns of a table.

    Args:
        schema: the columns.
        descriptions: a sentence or two about each column, by its name.
    """
    columns = [
        dg.TableColumn(field.name, field.type.type, description=descriptions[field.name])
        for field in deltalake.Schema.from_arrow(schema).fields
    ]
    return {"dagster/column_schema": dg.TableSchema(columns)}
