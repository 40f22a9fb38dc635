"""What stands in for resources and computations that can't run in a test.

A run is launched as it is in a deployment. When it executes, its job has other resources, and the ops of stubbed assets
are replaced by ops that do nothing but give what the stub says. So sensors, conditions and snapshots see the project
as it is.
"""

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from inspect import isgenerator
from typing import Any

import dagster as dg

from dagster_scenario import _dagster as dagster_
from dagster_scenario.errors import ScenarioError
from dagster_scenario.executors import AROUND
from dagster_scenario.faults import around_of
from dagster_scenario.held_resources import with_held_ones_swapped


@dataclass
class Stub:
    """What an asset, or an op, gives in place of its computation."""

    target: str
    # A value, or a function that makes it of a partition key, which is None without partitions.
    value: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    data_version: str | None = None
    error: BaseException | None = None
    # Whether a check passes, by name.
    checks: Mapping[str, bool] = field(default_factory=dict)
    # Whether the checks that are steps of their own are stubbed, too.
    all_checks: bool = False

    def value_of(self, partition: str | None) -> Any:
        """The value of a partition, or of the asset if it is not partitioned."""
        return self.value(partition) if callable(self.value) else self.value


class StandIns:
    """The resources and stubs of a scenario."""

    def __init__(self) -> None:
        # By location, as they were given.
        self.resources: dict[str, dict[str, Any]] = {}
        self.stubs: dict[str, Stub] = {}
        # What stubbed assets have given, by asset and partition.
        self._given: dict[tuple[str, str | None], Any] = {}

    def swap(self, location: str, resources: Mapping[str, Any]) -> None:
        """Let the runs, sensors and schedules of a location have these resources, and no others in their place."""
        self.resources[location] = dict(resources)

    def check_that_they_can_be_sent(self) -> None:
        """Refuse what a process that is started afresh can't be given: it must be pickled on its way there."""
        named = {**self.stubs, **{key: value for swapped in self.resources.values() for key, value in swapped.items()}}
        for name, stand_in in named.items():
            try:
                pickle.dumps(stand_in)
            except Exception as error:
                raise ScenarioError(
                    f"what stands for {name} can't be given to the process of a run that is to be killed ({error}). "
                    "With delta-rs that process is started afresh: use functions and classes of a module, no lambdas"
                ) from error

    def swapped(self, location: str) -> dict[str, dg.ResourceDefinition]:
        """The resources of a location that were swapped, as definitions."""
        return dagster_.wrap_resources_for_execution(self.resources.get(location, {}))

    def swapped_in(
        self, location: str, resources: Mapping[str, dg.ResourceDefinition], own: Mapping[str, dg.ResourceDefinition]
    ) -> dict[str, dg.ResourceDefinition]:
        """Resources of a location, with what was given in place of some of them, under their keys and in others.

        own: all resources of the location as the project has them.
        """
        given = self.resources.get(location, {})
        with_given = {**resources, **{key: one for key, one in self.swapped(location).items() if key in resources}}
        return with_held_ones_swapped(with_given, own, given) if given else with_given

    def put_into(
        self, job: dg.JobDefinition, location: str, own: Mapping[str, dg.ResourceDefinition]
    ) -> dg.JobDefinition:
        """The job as it is to execute. own: all resources of its location as the project has them."""
        if not self.resources.get(location) and not self.stubs:
            return job
        resources = self.swapped_in(location, job.resource_defs, {**own, **job.resource_defs})
        graph = job.graph
        if self.stubs:
            graph = self._stubbed_graph(job.graph, job.asset_layer, None)
            needed = set(self._io_managers_of(graph, job.asset_layer, None))
            resources.update(self._stubbed_io_managers(job, resources, needed))
        changed: dg.JobDefinition = job._copy(graph_def=graph, resource_defs=resources)
        return changed

    # Steps

    def _stubbed_graph(self, graph: dg.GraphDefinition, layer: Any, parent: Any) -> dg.GraphDefinition:
        """The same graph, in which the ops of stubbed assets are replaced; the graph itself if there are none."""
        replaced: dict[str, Any] = {}
        for name, node in graph.node_dict.items():
            handle = dagster_.NodeHandle(name, parent)
            definition = node.definition
            if isinstance(definition, dg.GraphDefinition):
                inner = self._stubbed_graph(definition, layer, handle)
                if inner is not definition:
                    replaced[name] = inner
            elif isinstance(definition, dg.OpDefinition):
                stubs = self._stubs_of(definition, handle, layer)
                if stubs is not None:
                    replaced[name] = _stub_op(definition, handle, layer, stubs)
        return _with_nodes(graph, replaced) if replaced else graph

    def _stubs_of(self, op: dg.OpDefinition, handle: Any, layer: Any) -> "dict[str, Stub] | None":
        """The stubs that an op gives the results of, by the names of assets; None for an op that is not stubbed."""
        for name in (handle.name, op.name):
            if name in self.stubs:
                return {name: self.stubs[name]}
        assets = layer.get_assets_def_for_node(handle)
        if assets is None:
            return None
        found = {name: self.stubs[name] for name in (key.to_user_string() for key in assets.keys) if name in self.stubs}
        if assets.keys:
            return found or None
        checked = {}
        for check in assets.check_keys:
            stub = self.stubs.get(check.asset_key.to_user_string())
            if stub is not None and (stub.all_checks or check.name in stub.checks):
                checked[stub.target] = stub
        return checked or None

    # IO managers

    def _stubbed_io_managers(
        self, job: dg.JobDefinition, resources: Mapping[str, dg.ResourceDefinition], needed: set[str]
    ) -> Iterator[tuple[str, dg.ResourceDefinition]]:
        """The IO managers of a job, which leave stubbed assets to the stubs.

        needed: those that the other steps use. What only stubbed assets use is not made, and needs no config.
        """
        graph = job.asset_layer.asset_graph
        keys = {graph.get(key).io_manager_key for key in graph.get_all_asset_keys()}
        for key, resource in resources.items():
            if key in keys or isinstance(resource, dg.IOManagerDefinition | dg.InputManagerDefinition):
                if key in needed:
                    yield key, _StubbedIOManager.around(resource, self)
                else:
                    yield key, dg.IOManagerDefinition.hardcoded_io_manager(_StubbedIOManager(self, None))

    def _io_managers_of(self, graph: dg.GraphDefinition, layer: Any, parent: Any) -> Iterator[str]:
        """The IO managers by which steps that are not stubbed store or load something that is not stubbed."""
        for name, node in graph.node_dict.items():
            handle = dagster_.NodeHandle(name, parent)
            definition = node.definition
            if isinstance(definition, dg.GraphDefinition):
                yield from self._io_managers_of(definition, layer, handle)
            elif isinstance(definition, dg.OpDefinition) and not hasattr(definition, _STUB):
                yield from (output.io_manager_key for output in definition.output_defs)
                for input_ in definition.input_defs:
                    yield from self._io_managers_of_input(input_, handle, layer)

    def _io_managers_of_input(self, input_: Any, handle: Any, layer: Any) -> Iterator[str]:
        key = layer.get_asset_key_for_node_input(handle, input_.name)
        if key is not None and key.to_user_string() in self.stubs:
            return
        if input_.input_manager_key:
            yield input_.input_manager_key
        if key is not None and layer.has(key):
            yield layer.get(key).io_manager_key

    def stub_at(self, context: Any) -> Stub | None:
        """The stub of the asset, or op, that an IO manager is to store or to load."""
        if context.has_asset_key:
            return self.stubs.get(context.asset_key.to_user_string())
        output = context.upstream_output if isinstance(context, dg.InputContext) else context
        op = getattr(output, "op_def", None)
        return getattr(op, _STUB, None)

    def store(self, stub: Stub, context: dg.OutputContext) -> None:
        """A stubbed asset was computed."""
        for partition in _partitions(context):
            self._given[stub.target, partition] = stub.value_of(partition)

    def load(self, stub: Stub, context: dg.InputContext) -> Any:
        """What a stubbed asset gave; several partitions as a mapping, as Dagster's own IO managers do.

        What was never computed, such as an external asset, has the value that the stub has now.
        """
        partitions = _partitions(context)
        values = {
            partition: self._given[stub.target, partition]
            if (stub.target, partition) in self._given
            else stub.value_of(partition)
            for partition in partitions
        }
        return next(iter(values.values())) if len(values) == 1 else values


# Marks an op that stands for another one.
_STUB = "_dagster_scenario_stub"


def _partitions(context: Any) -> list[str | None]:
    return list(context.asset_partition_keys) if context.has_asset_partitions else [None]


class _StubbedIOManager(dg.IOManager):
    """Stores and loads all but stubbed assets by the real IO manager, which is made when it is first needed."""

    def __init__(self, stand_ins: StandIns, make: Callable[[], Any] | None) -> None:
        self._stand_ins, self._make = stand_ins, make
        self._made: Any = None

    @classmethod
    def around(cls, resource: Any, stand_ins: StandIns) -> dg.IOManagerDefinition:
        """An IO manager in place of a real one, with the same config."""

        # Dagster takes a generator for a resource that has an end; its type says otherwise.
        def resource_fn(context: dg.InitResourceContext) -> Any:
            with ExitStack() as stack:
                yield cls(stand_ins, lambda: _made(resource, context, stack))

        definition = dg.IOManagerDefinition(
            resource_fn=resource_fn,
            config_schema=resource.config_schema,
            required_resource_keys=resource.required_resource_keys,
            input_config_schema=getattr(resource, "input_config_schema", None),
            output_config_schema=getattr(resource, "output_config_schema", None),
        )
        setattr(definition, AROUND, resource)
        return definition

    def handle_output(self, context: dg.OutputContext, obj: Any) -> Any:
        stub = self._stand_ins.stub_at(context)
        if stub is None:
            return self._real().handle_output(context, obj)
        self._stand_ins.store(stub, context)
        return None

    def load_input(self, context: dg.InputContext) -> Any:
        stub = self._stand_ins.stub_at(context)
        return self._real().load_input(context) if stub is None else self._stand_ins.load(stub, context)

    def _real(self) -> Any:
        if self._made is None:
            assert self._make is not None, "everything that this IO manager stores and loads is stubbed"
            self._made = self._make()
        return self._made


def _made(resource: Any, context: dg.InitResourceContext, stack: ExitStack) -> Any:
    """A resource made by its definition; what it does at its end, it does when the stack is closed."""
    takes_context = dagster_.has_at_least_one_parameter(resource.resource_fn)
    made = resource.resource_fn(context) if takes_context else resource.resource_fn()
    if isgenerator(made):
        value = next(made)
        stack.callback(lambda: next(made, None))
        return value
    return stack.enter_context(made) if isinstance(made, AbstractContextManager) else made


# Graphs


def _with_nodes(graph: dg.GraphDefinition, replaced: Mapping[str, Any]) -> dg.GraphDefinition:
    """The same graph, in which these nodes have other definitions. The names of nodes stay, and so do those of steps.

    A definition has one name in a graph, and an op can be used by several nodes of which one is stubbed. So what
    replaces it gets a name that no other has.
    """
    definitions: dict[str, Any] = {definition.name: definition for definition in graph.node_defs}
    dependencies: dict[Any, Any] = {}
    for invocation, inputs in graph.dependencies.items():
        name = invocation.alias or invocation.name
        if name in replaced:
            definition = replaced[name]
            definitions[definition.name] = definition
            invocation = invocation._replace(name=definition.name, alias=name)
        dependencies[invocation] = inputs
    used = {invocation.name for invocation in dependencies}
    return dg.GraphDefinition(
        name=graph.name,
        description=graph.description,
        node_defs=[definition for name, definition in definitions.items() if name in used],
        dependencies=dependencies,
        input_mappings=graph.input_mappings,
        output_mappings=graph.output_mappings,
        config=_mapping_of(graph, [definitions[name] for name in used]),
        tags=graph.tags,
        input_assets=graph.input_assets,
    )


def _any_config() -> Any:
    """The config of what is stubbed: it needs none, and takes what the real one takes."""
    return dg.Field(dg.Any, is_required=False)


def _mapping_of(graph: dg.GraphDefinition, definitions: Iterable[Any]) -> dg.ConfigMapping | None:
    """How a graph makes the config of its nodes of its own: not at all, if nothing in it is left to be configured."""
    if graph.config_mapping is None or not all(map(_is_stubbed, definitions)):
        return graph.config_mapping
    return dg.ConfigMapping(config_fn=lambda _: {}, config_schema=_any_config())


def _is_stubbed(definition: Any) -> bool:
    """Whether an op, or every op of a graph, stands for another one."""
    if isinstance(definition, dg.GraphDefinition):
        return all(map(_is_stubbed, definition.node_defs))
    return hasattr(definition, _STUB)


def _stub_op(op: dg.OpDefinition, handle: Any, layer: Any, stubs: Mapping[str, Stub]) -> dg.OpDefinition:
    """An op in place of another one: with its name for the user and its outputs, and without its needs."""
    keys = {output.name: layer.get_entity_key_for_node_output(handle, output.name) for output in op.output_defs}
    given = next(iter(stubs.values()))

    def compute(context: dg.OpExecutionContext, inputs: Any) -> Iterator[Any]:
        for stub in stubs.values():
            if stub.error is not None:
                raise stub.error
        for output in op.output_defs:
            if output.name in context.selected_output_names and not output.is_dynamic:
                yield _result(output.name, keys[output.name], stubs, given, lambda key: layer.get(key).is_observable)

    around = around_of(op)
    stubbed = dg.OpDefinition(
        name=f"stub_of_{'__'.join(handle.path)}",
        compute_fn=around(compute) if around else compute,
        ins={name: dg.In(dg.Nothing) for name in op.ins},
        outs={name: _stub_out(out) for name, out in op.outs.items()},
        config_schema=_any_config(),
        tags=op.tags,
        retry_policy=op.retry_policy,
        pool=op.pool,
        description=op.description,
    )
    setattr(stubbed, _STUB, given)
    return stubbed


def _stub_out(out: Any) -> Any:
    if out.is_dynamic:
        return dg.DynamicOut(io_manager_key=out.io_manager_key, is_required=out.is_required)
    type_ = dg.Nothing if getattr(out.dagster_type, "is_nothing", False) else dg.Any
    return dg.Out(type_, io_manager_key=out.io_manager_key, is_required=out.is_required, code_version=out.code_version)


def _result(output: str, key: Any, stubs: Mapping[str, Stub], given: Stub, observed: Callable[[Any], bool]) -> Any:
    if isinstance(key, dg.AssetCheckKey):
        stub = stubs.get(key.asset_key.to_user_string())
        passed = stub.checks.get(key.name, True) if stub else True
        return dg.AssetCheckResult(passed=passed, asset_key=key.asset_key, check_name=key.name)
    stub = stubs.get(key.to_user_string()) if key is not None else given
    if stub is None:
        # Another asset of the same step.
        return dg.Output(None, output)
    version = dg.DataVersion(stub.data_version) if stub.data_version is not None else None
    if key is not None and observed(key):
        return dg.ObserveResult(asset_key=key, metadata=stub.metadata, data_version=version)
    return dg.Output(None, output, metadata=stub.metadata, data_version=version)
