"""Commits and what was observed of them, as values without a table; and what is planned from them."""

from datetime import timedelta

from dedp_assets.delta.commits import Commit, PartitionChange
from dedp_assets.late_data_integrator import contract
from sensors.delta_commits.cursor import Cursor
from sensors.delta_commits.observing import TableState
from sensors.delta_commits.planning import ReportPlan, plan_report
from tests.sensors.delta_commits.world import AT, FIRST

LAST = "2024-01-31"


def commit(version: int, *days: str, rows: int = 1, operation: str = "WRITE") -> Commit:
    """A commit that added one file to each of these partitions."""
    return Commit(
        version=version,
        timestamp=AT + timedelta(minutes=version),
        operation=operation,
        changes={day: PartitionChange(1, 0, rows, 0) for day in days},
        fingerprint_changes={day: 10**version for day in days},
        table_id=None,
        check_table=False,
        mark=f"mark {version}",
    )


def observed(*commits: Commit, is_recreated: bool = False) -> TableState:
    """A table whose log has these commits after the cursor."""
    return TableState("table", commits[-1].version, "mark", list(commits), is_recreated=is_recreated)


def unchanged(version: int) -> TableState:
    """A table whose log has no commits after the cursor, which is at this version."""
    return TableState("table", version, "mark")


def plan_for(state: TableState, cursor: Cursor | None = None, *, first: str = FIRST, last: str = LAST) -> ReportPlan:
    return plan_report(state, cursor, first=first, last=last, column=contract.PARTITION_COLUMN)


def reported(plan: ReportPlan) -> dict[str, int]:
    return {change.day: change.version for change in plan.changes}
