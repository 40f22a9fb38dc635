"""An idle tick of a scenario with 100 sensors that are on."""

import dagster as dg
from measuring import holds, idle_ticks, run, sensors


@dg.asset
def target() -> None: ...


def main() -> bool:
    definitions = dg.Definitions(assets=[target], sensors=sensors(100, target))
    return holds("an idle tick of 100 sensors", idle_ticks(definitions, rounds=20), at_most=0.1)


if __name__ == "__main__":
    run(main)
