"""A custom operator: a function that makes an asset, and a resource in place of a hook."""

import shutil
from pathlib import Path

import dagster as dg


class Folder(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Airflow's hook and connection: where something is, and how to get there."""

    path: str


def copied_file(name: str, source: str) -> dg.AssetsDefinition:
    """An asset that is a copy of a file.

    Args:
        name: the name of the asset, and of its file in the folder.
        source: the path of the file to copy.
    """

    @dg.asset(name=name, kinds={"file"}, metadata={"source": source})
    def copy(folder: Folder) -> dg.MaterializeResult[None]:
        target = Path(folder.path) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        return dg.MaterializeResult(metadata={"bytes": target.stat().st_size})

    return copy


defs = dg.Definitions(
    assets=[copied_file("hosts", source="/etc/hosts"), copied_file("services", source="/etc/services")],
    resources={"folder": Folder(path="/tmp/cookbook")},
)
