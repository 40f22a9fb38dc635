"""`python -m dagster_warm_launcher grpc ...`"""

from dagster_warm_launcher.code_server import main

main()
