"""`dedp serve-users`: an API of users to try the intake with."""

import click

from dedp_assets.user_intake.serving import UsersServer, made_users


@click.command(name="serve-users")
@click.option("--port", type=click.IntRange(0, 65535), default=8123, show_default=True, help="On 127.0.0.1; 0: any.")
@click.option("--users", "number", type=click.IntRange(min=0), default=250, show_default=True, help="How many users.")
@click.option("--bad", type=click.IntRange(min=0), default=1, show_default=True, help="How many of them lack an email.")
def serve_users(port: int, number: int, bad: int) -> None:
    """Serve made-up users on this machine, page by page, until Ctrl-C. Their passwords are in the answers.

    \b
    export DEDP_USERS_API=http://127.0.0.1:8123/api/
    dagster asset materialize -m jobs.user_intake --select 'users/raw*' --partition 2024-01-01
    """
    with UsersServer(made_users(number, min(bad, number)), port) as server:
        click.echo(f"DEDP_USERS_API={server.url}   ({number} users; Ctrl-C ends it)")
        server.serve_forever()
