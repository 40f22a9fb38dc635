"""A function that makes assets stands for a class of operators."""

from pathlib import Path

import dagster as dg

from dedp_assets.cookbook import custom_operator


def test_two_assets_of_one_kind_copy_their_own_file(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    sources = {}
    for name in ("one", "two"):
        sources[name] = tmp_path / f"{name}.txt"
        sources[name].write_text(f"this is {name}")
    target = tmp_path / "copies"
    result = dg.materialize(
        [custom_operator.copied_file(name, str(source)) for name, source in sources.items()],
        resources={"folder": custom_operator.Folder(path=str(target))},
        instance=instance,
    )
    assert result.success
    assert {path.name: path.read_text() for path in target.iterdir()} == {"one": "this is one", "two": "this is two"}
