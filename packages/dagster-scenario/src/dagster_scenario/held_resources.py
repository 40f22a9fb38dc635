"""Resources that others hold in a field: what stands for one stands for it there, too."""

import inspect
import types
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from dagster_scenario import _dagster as dagster_


def with_held_ones_swapped(
    resources: Mapping[str, dg.ResourceDefinition], own: Mapping[str, dg.ResourceDefinition], given: Mapping[str, Any]
) -> dict[str, dg.ResourceDefinition]:
    """The same resources, in which those that hold a swapped one hold what was given in its place.

    A resource that is held is known by being the same object as the one under a key.

    Args:
        resources: those to look at.
        own: the project's own, by their keys.
        given: what was given in place of some of them, by their keys.
    """
    holders = _Holders({id(own[key]): value for key, value in given.items() if key in own})
    return {key: holders.definition(resource) for key, resource in resources.items()}


class _Holders:
    """Makes holders anew. One that several hold is made once, as Dagster looks for it by its identity."""

    def __init__(self, instead: Mapping[int, Any]) -> None:
        """instead: what was given, by the id of the definition whose place it takes."""
        self._instead = instead
        # With the definition, so that its id stays its own.
        self._made: dict[int, tuple[Any, Any]] = {}

    def definition(self, resource: dg.ResourceDefinition) -> dg.ResourceDefinition:
        """A resource, made anew if it holds what was swapped."""
        made = self._anew(resource)
        return resource if made is None else dagster_.wrap_resources_for_execution({"it": made})["it"]

    def _anew(self, resource: dg.ResourceDefinition) -> Any:
        """What takes the place of a holder; None for one that stays as it is."""
        if id(resource) not in self._made:
            self._made[id(resource)] = (resource, self._make(resource))
        return self._made[id(resource)][1]

    def _make(self, resource: dg.ResourceDefinition) -> Any:
        held: Mapping[str, Any] = getattr(resource, "nested_resources", {})
        swapped = {name: new for name, one in held.items() if (new := self._in_place_of(one)) is not None}
        if not swapped:
            return None
        # How a definition makes its resource: by a method of the object that it was made of, or, of one that gets its
        # config at launch, by a function around its class and data.
        make: Any = resource.resource_fn
        if isinstance(owner := getattr(make, "__self__", None), dagster_.ConfigurableResourceFactory):
            kind = _that_holds_anything(type(owner), swapped)
            return kind(**{**owner._get_non_default_public_field_values(), **swapped})
        around = inspect.getclosurevars(make).nonlocals
        if {"resource_cls", "data"} <= around.keys():
            kind = _that_holds_anything(around["resource_cls"], swapped)
            return kind.configure_at_launch(**{**around["data"], **swapped})
        return None

    def _in_place_of(self, held: Any) -> Any:
        """What takes the place of something that is held; None for what stays."""
        definition = held if isinstance(held, dg.ResourceDefinition) else None
        if hasattr(held, "get_resource_definition"):
            definition = held.get_resource_definition()
        if definition is None:
            return None
        if id(definition) not in self._instead:
            return self._anew(definition)
        given = self._instead[id(definition)]
        if isinstance(given, dagster_.ConfigurableResourceFactory):
            # What was given may hold something that was swapped, too.
            return self._anew(given.get_resource_definition()) or given
        return given


def _that_holds_anything(kind: Any, fields: Iterable[str]) -> Any:
    """The same class of resources, but for these fields, which take whatever stands for what they held."""
    annotations = {field: dg.ResourceDependency[Any] for field in fields}
    namespace = {"__annotations__": annotations, "__module__": kind.__module__, "__doc__": kind.__doc__}
    return types.new_class(kind.__name__, (kind,), {}, lambda new: new.update(namespace))
