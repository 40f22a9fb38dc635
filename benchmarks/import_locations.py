"""Importing each code location, compared with `import dagster` and an empty `Definitions`."""

import argparse
import subprocess
import sys

from measuring import compare, seconds

LOCATIONS = ["jobs.devices_loader", "jobs.devices_aggregator"]
BARE = "import dagster; dagster.Definitions()"


def main() -> bool:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=15)
    rounds = arguments.parse_args().rounds

    def starting(code: str) -> float:
        return seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True))

    def held(location: str) -> bool:
        names = (f"import {location}", "import dagster")
        return compare(
            names, (lambda _: starting(f"import {location}"), lambda _: starting(BARE)), rounds=rounds, at_most=1.3
        )

    return all([held(location) for location in LOCATIONS])


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
