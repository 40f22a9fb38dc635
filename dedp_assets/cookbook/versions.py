"""DAG versions: each materialization records the version of its code, and the UI shows what is stale."""

import dagster as dg


@dg.asset(code_version="2")
def cleaned() -> int:
    return 2


@dg.asset(code_version="1")
def counted(cleaned: int) -> int:
    return cleaned + 1


defs = dg.Definitions(assets=[cleaned, counted])
