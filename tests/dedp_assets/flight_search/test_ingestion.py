"""Each content is taken in once, whatever lands and whoever runs at the same time. Real Spark, real Delta."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest
from deltalake import DeltaTable

from dedp_assets.flight_search import contract, ingestion, searches
from dedp_assets.flight_search.copies import Copy
from dedp_assets.flight_search.ingestion import CONFLICT, batches
from dedp_assets.landing.versions import FileVersion
from dedp_assets.resources import spark_limits
from dedp_assets.resources.spark_limits import OutOfTime
from tests.dedp_assets.flight_search.landed import DAY, OTHER, event, land, rows, search_ids, take_in, version

pytestmark = pytest.mark.usefixtures("spark_remote")


def quarantined() -> list[tuple[str, str]]:
    """The file and the reason of each line that was set aside."""
    return rows(contract.QUARANTINE, "file", "reason")


def test_events_go_to_the_day_of_the_search_and_bad_lines_to_the_quarantine_with_their_reason() -> None:
    land("a.jsonl", event("s1"), "nonsense", event("late", OTHER), event("s2", passengers=10))
    done = take_in()
    assert rows(contract.SEARCHES, "day", "search_id", "file") == [
        (date(2024, 1, 2), "s1", "a.jsonl"),
        (date(2024, 1, 5), "late", "a.jsonl"),
    ]
    assert done.days == {DAY: 1, OTHER: 1}
    passengers = "passengers: expected a whole number from 1 to 9"
    assert quarantined() == [("a.jsonl", "not one JSON object"), ("a.jsonl", passengers)]
    (account,) = done.files
    assert (account.events, account.known, account.bad) == (2, 0, {"not one JSON object": 1, passengers: 1})


def test_a_file_that_comes_twice_is_taken_in_once_under_whatever_name() -> None:
    path = land("a.jsonl", event("s1"), "nonsense")
    take_in()
    before = version(contract.SEARCHES)

    assert take_in().files == []
    assert version(contract.SEARCHES) == before, "a run with nothing to do has committed"

    path.touch()
    land("copy.jsonl", event("s1"), "nonsense")
    done = take_in()
    assert (done.files, sorted(done.same), done.days) == ([], ["a.jsonl", "copy.jsonl"], {})
    assert search_ids() == ["s1"]
    assert len(quarantined()) == 1
    before = version(contract.SEARCHES)
    take_in()
    assert version(contract.SEARCHES) == before, "the new versions were not recorded"


@pytest.mark.slow
def test_of_a_file_that_is_rewritten_only_what_is_new_is_appended() -> None:
    land("a.jsonl", event("s1"), event("s2"))
    take_in()
    land("a.jsonl", event("s1"), event("s3"), event("s2", passengers=5))
    done = take_in()
    assert search_ids() == ["s1", "s2", "s3"]
    (account,) = done.files
    assert (account.events, account.known, account.bad) == (1, 1, {CONFLICT: 1})
    assert quarantined() == [("a.jsonl", CONFLICT)]


def test_an_event_that_two_files_have_is_appended_once() -> None:
    land("a.jsonl", event("s1"), event("s1"), event("s2"))
    land("b.jsonl", event("s2"), event("s1", OTHER), event("s1", passengers=9))
    done = take_in()
    assert search_ids() == ["s1", "s1", "s2"]
    assert done.days == {DAY: 2, OTHER: 1}
    assert [(account.events, account.known, sum(account.bad.values())) for account in done.files] == [
        (2, 1, 0),
        (1, 1, 1),
    ]


def test_a_file_without_events_is_done_with_too() -> None:
    land("a.jsonl", "nonsense")
    land("b.jsonl", "\n")
    assert take_in().days == {}
    assert len(quarantined()) == 3
    assert take_in().files == []


def test_of_two_runs_at_once_one_appends_and_the_other_finds_the_files_taken_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second run takes in the same files between the look of the first at the table and its commit."""
    land("a.jsonl", event("s1"), "nonsense")
    set_aside: Callable[..., None] = ingestion._set_aside
    others: list[object] = []

    def while_another_runs(*arguments: object) -> None:
        if not others:
            others.append(arguments)
            assert len(take_in().files) == 1
        set_aside(*arguments)

    monkeypatch.setattr(ingestion, "_set_aside", while_another_runs)
    done = take_in()
    assert (done.files, done.same) == ([], ["a.jsonl"])
    assert search_ids() == ["s1"]
    assert len(quarantined()) == 1


def test_runs_that_meet_many_files_lose_none_and_double_none() -> None:
    for number in range(6):
        land(f"{number}.jsonl", *(event(f"{number}-{each}", f"2024-01-0{1 + each}") for each in range(3)))
    with ThreadPoolExecutor(3) as pool:
        done = [run.result() for run in [pool.submit(take_in) for _ in range(3)]]
    assert len(search_ids()) == len(set(search_ids())) == 18
    assert sum(sum(each.days.values()) for each in done) == 18


def test_a_file_that_is_rewritten_while_a_run_reads_it_is_taken_in_again_as_it_is_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    land("a.jsonl", event("s1"), event("s2"))
    check: Callable[..., object] = ingestion._check

    def while_it_is_rewritten(*arguments: object) -> object:
        land("a.jsonl", event("s3"))
        return check(*arguments)

    monkeypatch.setattr(ingestion, "_check", while_it_is_rewritten)
    take_in()
    assert search_ids() == ["s1", "s2"]
    monkeypatch.setattr(ingestion, "_check", check)
    take_in()
    assert search_ids() == ["s1", "s2", "s3"]


def test_a_run_that_dies_after_it_has_set_lines_aside_sets_them_aside_once(monkeypatch: pytest.MonkeyPatch) -> None:
    land("a.jsonl", event("s1"), "nonsense")
    append = searches.append

    def dies(table: DeltaTable, *arguments: object) -> None:
        if table.table_uri.endswith("/searches/"):
            raise KeyboardInterrupt
        append(table, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(searches, "append", dies)
    with pytest.raises(KeyboardInterrupt):
        take_in()
    assert (search_ids(), len(quarantined())) == ([], 1)
    monkeypatch.setattr(searches, "append", append)
    take_in()
    assert (search_ids(), len(quarantined())) == (["s1"], 1)


def test_the_copies_of_a_run_are_gone_after_it_and_those_of_a_killed_run_after_the_next() -> None:
    left = contract.copies_folder() / "run-killed"
    left.mkdir(parents=True)
    land("a.jsonl", event("s1"))
    take_in()
    assert [path.name for path in contract.copies_folder().iterdir()] == [".lock"]


def test_drafts_and_files_with_other_names_are_not_taken_in() -> None:
    for name in ("a.jsonl.part", ".a.jsonl", "a.csv"):
        land("x.jsonl", event(name)).rename(contract.landing_folder() / name)
    assert take_in().files == []


def test_a_landing_folder_that_is_missing_is_said_and_harms_nothing() -> None:
    done = take_in()
    assert done.notes == [f"{contract.landing_folder()} does not exist"]


@pytest.mark.slow
def test_nothing_is_visible_of_a_file_whose_query_is_out_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    land("a.jsonl", event("s1"), "nonsense")
    check: Callable[..., object] = ingestion._check

    def slowly(
        copies: list[Copy], table: object, lake: object, spark: spark_limits.LimitedSpark, now: object
    ) -> object:
        # A busy machine may take a while to come here. So the time of this query begins here.
        monkeypatch.setattr(spark, "_ends", time.monotonic() + 2)
        endless = "SELECT count(*) FROM range(0, 10000000) a, range(0, 10000000) b WHERE a.id * b.id % 7 = 3"
        spark.run("reading a.jsonl", lambda: spark.session.sql(endless).toArrow())
        return check(copies, table, lake, spark, now)

    monkeypatch.setattr(ingestion, "_check", slowly)
    with pytest.raises(OutOfTime, match=r"reading a\.jsonl was not done .* 300 s was over; the query was cancelled"):
        take_in(timeout_seconds=300)
    assert (search_ids(), quarantined()) == ([], [])
    monkeypatch.setattr(ingestion, "_check", check)
    take_in()
    assert search_ids() == ["s1"]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([], []), ([5], [[5]]), ([5, 5, 5], [[5, 5], [5]]), ([50, 1], [[50], [1]]), ([1, 1, 1, 1], [[1, 1, 1], [1]])],
)
def test_files_are_taken_in_groups_of_a_limited_size(sizes: list[int], expected: list[list[int]]) -> None:
    copies = [Copy(str(size), FileVersion(size, 0, 0, 0), "", Path()) for size in sizes]
    grouped = batches(copies, most_bytes=10, most_files=3)
    assert [[copy.version.size for copy in group] for group in grouped] == expected
