"""Copying Delta tables while others write: one whole version of each, and sources after what is made of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from dedp_assets.backup.archive import Draft, entries
from dedp_assets.backup.errors import BackupError
from dedp_assets.backup.lake import Found, _Folder, copy_lake, lake_at


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


def append(table: Path, *values: int, mode: str = "append") -> None:
    write_deltalake(str(table), pa.table({"value": list(values)}), mode=mode)  # type: ignore[call-overload]


def values(table: Path) -> list[int]:
    found: list[int] = DeltaTable(str(table)).to_pyarrow_table()["value"].to_pylist()
    return sorted(found)


class Meanwhile(_Folder):
    """A lake in which something happens when a file is read for the first time, or each time."""

    def __init__(self, uri: Path, when: str, happens: Callable[[], None], times: int = 1) -> None:
        super().__init__(str(uri))
        self.when, self.happens, self.times = when, happens, times

    def chunks(self, found: Found) -> Iterator[bytes]:
        if self.when in found.path and self.times:
            self.times -= 1
            self.happens()
        return super().chunks(found)


def test_tables_and_the_small_files_beside_them_are_copied(lake: Path, draft: Draft) -> None:
    append(lake / "counts", 1)
    append(lake / "counts", 2)
    (lake / "report.html").write_text("a page")
    copy_lake(lake_at(str(lake)), "lake", draft, [])
    copy = draft.folder / "lake"
    assert values(copy / "counts") == [1, 2]
    assert (copy / "report.html").read_text() == "a page"


def test_a_commit_during_the_copy_is_in_it_wholly_or_not_at_all(lake: Path, draft: Draft) -> None:
    append(lake / "counts", 1)
    copy_lake(Meanwhile(lake, "_delta_log", lambda: append(lake / "counts", 2)), "lake", draft, [])
    assert values(lake / "counts") == [1, 2]
    assert values(draft.folder / "lake" / "counts") == [1]
    assert not (draft.folder / "lake" / "counts" / "_delta_log" / f"{1:020}.json").exists()


def test_a_table_to_which_others_commit_all_the_time_is_copied(lake: Path, draft: Draft) -> None:
    """The log is copied before the files that it names. The other way round, one of them is always missing."""
    append(lake / "counts", 1)
    busy = Meanwhile(lake, ".parquet", lambda: append(lake / "counts", 2), times=100)
    copy_lake(busy, "lake", draft, [])
    assert values(draft.folder / "lake" / "counts") == [1]
    assert busy.times < 100


def test_a_checkpoint_and_a_cleaned_log_during_the_copy_do_no_harm(lake: Path, draft: Draft) -> None:
    def checkpoint() -> None:
        append(lake / "counts", 9)
        DeltaTable(str(lake / "counts")).create_checkpoint()
        for number in range(4):
            (lake / "counts" / "_delta_log" / f"{number:020}.json").unlink(missing_ok=True)

    for number in range(4):
        append(lake / "counts", number)
    copy_lake(Meanwhile(lake, f"{1:020}.json", checkpoint), "lake", draft, [])
    assert values(draft.folder / "lake" / "counts") == [0, 1, 2, 3, 9]


def test_a_table_that_is_vacuumed_during_the_copy_is_copied_in_its_later_version(lake: Path, draft: Draft) -> None:
    def overwrite_and_vacuum() -> None:
        append(lake / "counts", 7, mode="overwrite")
        DeltaTable(str(lake / "counts")).vacuum(0, dry_run=False, enforce_retention_duration=False)

    append(lake / "counts", 1)
    copy_lake(Meanwhile(lake, ".json", overwrite_and_vacuum), "lake", draft, [])
    assert values(draft.folder / "lake" / "counts") == [7]
    # The list has each file once.
    draft._list.flush()
    listed = [entry.path for entry in entries(draft.folder)]
    assert sorted(listed) == sorted(set(listed))
    assert all((draft.folder / path).exists() for path in listed)


def test_a_table_without_one_of_its_files_is_no_backup(lake: Path, draft: Draft) -> None:
    append(lake / "counts", 1)
    (data,) = (lake / "counts").glob("*.parquet")
    data.unlink()
    with pytest.raises(BackupError, match=rf"lake/counts can't be copied: {data.name} is missing"):
        copy_lake(lake_at(str(lake)), "lake", draft, [])


def test_a_source_is_never_older_than_what_was_made_from_it(lake: Path, draft: Draft) -> None:
    """A row and its count are committed when the first of the two tables is copied, whichever that is."""

    def row_and_count() -> None:
        append(lake / "a_source", 2)
        append(lake / "counts", 2)

    append(lake / "a_source", 1)
    append(lake / "counts", 1)
    copy_lake(Meanwhile(lake, ".parquet", row_and_count), "lake", draft, ["a_source"])
    assert values(draft.folder / "lake" / "counts") == [1]
    assert values(draft.folder / "lake" / "a_source") == [1, 2]
