"""Every kind of table problem says whether it may pass, and nothing of a library reaches a caller unnamed."""

import pyarrow as pa
import pytest
from deltalake.exceptions import CommitFailedError, DeltaError

from dedp_assets.delta import problems
from dedp_assets.delta.problems import DamagedTable, TableProblem, TableUnreachable, named_problems

KINDS = [
    kind
    for kind in vars(problems).values()
    if isinstance(kind, type) and issubclass(kind, TableProblem) and kind is not TableProblem
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_problem_says_whether_it_may_pass(kind: type[TableProblem]) -> None:
    passing = {"CommitUnreadable", "TableUnreachable", "TableReplaced"}
    assert kind.may_pass is (kind.__name__ in passing)


@pytest.mark.parametrize(
    ("uri", "advice"),
    [
        ("/lake/counts", "/lake/counts can't be written: No space left on device; check the folder and its rights"),
        ("file:///the%20lake", "/the lake can't be written: No space left on device; check the folder and its rights"),
        (
            "s3://lake/counts",
            "s3://lake/counts can't be written: .*; check the bucket, the credentials and the network",
        ),
    ],
)
def test_what_a_store_says_is_named_with_the_table_and_with_what_to_check(uri: str, advice: str) -> None:
    with pytest.raises(TableUnreachable, match=advice), named_problems(uri, "written"):
        raise OSError(28, "No space left on device")


def test_an_error_of_deltalake_may_pass_and_a_damaged_file_does_not() -> None:
    with pytest.raises(TableUnreachable, match="Generic S3 error"), named_problems("s3://lake/counts"):
        raise DeltaError("Generic S3 error")
    with pytest.raises(DamagedTable, match="put the table back from a backup"), named_problems("/lake/counts"):
        raise pa.ArrowInvalid("Parquet magic bytes not found in footer")


def test_a_commit_that_lost_a_race_is_left_to_the_caller() -> None:
    with pytest.raises(CommitFailedError), named_problems("/lake/counts", "written"):
        raise CommitFailedError("somebody was faster")
