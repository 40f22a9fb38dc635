"""`dedp alerts`: the process that tells people what is wrong."""

import logging
import os
import sys
from pathlib import Path

import click

from dedp_assets import local_stack, settings
from dedp_assets.errors import DedpError, SettingError
from dedp_assets.notifications.notification import Notification, Notifier

_TARGETS = "DEDP_ALERTS"

_log = logging.getLogger("dedp.alerts")


@click.command()
@click.option(
    "-w",
    "--workspace",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The workspace.yaml that names the code servers. They are asked whether they have loaded their code.",
)
@click.option("--every", type=click.FloatRange(min=1), default=15.0, show_default=True, help="How often to look, in s.")
@click.option("--test", is_flag=True, help="Send a test message to each target, and end.")
def alerts(workspace: Path | None, every: float, test: bool) -> None:
    """Tell people what is wrong with the system, once per incident, and once more when it is over.

    DEDP_ALERTS says whom to tell. `dedp up` starts this if it is set. It needs PostgreSQL alone, and notices a daemon
    that has stopped.
    """
    # Not at the top, and so below: the other commands need not wait for Dagster's import.
    from dedp_assets.notifications.resource import address_of, notifier_for

    targets = settings.alerts() or ["log"]
    login = settings.smtp_login()
    for target in targets:
        notifier_for(target, login, _TARGETS)  # a wrong setting is an error now, and not with the first incident
    if test:
        outcomes = [_try(notifier_for(target, login, _TARGETS), address_of(target)) for target in targets]
        sys.exit(0 if all(outcomes) else 1)
    from dedp_assets.alerts.judging import Limits
    from dedp_assets.alerts.process import World, logging_to_stderr, run
    from dedp_assets.observability.silence import giving_up_on_silence

    limits = Limits(
        daemon=settings.alerts_daemon_seconds(),
        run=settings.alerts_run_seconds(),
        queue=settings.alerts_queue_seconds(),
    )
    with local_stack.environment() as shared:
        os.environ.update({name: shared[name] for name in ("DEDP_DAGSTER_STORAGE", "DAGSTER_HOME")})
        with logging_to_stderr(settings.logs_json()), giving_up_on_silence():
            limits = limits._replace(fresh=_assets_with_policies())
            _log.info("looking every %g s; telling %s", every, ", ".join(map(address_of, targets)))
            run(
                World(
                    shared["DEDP_POSTGRES_DSN"],
                    shared["DEDP_DAGSTER_STORAGE"],
                    workspace,
                    targets,
                    lambda target: notifier_for(target, login, _TARGETS),
                    limits,
                    settings.ui_url(),
                ),
                every,
                lambda: local_stack.create_instance_schema(shared),
            )


def _assets_with_policies() -> list[str]:
    """The assets that have a policy by the setting. If that is wrong, no code location loads: this has to be told."""
    from dedp_assets.freshness_from_settings import freshness_policies

    try:
        return [asset.to_user_string() for asset in freshness_policies()]
    except SettingError as error:
        _log.error("%s", error)
        return []


def _try(notifier: Notifier, address: str) -> bool:
    """Send a test message, and say whether it was taken. The next target has to be tried in any case."""
    try:
        notifier.send(_TEST)
    except DedpError as error:
        click.echo(f"Not sent to {address}: {error}", err=True)
        return False
    click.echo(f"Sent to {address}.")
    return True


_TEST = Notification(
    "alert/test",
    "This is a test of the alerts",
    "Alerts reach you. There is nothing to do.",
)
