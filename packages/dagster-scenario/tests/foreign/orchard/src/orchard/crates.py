"""Where assets are kept: one JSON file per asset and partition."""

import json
from pathlib import Path
from typing import Any

import dagster as dg


class Crates(dg.ConfigurableIOManager):
    """Assets as JSON files below a folder."""

    folder: str

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        file = self._file(context)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(obj), encoding="utf-8")

    def load_input(self, context: dg.InputContext) -> Any:
        return json.loads(self._file(context).read_text(encoding="utf-8"))

    def _file(self, context: dg.OutputContext | dg.InputContext) -> Path:
        name = context.asset_key.to_user_string()
        partition = context.asset_partition_key if context.has_asset_partitions else "all"
        return Path(self.folder) / "crates" / name / f"{partition}.json"
