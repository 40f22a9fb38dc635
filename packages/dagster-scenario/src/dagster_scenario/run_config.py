"""A run config that is not what a run asks for, in plain words: whose entry it is, what is wrong, what is expected.

Dagster says where in the config something is wrong. What is expected there stands in the config type of the job.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg

from dagster_scenario import _dagster as dagster_
from dagster_scenario.errors import ScenarioError

_SCALARS = {"Int": "a whole number", "String": "a text", "Bool": "True or False", "Float": "a number"}
_EXAMPLES: dict[str, Any] = {"Int": 0, "String": "...", "Bool": True, "Float": 0.0}


@contextmanager
def in_plain_words(call: str, job: Callable[[], dg.JobDefinition]) -> Iterator[None]:
    """Within it, a run config that Dagster refuses is a `ScenarioError` that names the entries.

    call: what the test has called. job: gives the job as it is to execute.
    """
    try:
        yield
    except dg.DagsterInvalidConfigError as error:
        definition = job()
        asked: Any = definition.run_config_schema.config_type
        said = _Wrong(asked, _assets_by_op(definition))
        lines = [line for one in error.errors for line in said.lines(one)]
        example = [f"as in run_config={said.example}"] if said.example else []
        message = [f"the run_config of {call} is not what the run asks for:", *(f"  {line}" for line in lines)]
        raise ScenarioError("\n".join([*message, *example])) from None


def _assets_by_op(job: dg.JobDefinition) -> dict[str, str]:
    """The names of the assets that an op or graph of a job computes."""
    layer: Any = job.asset_layer
    found = {}
    for name in job.graph.node_dict:
        assets = layer.get_assets_def_for_node(dagster_.NodeHandle(name, None))
        if assets is not None and assets.keys:
            found[name] = ", ".join(sorted(key.to_user_string() for key in assets.keys))
    return found


class _Wrong:
    """Says what is wrong. Collects an example of what is missing on its way."""

    def __init__(self, asked: Any, assets: Mapping[str, str]) -> None:
        self._asked, self._assets = asked, assets
        self.example: dict[str, Any] = {}

    def lines(self, error: Any) -> Iterator[str]:
        """What is wrong, an entry a line."""
        path = [_step(entry) for entry in error.stack.entries]
        path = [step for step in path if step is not None]
        data = error.error_data
        reason = error.reason.name
        if reason.startswith("MISSING_REQUIRED"):
            for name in _names(data):
                yield from self._missing([*path, name])
        elif reason in ("FIELD_NOT_DEFINED", "FIELDS_NOT_DEFINED"):
            known = sorted(getattr(_inner(_type_at(self._asked, path)), "fields", None) or {})
            for name in _names(data):
                yield f"{self._whose(path)}: there is no {_shown([*_own(path), name])}{_instead(name, known)}"
        elif reason == "RUNTIME_TYPE_MISMATCH":
            expected = _words(_type_at(self._asked, path))
            yield f"{self._whose(path)}: {_shown(_own(path)) or 'this'} is {data.value_rep}; expected {expected}"
        else:
            # An error of the project's own, or of Dagster's, in one line.
            said = getattr(data, "message", "") or error.message
            text = " ".join(said.split("Stack Trace")[0].split()).rpartition("Error: ")[2]
            yield f"{self._whose(path)}: {_shown(_own(path)) or 'this'}: {text}"

    def _missing(self, path: Sequence[Any]) -> Iterator[str]:
        """What is required at this place, down to the single entries."""
        type_ = _type_at(self._asked, path)
        below = [name for name, field in (getattr(type_, "fields", None) or {}).items() if field.is_required]
        if below and type_.kind.name != "SELECTOR":
            for name in sorted(below):
                yield from self._missing([*path, name])
            return
        place = self.example
        for name in path[:-1]:
            place = place.setdefault(str(name), {})
        place[str(path[-1])] = _EXAMPLES.get(_scalar(type_), {} if hasattr(type_, "fields") else "...")
        yield f"{self._whose(path)}: {_shown(_own(path))} is missing; expected {_words(type_)}"

    def _whose(self, path: Sequence[Any]) -> str:
        """The asset, op or resource that an entry belongs to."""
        if not path:
            return "run config"
        if len(path) == 1:
            return str(path[0])
        if path[0] == "resources":
            return f"resource {path[1]}"
        if path[0] == "ops":
            names = [step for step in path[: _begin_of_own(path)] if step not in ("ops", "config")]
            return ".".join([self._assets.get(names[0], names[0]), *names[1:]])
        return str(path[0])


def _step(entry: Any) -> Any:
    for kind in ("field_name", "list_index", "map_key"):
        if hasattr(entry, kind):
            step = getattr(entry, kind)
            return step if kind == "field_name" else [step]
    return None


def _names(data: Any) -> Sequence[str]:
    return list(data.field_names) if hasattr(data, "field_names") else [data.field_name]


def _begin_of_own(path: Sequence[Any]) -> int:
    """Where, in the path of an entry, what its op or resource calls it begins."""
    return path.index("config") + 1 if "config" in path else len(path)


def _own(path: Sequence[Any]) -> Sequence[Any]:
    return path[_begin_of_own(path) :]


def _shown(path: Sequence[Any]) -> str:
    text = ""
    for step in path:
        text += f"[{step[0]!r}]" if isinstance(step, list) else f".{step}" if text else str(step)
    return text


def _type_at(asked: Any, path: Sequence[Any]) -> Any:
    """The config type at a place; None where it can't be told."""
    for step in path:
        asked = _inner(asked)
        if isinstance(step, list):
            asked = getattr(asked, "inner_type", None)
        else:
            field = (getattr(asked, "fields", None) or {}).get(step)
            asked = field.config_type if field is not None else None
    return asked


def _inner(type_: Any) -> Any:
    """What has the entries: the type itself, or the one that may be left out or given in another way."""
    kind = type_.kind.name if type_ is not None else ""
    if kind == "NONEABLE":
        return _inner(type_.inner_type)
    return _inner(type_.non_scalar_type) if kind == "SCALAR_UNION" else type_


def _scalar(type_: Any) -> str:
    if type_ is None:
        return ""
    name: str = (type_.scalar_type if type_.kind.name == "SCALAR_UNION" else type_).given_name or ""
    return name.removesuffix("Source")


def _words(type_: Any) -> str:
    """What a config type takes, in words."""
    kind = type_.kind.name if type_ is not None else ""
    if kind == "NONEABLE":
        return f"{_words(type_.inner_type)}, or None"
    if kind == "ENUM":
        return " or ".join(value.config_value for value in type_.enum_values)
    if kind == "ARRAY":
        return f"a list, each entry {_words(type_.inner_type)}"
    if kind == "SELECTOR":
        return f"exactly one of {', '.join(sorted(type_.fields))}"
    if kind in ("MAP", "STRICT_SHAPE", "PERMISSIVE_SHAPE"):
        names = ", ".join(sorted(getattr(type_, "fields", None) or {}))
        return f"a dict{f' with {names}' if names else ''}"
    return _SCALARS.get(_scalar(type_), _scalar(type_) or "something else")


def _instead(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5) or [one for one in known if name in one][:1]
    if near:
        return f". Did you mean {near[0]!r}?"
    return f". There are: {', '.join(known)}." if known else ". There is nothing to configure."
