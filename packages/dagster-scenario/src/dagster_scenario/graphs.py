"""The steps of what computes an asset: one op, or the ops of a graph and of the graphs in it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg


@dataclass(frozen=True)
class Step:
    """An op, under the name that it has where it is used.

    `first`: no step of the same graph comes before it. `last`: it gives the graph's results.
    """

    name: str
    op: dg.OpDefinition
    first: bool = True
    last: bool = True


def steps_of(node: Any) -> Iterator[Step]:
    """The steps of an op or a graph."""
    if isinstance(node, dg.OpDefinition):
        yield Step(node.name, node)
    elif isinstance(node, dg.GraphDefinition):
        yield from _steps_of_graph(node, first=True, last=True)


def _steps_of_graph(graph: dg.GraphDefinition, *, first: bool, last: bool) -> Iterator[Step]:
    results = {mapping.maps_from.node_name for mapping in graph.output_mappings}
    for name, node in graph.node_dict.items():
        begins = first and not graph.dependency_structure.input_to_upstream_outputs_for_node(name)
        ends = last and name in results
        if isinstance(node.definition, dg.GraphDefinition):
            yield from _steps_of_graph(node.definition, first=begins, last=ends)
        elif isinstance(node.definition, dg.OpDefinition):
            yield Step(name, node.definition, begins, ends)
