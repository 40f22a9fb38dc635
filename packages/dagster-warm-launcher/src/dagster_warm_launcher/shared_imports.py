"""What code servers, runs, the daemon and the web server of Dagster import, for a zygote: `zygote.py`.

A module that is not installed, or that this release of Dagster does not have, is left out.
"""

import importlib
from contextlib import suppress

for _name in (
    "dagster",
    "dagster._cli.api",
    "dagster._daemon.cli",
    "dagster._grpc.impl",
    "dagster._grpc.server",
    "dagster_warm_launcher.code_server",
    "dagster_warm_launcher.launcher",
    "dagster_warm_launcher._steps",
    "dagster_webserver.cli",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
):
    with suppress(ImportError):
        importlib.import_module(_name)
