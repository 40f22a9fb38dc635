"""An idle tick of a scenario with 400 assets, each with `AutomationCondition.eager()`, in chains of ten."""

import dagster as dg
from measuring import ON, holds, idle_ticks, run


def asset(number: int) -> dg.AssetsDefinition:
    """One of the assets; every tenth begins a chain."""

    @dg.asset(
        name=f"asset_{number}",
        deps=[f"asset_{number - 1}"] if number % 10 else [],
        automation_condition=dg.AutomationCondition.eager(),
    )
    def computed() -> None: ...

    return computed


def main() -> bool:
    automation = dg.AutomationConditionSensorDefinition("automation", target="*", default_status=ON)
    definitions = dg.Definitions(assets=[asset(number) for number in range(400)], sensors=[automation])
    return holds("an idle tick of 400 eager assets", idle_ticks(definitions, rounds=7), at_most=1)


if __name__ == "__main__":
    run(main)
