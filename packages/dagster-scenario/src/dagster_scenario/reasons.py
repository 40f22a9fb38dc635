"""Why an asset was not requested: what each node of its automation condition said."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

# For each asset. Dagster gives an evaluation only when something in it has changed.
_KEPT = 200

_UNKNOWN, _NO, _YES = "?", "no", "yes"


@dataclass(frozen=True)
class Evaluation:
    """One look at an automation condition. `root` is Dagster's record of it, a tree."""

    at: datetime
    root: Any


class Evaluations:
    """The last evaluations of automation conditions, by asset."""

    def __init__(self) -> None:
        self._by_asset: dict[str, deque[Evaluation]] = {}

    def note(self, at: datetime, evaluations: Iterable[Any]) -> None:
        """Dagster has evaluated conditions, of which these have changed."""
        for evaluation in evaluations:
            name = evaluation.key.to_user_string()
            self._by_asset.setdefault(name, deque(maxlen=_KEPT)).append(Evaluation(at, evaluation.evaluation))

    def explain(self, asset: str, partition: str | None, since: datetime | None) -> list[str]:
        """What kept a partition of an asset from being requested, node by node.

        Of the looks since this moment, it is the one in which most of the condition held; the last look before, if
        there was none. Empty for an asset whose condition was never evaluated.
        """
        looks = list(self._by_asset.get(asset, ()))
        recent = [look for look in looks if since is None or look.at.timestamp() >= since.timestamp()]
        candidates = recent or looks[-1:]
        if not candidates:
            return []
        nearest = max(candidates, key=lambda look: (_held(look.root, partition), look.at.timestamp()))
        which = f" for {partition}" if partition else ""
        return [
            f"the condition of {asset}{which}, as it was at {nearest.at:%Y-%m-%d %H:%M:%S}:",
            *(f"  {line}" for line in _lines(nearest.root, partition, wanted=True, depth=0)),
        ]


def _held(node: Any, partition: str | None) -> int:
    """How many nodes of a condition held."""
    return sum(_state(below, partition) == _YES for below in node.iter_nodes())


def _lines(node: Any, partition: str | None, *, wanted: bool, depth: int) -> Iterator[str]:
    """A node, and what is below it if it did not come out as it had to.

    wanted: whether it had to hold for a request. Below `NOT`, and for what ends a `SINCE`, it had not.
    """
    state = _state(node, partition)
    yield f"{state:<4}{'  ' * depth}{_text(node)}"
    if state == _UNKNOWN or (state == _YES) is wanted:
        return
    while node.condition_snapshot.name == "NOT" and node.child_evaluations:
        # Its line has said what is below it.
        node, wanted = node.child_evaluations[0], not wanted
    for child, wanted_below in _children(node, wanted):
        yield from _lines(child, partition, wanted=wanted_below, depth=depth + 1)


def _children(node: Any, wanted: bool) -> Iterator[tuple[Any, bool]]:
    children = node.child_evaluations
    name = node.condition_snapshot.name
    if name == "SINCE" and len(children) == 2:
        yield children[0], wanted
        yield children[1], not wanted
    else:
        yield from ((child, wanted) for child in children)


_OPERATORS = {
    "AND": "all of",
    "OR": "any of",
    "NOT": "not",
    "SINCE": "the first since the second",
    "NEWLY_TRUE": "newly true",
    "ANY_DEPS_MATCH": "any dependency",
    "ALL_DEPS_MATCH": "all dependencies",
}


def _text(node: Any) -> str:
    """A node in words: its label, and what it does with the nodes below it."""
    snapshot = node.condition_snapshot
    label: str = snapshot.label or ""
    if snapshot.name in _OPERATORS:
        operator = _OPERATORS[snapshot.name]
        if snapshot.name == "NOT" and node.child_evaluations:
            return f"not {_text(node.child_evaluations[0])}"
        if snapshot.name == "SINCE" and len(node.child_evaluations) == 2:
            trigger, reset = (_brief(child) for child in node.child_evaluations)
            operator = f"{trigger} since {reset}"
        return f"{label}: {operator}" if label else operator
    return label or snapshot.name or snapshot.description or snapshot.class_name


def _brief(node: Any) -> str:
    """A node in one expression."""
    snapshot = node.condition_snapshot
    if snapshot.label:
        return str(snapshot.label)
    between = {"AND": " and ", "OR": " or "}.get(snapshot.name or "")
    if between:
        return f"({between.join(_brief(child) for child in node.child_evaluations)})"
    if snapshot.name in _OPERATORS and node.child_evaluations:
        return f"{_OPERATORS[snapshot.name]} {_brief(node.child_evaluations[0])}"
    return str(snapshot.name or snapshot.description or snapshot.class_name)


def _state(node: Any, partition: str | None) -> str:
    """Whether a node held; unknown where Dagster had no need to look, since the outcome was clear already."""
    if _has(node.true_subset, partition):
        return _YES
    candidates = node.candidate_subset
    return _NO if not hasattr(candidates, "value") or _has(candidates, partition) else _UNKNOWN


def _has(subset: Any, partition: str | None) -> bool:
    """Whether a subset of an asset's partitions has this one, or any for None."""
    value = subset.value
    if isinstance(value, bool):
        return value
    return partition in value if partition is not None else not value.is_empty
