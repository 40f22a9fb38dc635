"""`python -m dedp_assets.doorbell`: `dagster-daemon run`, with its options, woken by what happens.

DEDP_DOORBELL=off makes it the stock daemon.
"""

from contextlib import ExitStack
from typing import Any

from dagster import DagsterInstance

from dedp_assets import settings
from dedp_assets.doorbell._dagster import DagsterDaemon, daemon_command, required_daemons
from dedp_assets.doorbell.daemons import Doorbell, ringing


def main() -> None:
    """Run Dagster's daemons until SIGTERM or SIGINT."""
    if not settings.doorbell_is_on():
        daemon_command(required_daemons)(prog_name="python -m dedp_assets.doorbell")
        return
    net_seconds = settings.doorbell_net_seconds()
    with ExitStack() as while_running:

        def daemons(instance: DagsterInstance) -> list[DagsterDaemon[Any]]:
            doorbell = Doorbell(instance, net_seconds)
            while_running.enter_context(ringing(doorbell))
            return doorbell.daemons(instance)

        daemon_command(daemons)(prog_name="python -m dedp_assets.doorbell")


if __name__ == "__main__":
    main()
