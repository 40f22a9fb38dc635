"""`dedp demo`: plays an act for each pipeline on the real system, side by side, and checks the results."""

import os
import shutil
import time
from contextlib import closing
from pathlib import Path

import click
import dagster as dg
import psycopg2

from dedp_assets import local_stack, settings
from dedp_assets.demo import late_data, promotions, sequencer, uploads, user_intake
from dedp_assets.demo.timeline import DemoFailed, Timeline


def run_demo() -> bool:
    """Run the demo and print what happens.

    Returns:
        Whether every checked result is the expected one.

    Raises:
        DemoFailed: a run failed, or nothing happened for too long.
        StackError: the system did not start.
    """
    began = time.monotonic()
    _use_own_home()
    click.echo(f"Starting PostgreSQL, Spark, Dagster's daemon and the code locations (state: {settings.home()}) ...")
    with (
        user_intake.api() as users_api,
        local_stack.running(local_stack.free_port(), click.echo, spark_at_once=True) as stack,
    ):
        if stack.broken:
            raise DemoFailed(
                "\n".join(f"the code location {name} can't be loaded: {why}" for name, why in stack.broken.items())
            )
        os.environ.update(stack.environment)
        with (
            dg.DagsterInstance.get() as instance,
            closing(psycopg2.connect(stack.environment["DEDP_POSTGRES_DSN"])) as database,
        ):
            database.autocommit = True
            try:
                assets = [*sequencer.ASSETS, *late_data.ASSETS, *promotions.ASSETS, *user_intake.ASSETS]
                timeline = Timeline(instance, assets)
                passed = timeline.play(
                    [
                        late_data.act(timeline),
                        sequencer.act(timeline, database),
                        uploads.act(timeline, database),
                        promotions.act(timeline, database),
                        user_intake.act(timeline, database, users_api),
                    ]
                )
            except DemoFailed:
                click.echo(f"\n{local_stack.log_tail(stack.log)}", err=True)
                raise
    outcome = (
        click.style("all results are right", fg="green") if passed else click.style("some results are WRONG", fg="red")
    )
    click.echo(f"\nDone in {time.monotonic() - began:.0f} s, {outcome}; the system is stopped again.")
    if passed:
        click.echo(f"The dashboard of the promotions, for a browser: {promotions.dashboard()}")
        click.echo(f"Next: `{settings.to_run('up')}` shows these runs in the UI; README.md says what to try.")
    return passed


def _use_own_home() -> None:
    """Set DEDP_HOME to a new home. The user's data stays untouched, there and wherever DEDP_* points to."""
    home = _demo_home(settings.home())
    for name in [name for name in os.environ if name.startswith("DEDP_")] + ["DAGSTER_HOME"]:
        os.environ.pop(name, None)
    os.environ["DEDP_HOME"] = str(home)
    if local_stack.running_pid() is not None:
        raise local_stack.StackError(f"the system of {home} is running; stop it first: {settings.to_run('down')}")
    shutil.rmtree(home, ignore_errors=True)
    settings.make_home()
    (home / settings.DEMO_MARK).touch()


def _demo_home(home: Path) -> Path:
    """Return the home if it is new or if a demo made it, or else a folder inside it."""
    ours = (home / settings.DEMO_MARK).is_file() or not home.exists() or not any(home.iterdir())
    return home if ours else _demo_home(home / "demo_home")
