"""The code location `warehouse`: what drives into the yard, what is stored, and who is told of it."""

import time

import dagster as dg

from orchard.crates import Crates
from orchard.partitions import growers
from orchard.resources import Yard

RUNNING = dg.DefaultSensorStatus.RUNNING

# What a grower delivered


@dg.asset(partitions_def=growers)
def deliveries(context: dg.AssetExecutionContext) -> str:
    """The last delivery of a grower."""
    return context.partition_key


@dg.asset(partitions_def=growers, automation_condition=dg.AutomationCondition.eager())
def grades(deliveries: str) -> int:
    """How good a grower's fruit is."""
    return len(deliveries)


deliver = dg.define_asset_job("deliver", selection=[deliveries])


@dg.sensor(job=deliver, default_status=RUNNING)
def delivery_notes(context: dg.SensorEvaluationContext, yard: Yard) -> dg.SensorResult | dg.SkipReason:
    """A delivery note, `7-miller.note`, is a delivery of the grower Miller. Notes are numbered."""
    notes = [note.stem for note in yard.files("note") if note.stem > (context.cursor or "")]
    if not notes:
        return dg.SkipReason("no new delivery note")
    names = list(dict.fromkeys(note.split("-")[1] for note in notes))
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=note, partition_key=note.split("-")[1]) for note in notes],
        dynamic_partitions_requests=[growers.build_add_request(names)],
        cursor=notes[-1],
    )


# What is done with trucks


@dg.op
def weigh(context: dg.OpExecutionContext, yard: Yard) -> None:
    """Waits for the scales, in its slot of the run queue; that should be a sensor, one day."""
    while not yard.files("weight"):
        time.sleep(300)
    context.log.info("weighed")


@dg.job
def weigh_truck():
    weigh()


@dg.sensor(job=weigh_truck, default_status=RUNNING)
def trucks(context: dg.SensorEvaluationContext, yard: Yard):
    for truck in yard.files("truck"):
        yield dg.RunRequest(run_key=truck.name)


@dg.op
def print_paper() -> None:
    """To the printer at the gate."""


@dg.job
def print_receipt():
    print_paper()


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    monitored_jobs=[weigh_truck],
    request_job=print_receipt,
    default_status=RUNNING,
)
def weighed(context: dg.RunStatusSensorContext) -> dg.RunRequest:
    return dg.RunRequest(run_key=context.dagster_run.run_id)


# Labels and complaints


@dg.job
def print_labels():
    print_paper()


@dg.asset_sensor(asset_key=dg.AssetKey("prices"), job=print_labels, default_status=RUNNING)
def new_prices(context: dg.SensorEvaluationContext, asset_event: dg.EventLogEntry) -> dg.RunRequest:
    """Labels are printed anew for a day's prices, which the other code location makes."""
    assert asset_event.asset_materialization is not None
    return dg.RunRequest(tags={"prices_of": asset_event.asset_materialization.partition or ""})


@dg.job
def answer_complaint():
    print_paper()


@dg.sensor(job=answer_complaint)
def complaints(context: dg.SensorEvaluationContext, yard: Yard):
    """Turned on in the season only. Relies on its cursor alone: its requests have no run keys."""
    new = [file.name for file in yard.files("complaint") if file.name > (context.cursor or "")]
    if new:
        context.update_cursor(new[-1])
    for name in new:
        yield dg.RunRequest(tags={"complaint": name})


# Who is told


@dg.run_failure_sensor(monitor_all_code_locations=True, default_status=RUNNING)
def tell_the_office(context: dg.RunFailureSensorContext, yard: Yard) -> None:
    yard.alert(f"{context.dagster_run.job_name} failed")


defs = dg.Definitions(
    assets=[deliveries, grades],
    jobs=[deliver, weigh_truck, print_receipt, print_labels, answer_complaint],
    sensors=[
        delivery_notes,
        trucks,
        weighed,
        new_prices,
        complaints,
        tell_the_office,
        dg.AutomationConditionSensorDefinition(
            "warehouse_automation", target=dg.AssetSelection.all(), default_status=RUNNING
        ),
    ],
    resources={
        "io_manager": Crates(folder=dg.EnvVar("ORCHARD_HOME")),
        "yard": Yard(folder=dg.EnvVar("ORCHARD_HOME")),
    },
    executor=dg.in_process_executor,
)
