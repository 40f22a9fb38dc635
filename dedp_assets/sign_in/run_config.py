"""What the run config of a request asks for."""

from collections.abc import Mapping
from typing import Any

import yaml
from dagster_shared.yaml_utils import load_run_config_yaml


def names_environment(arguments: Any) -> bool:
    """Whether a value of a run config is to come from an environment variable: `{"env": "NAME"}`.

    Dagster puts the value of the variable there. A run that does not like it says so, with the value, to all who see
    its page.

    Args:
        arguments: Of a mutation, nested. A `runConfigData` is nested, too, or YAML.
    """
    # Neither recursive, nor twice into the same value: YAML can refer to one value from thousands of places.
    seen: dict[int, Any] = {}
    waiting = [arguments]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, Mapping):
            if set(value) == {"env"}:
                return True
            waiting.extend(_parsed(value.get("runConfigData")))
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
    return False


def _parsed(config: Any) -> list[Any]:
    if not isinstance(config, str):
        return []
    try:
        return [load_run_config_yaml(config)]
    except yaml.YAMLError:  # Dagster refuses it, too
        return []
