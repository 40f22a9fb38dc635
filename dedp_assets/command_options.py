"""Options that several commands have."""

import click

PORT_OF_UI = click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=3000,
    envvar="PORT",
    show_default=True,
    help="The port of the UI, on 127.0.0.1.",
)
