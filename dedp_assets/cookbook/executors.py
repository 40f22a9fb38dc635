"""Executors. Two questions that Airflow's setting `executor` answers at once:

- where a run is: a process of the code server, a container, a pod. That is the run launcher, in dagster.yaml.
- where its steps are: that is the executor, of a code location or of a job.
"""

import dagster as dg


@dg.op
def left() -> str:
    return "left"


@dg.op
def right() -> str:
    return "right"


@dg.op
def both(left: str, right: str) -> str:
    return f"{left} and {right}"


@dg.graph
def work() -> None:
    both(left(), right())


# SequentialExecutor: one step after another, in the process of the run.
in_order = work.to_job(name="in_order", executor_def=dg.in_process_executor)

# LocalExecutor: a process for each step, eight at once.
side_by_side = work.to_job(name="side_by_side", executor_def=dg.multiprocess_executor.configured({"max_concurrent": 8}))

defs = dg.Definitions(jobs=[in_order, side_by_side])
