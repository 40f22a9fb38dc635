"""Branching: a step yields one of several outputs. What follows the others is skipped (BranchPythonOperator).

A step that yields nothing skips all that follows it (ShortCircuitOperator).
"""

from collections.abc import Iterator

import dagster as dg


class Rows(dg.Config):
    rows: int = 0


def branch(rows: int) -> str | None:
    """The name of the branch that is taken, or None if there is nothing to do."""
    if rows == 0:
        return None
    return "many" if rows > 1000 else "few"


@dg.op(out={"few": dg.Out(int, is_required=False), "many": dg.Out(int, is_required=False)})
def choose(config: Rows) -> Iterator[dg.Output[int]]:
    taken = branch(config.rows)
    if taken:
        yield dg.Output(config.rows, output_name=taken)


@dg.op
def load_here(rows: int) -> int:
    return rows


@dg.op
def load_on_a_cluster(rows: int) -> int:
    return rows


@dg.op
def report(loaded: list[int]) -> None:
    """After the branch that was taken. An input of several is skipped only if all of them are."""


@dg.job
def load_by_size() -> None:
    few, many = choose()
    report([load_here(few), load_on_a_cluster(many)])


defs = dg.Definitions(jobs=[load_by_size])
