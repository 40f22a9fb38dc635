"""What the run config of a request asks for."""

from collections.abc import Mapping
from typing import Any

import yaml
from dagster_shared.yaml_utils import load_run_config_yaml

ENVIRONMENT = "takes a value from an environment variable (env: ...), which a run can show"
RESOURCES = "has `resources`, and with them where a run reads, writes and connects to"


def reserved_for_admins(arguments: Any) -> str | None:
    """What a run config asks for that launchers may not choose; `None` if there is no such thing.

    Dagster puts the value of an environment variable into a run. A run that does not like it says so, with the value,
    to all who see its page. And a resource may be a folder: that of the IO manager has pickles, which are executed.

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
                return ENVIRONMENT
            config = _parsed(value.get("runConfigData"))
            if isinstance(config, Mapping) and config.get("resources"):
                return RESOURCES
            waiting.extend([config, *value.values()])
        elif isinstance(value, list | tuple):
            waiting.extend(value)
    return None


def _parsed(config: Any) -> Any:
    if not isinstance(config, str):
        return config
    try:
        return load_run_config_yaml(config)
    except yaml.YAMLError:  # Dagster refuses it, too
        return None
