"""A lake in an object store is copied into a backup and back, in parts: no file is in memory as a whole."""

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from dedp_assets.backup.archive import Draft
from dedp_assets.backup.lake import copy_lake, lake_at
from dedp_assets.resources.object_store import read_text, storage_options, write_text

pytestmark = pytest.mark.slow


def test_a_lake_in_an_object_store_is_copied_and_restored(s3_bucket: str, draft: Draft) -> None:
    s3_lake = f"{s3_bucket}/lake"
    options = storage_options(s3_lake)
    for number in range(3):
        write_deltalake(f"{s3_lake}/counts", pa.table({"value": [number]}), mode="append", storage_options=options)
    write_deltalake(f"{s3_lake}/devices", pa.table({"value": [7]}), storage_options=options)
    write_text(f"{s3_lake}/report.json", "{}")
    copy_lake(lake_at(s3_lake), "lake", draft, ["devices"])
    copy = draft.folder / "lake"
    assert sorted(DeltaTable(str(copy / "counts")).to_pyarrow_table()["value"].to_pylist()) == [0, 1, 2]
    assert (copy / "report.json").read_text() == "{}"

    other = lake_at(f"{s3_lake}-restored")
    assert next(other.files(), None) is None
    for path in sorted(copy.rglob("*"), key=lambda path: "_delta_log" in path.parts):
        if path.is_file():
            other.put(path.relative_to(copy).as_posix(), path, 0)
    restored = DeltaTable(f"{s3_lake}-restored/counts", storage_options=options)
    assert sorted(restored.to_pyarrow_table()["value"].to_pylist()) == [0, 1, 2]
    assert read_text(f"{s3_lake}-restored/report.json") == "{}"
