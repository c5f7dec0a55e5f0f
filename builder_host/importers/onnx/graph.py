"""The walk over a model's nodes: what the outputs need, in order, each by its rule.

A node that cannot be translated leaves one or more problems; nodes that depend on it are still
checked for support but not translated, so that one report names everything.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import onnx
import onnx.defs

from builder_host.errors import NetworkError
from builder_host.expressions import Input
from builder_host.importers.onnx.control_flow import CONTROL_FLOW, ControlFlow
from builder_host.importers.onnx.functions import bound_nodes, schema_body
from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.plugins import plugin_rule
from builder_host.importers.onnx.scope import Scope, names_read, node_title, schedule
from builder_host.importers.onnx.shapes import InputType
from builder_host.importers.onnx.support import (
    Support,
    domain_of,
    node_support,
    opset_versions,
)
from builder_host.importers.onnx.values import Value, value_text
from builder_host.importers.onnx.weights import TensorReader
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.network import Network, Tensor
from builder_host.plugins.registry import PluginRegistry

_LOGGER = logging.getLogger(__name__)
_MAX_DEPTH = 32
_EXPECTED = (ArithmeticError, LookupError, ValueError, TypeError, MemoryError)
_MAX_TITLES = 100  # nodes named for one unsupported operator
_MAX_NODES = 1_000_000  # translated in all, unrolled bodies counted each time


class GraphImporter:
    """Translates one model into one network; problems are collected in the caller's list."""

    def __init__(
        self,
        model: onnx.ModelProto,
        network: Network,
        reader: TensorReader,
        problems: list[str],
        plugins: PluginRegistry | None = None,
    ) -> None:
        """Remember the model; `run` does the work."""
        self._plugins = plugins or PluginRegistry()
        self._graph = model.graph
        self._network = network
        self._reader = reader
        self._problems = problems
        self._opsets = opset_versions(model.opset_import)
        self._functions = {(domain_of(f.domain), f.name, f.overload): f for f in model.functions}
        self._value_names = {n for node in self._graph.node for n in [*node.input, *node.output]}
        self._value_names |= {v.name for v in [*self._graph.input, *self._graph.output]}
        self._value_names |= {t.name for t in self._graph.initializer}
        self._refused: dict[str, list[str]] = {}  # problem of an operator -> nodes that have it
        self._created: set[int] = set()  # ids of tensors that may still be renamed
        self._kept: list[Tensor] = []  # keeps those ids valid
        self._num_nodes = 0
        self._wishes: dict[str, int] = {}  # how often a scratch name was asked for

    def run(
        self, bound: Sequence[InputType], inputs: Sequence[str], outputs: Sequence[str] | None
    ) -> None:
        """Translate everything that the outputs need.

        Args:
            bound: inputs whose type is known.
            inputs: names of all inputs that are no initialisers.
            outputs: values to make outputs; None for the graph's own.
        """
        newest = onnx.defs.onnx_opset_version()
        if self._opsets.get("", 0) > newest:
            self._problems.append(
                f"the model uses opset {self._opsets['']} of ai.onnx; the installed onnx package "
                f"{onnx.__version__} knows up to {newest}: upgrade it or export with a lower opset"
            )
            return
        scope = Scope(self._opsets, self._initializers(self._graph))
        types = {i.name: i for i in bound}
        wanted = [o.name for o in self._graph.output] if outputs is None else list(outputs)
        plan = schedule(self._graph.node, wanted, scope_with(scope, inputs))
        for name in inputs:
            scope.values[name] = None
            if name in types and (outputs is None or name in plan.read):
                try:
                    scope.values[name] = self._network.add_input(
                        name, types[name].shape, types[name].dtype
                    )
                except NetworkError as error:
                    self._problems.append(str(error))
        self._problems += plan.problems
        for index in plan.order:
            self._import_node(index, self._graph.node[index], scope, plan.read)
        done = set(plan.order)
        stuck = {n for i, y in enumerate(self._graph.node) if i not in done for n in y.output}
        scope.values.update({n: None for n in stuck & plan.read if n not in scope.values})
        self._problems += [f"{_titles(nodes)}: {text}" for text, nodes in self._refused.items()]
        self._mark_outputs(wanted, scope)

    # --- values --------------------------------------------------------------------------

    def _initializers(
        self, graph: onnx.GraphProto
    ) -> dict[str, onnx.TensorProto | onnx.SparseTensorProto]:
        found: dict[str, onnx.TensorProto | onnx.SparseTensorProto] = {}
        for dense in graph.initializer:
            found[dense.name] = dense
        for sparse in graph.sparse_initializer:
            found[sparse.values.name] = sparse
        if len(found) < len(graph.initializer) + len(graph.sparse_initializer):
            self._problems.append("two initialisers have one name; export the model again")
        return found

    def _lookup(self, name: str, scope: Scope) -> Value | None:
        """The translated value, or None when it could not be translated."""
        if name in scope.values:
            return scope.values[name]
        if name in scope.initializers:
            tensor: Tensor | None = None
            try:
                values = self._reader.values(scope.initializers[name], f"initialiser '{name}'")
                wish = name if scope.parent is None and not scope.depth else self._scratch(name)
                tensor = self._network.add_constant(values, wish)
            except (NetworkError, *_EXPECTED) as error:
                self._problems.append(_reason(error))
            scope.values[name] = tensor
            return tensor
        return None if scope.parent is None else self._lookup(name, scope.parent)

    def _scratch(self, wanted: str) -> str:
        """A name that no value of the model has; numbered here, as unrolled bodies ask often."""
        self._wishes[wanted] = count = self._wishes.get(wanted, 0) + 1
        name = wanted if count == 1 else f"{wanted}.{count}"
        while name in self._value_names:
            name += "_"
        return name

    # --- nodes ---------------------------------------------------------------------------

    def _import_node(
        self, index: int, node: onnx.NodeProto, scope: Scope, read: frozenset[str]
    ) -> None:
        where = scope.where + node_title(index, node)
        results: Sequence[Value | None] = ()
        function = self._functions.get((domain_of(node.domain), node.op_type, node.overload))
        is_control_flow = node.op_type in CONTROL_FLOW and not domain_of(node.domain)
        support = Support(0, None, None, ())
        creator = self._plugins.find("onnx", node.op_type, domain_of(node.domain))
        if creator is not None:
            rule = plugin_rule(creator, node.op_type, domain_of(node.domain))
            function, is_control_flow, support = None, False, Support(0, rule, None, ())
        elif function is None and not is_control_flow:
            support = node_support(node, scope.opsets)
        self._num_nodes += 1
        if scope.depth and self._num_nodes > _MAX_NODES:
            raise NetworkError(f"loops and functions unroll to more than {_MAX_NODES:,} nodes")
        for text in support.problems:
            self._refused.setdefault(text, []).append(where)
        inputs = [self._lookup(n, scope) if n else None for n in node.input]
        complete = all(t is not None or not n for t, n in zip(inputs, node.input, strict=True))
        if complete and not support.problems and self._captures_known(node, scope):
            try:
                wanted = tuple(bool(n) and n in read for n in node.output)
                if is_control_flow:
                    results = self._control_flow(node, inputs, scope, where, wanted)
                elif support.rule is not None:
                    results = self._translate(node, support, inputs, wanted, where)
                else:
                    results = self._expand(node, function, support, inputs, scope, where)
            except (NetworkError, *_EXPECTED) as error:
                _LOGGER.debug("%s", where, exc_info=error)
                text = _reason(error)
                self._problems.append(text if where in text else f"{where}: {text}")
                results = ()
            else:
                for number, is_read in enumerate(wanted):
                    if is_read and (number >= len(results) or results[number] is None):
                        if is_control_flow or support.rule is None:
                            continue  # the reason was reported from inside
                        self._problems.append(
                            f"{where}: output {number} ('{node.output[number]}') is not supported; "
                            "leave it out"
                        )
        for number, name in enumerate(node.output):
            if name:
                value = results[number] if number < len(results) else None
                scope.values[name] = value
                if isinstance(value, Tensor) and not scope.depth:
                    self._rename(value, name)

    def _captures_known(self, node: onnx.NodeProto, scope: Scope) -> bool:
        return all(self._lookup(name, scope) is not None for name in names_read(node))

    def _translate(
        self,
        node: onnx.NodeProto,
        support: Support,
        inputs: list[Value | None],
        wanted: tuple[bool, ...],
        where: str,
    ) -> Sequence[Value | None]:
        if support.rule is None:
            raise NetworkError("no rule")
        view = Node(
            node, support.version, where, inputs, self._network, self._reader, self._scratch, wanted
        )
        found = support.rule.translate(view)
        if view.unread:
            raise NetworkError(f"attribute {', '.join(sorted(view.unread))} is not supported here")
        self._kept += view.created
        self._created |= {id(t) for t in view.created}
        return [found] if isinstance(found, Value) else found

    def _rename(self, tensor: Tensor, name: str) -> None:
        if id(tensor) not in self._created:
            return
        self._created.discard(id(tensor))
        tensor.name = self._network.unique_name(name)
        if tensor.producer is not None and tensor.producer.outputs[0] is tensor:
            tensor.producer.name = tensor.name

    def _control_flow(
        self,
        node: onnx.NodeProto,
        inputs: list[Value | None],
        scope: Scope,
        where: str,
        wanted: tuple[bool, ...],
    ) -> Sequence[Value | None]:
        def import_graph(
            graph: onnx.GraphProto, values: Sequence[Value], name: str
        ) -> list[Value | None]:
            inner = self._inner(
                scope, f"{where} > {name}", scope.opsets, self._initializers(graph), scope
            )
            if len(graph.input) != len(values):
                raise NetworkError(
                    f"the body takes {len(graph.input)} inputs, the node gives {len(values)}"
                )
            for info, value in zip(graph.input, values, strict=True):
                inner.values[info.name] = value
            return self._import_body(graph.node, [o.name for o in graph.output], inner)

        opset = scope.opsets.get("", 1)
        try:
            schema = onnx.defs.get_schema(node.op_type, opset, "")
        except onnx.defs.SchemaError as error:
            raise NetworkError(f"{node.op_type} is no operator of opset {opset}") from error
        view = Node(
            node, int(schema.since_version), where, inputs, self._network, self._reader,
            self._scratch, wanted,
        )  # fmt: skip
        results = ControlFlow(view, import_graph).translate()
        self._kept += view.created
        self._created |= {id(t) for t in view.created}
        return results

    def _expand(
        self,
        node: onnx.NodeProto,
        function: onnx.FunctionProto | None,
        support: Support,
        inputs: list[Value | None],
        scope: Scope,
        where: str,
    ) -> list[Value | None]:
        attributes = list(node.attribute)
        if function is None:
            schema = support.schema
            if schema is None:
                raise NetworkError("no rule and no function body")
            opset = scope.opsets.get(domain_of(node.domain), 0)
            function = schema_body(node, schema, opset, inputs)
            attributes += [
                a.default_value
                for a in schema.attributes.values()
                if a.default_value.name and a.name not in {n.name for n in node.attribute}
            ]
        opsets = {**scope.opsets, **opset_versions(function.opset_import)}
        inner = self._inner(scope, f"{where} > ", opsets, {}, None)
        for number, name in enumerate(function.input):
            tensor = inputs[number] if number < len(inputs) else None
            if tensor is not None:
                inner.values[name] = tensor
        nodes = bound_nodes(function, attributes)
        absent = set(function.input) - set(inner.values)
        for body_node in nodes:  # an input left out is left out inside, too
            for number, name in enumerate(body_node.input):
                if name in absent:
                    body_node.input[number] = ""
        wanted = list(function.output)[: len(node.output)]
        return self._import_body(nodes, wanted, inner)

    def _inner(
        self,
        scope: Scope,
        where: str,
        opsets: Mapping[str, int],
        initializers: Mapping[str, onnx.TensorProto | onnx.SparseTensorProto],
        parent: Scope | None,
    ) -> Scope:
        if scope.depth + 1 > _MAX_DEPTH:
            raise NetworkError(f"functions or branches nest deeper than {_MAX_DEPTH} levels")
        return Scope(opsets, initializers, where, parent, scope.depth + 1)

    def _import_body(
        self, nodes: Sequence[onnx.NodeProto], wanted: Sequence[str], scope: Scope
    ) -> list[Value | None]:
        plan = schedule(nodes, wanted, scope)
        self._problems += plan.problems
        for index in plan.order:
            self._import_node(index, nodes[index], scope, plan.read)
        return [self._lookup(name, scope) for name in wanted]

    # --- outputs -------------------------------------------------------------------------

    def _mark_outputs(self, wanted: Sequence[str], scope: Scope) -> None:
        if not wanted:
            self._problems.append("the graph has no outputs; name some with --outputs")
        for name in dict.fromkeys(wanted):
            if not scope.knows(name):
                known = sorted(n for node in self._graph.node for n in node.output if n)
                self._problems.append(
                    f"output '{name}' is no value of the graph; the last ones are: "
                    + (", ".join(known[-8:]) or "none")
                )
                continue
            tensor = self._lookup(name, scope)
            if tensor is None:
                continue  # its own problem has been reported
            try:
                if not isinstance(tensor, Tensor):
                    raise NetworkError(
                        f"it is {value_text(tensor)}; a plan's outputs are tensors: take it apart "
                        "in the model (SequenceAt, OptionalGetElement)"
                    )
                self._mark(tensor, name, wanted)
            except NetworkError as error:
                self._problems.append(f"output '{name}': {error}")

    def _mark(self, tensor: Tensor, name: str, wanted: Sequence[str]) -> None:
        network = self._network
        if tensor in network.inputs and tensor.name == name:
            raise NetworkError("it is an input as well; a network must compute its outputs")
        is_own = tensor.producer is not None and tensor not in network.outputs
        if tensor.name == name:
            if tensor.producer is None:  # a constant: the output takes its name
                tensor.name = network.unique_name(f"{name}:value")
                tensor = self._copy(tensor, f"{name}:copy")
                tensor.name = name
        elif not is_own or tensor.name in wanted:
            tensor = self._copy(tensor, name)
        network.mark_output(tensor, name)

    def _copy(self, tensor: Tensor, name: str) -> Tensor:
        layer = self._network.add_layer(
            "pointwise", PointwiseParams(Input(0)), [tensor], name, origin=f"ONNX output '{name}'"
        )
        return layer.outputs[0]


def scope_with(scope: Scope, names: Sequence[str]) -> Scope:
    """A scope that also knows the given names; used before their tensors exist."""
    return Scope(scope.opsets, scope.initializers, values=dict.fromkeys(names))


def _titles(nodes: Sequence[str]) -> str:
    """The first of some nodes, and all others up to a bound that no reader gets past."""
    if len(nodes) == 1:
        return nodes[0]
    others = ", ".join(nodes[1:_MAX_TITLES])
    more = f" and {len(nodes) - _MAX_TITLES} more" if len(nodes) > _MAX_TITLES else ""
    return f"{nodes[0]} ({len(nodes)} nodes; also {others}{more})"


def _reason(error: Exception) -> str:
    if isinstance(error, NetworkError):
        return str(error)
    return f"it cannot be translated ({type(error).__name__}: {error}); the node is malformed"
