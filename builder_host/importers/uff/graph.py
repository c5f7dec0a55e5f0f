"""The walk over a file's nodes: what the outputs need, in order, each by its operation.

A node that cannot be converted leaves a problem; nodes that depend on it are still checked for
support, so that one report names everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from builder_host.errors import NetworkError
from builder_host.expressions import Input
from builder_host.importers.spelling import nearest
from builder_host.importers.uff.inputs import (
    AxisOrder,
    has_channels_last,
    input_dtype,
    input_shape,
)
from builder_host.importers.uff.node import NodeView, Value, plain_value
from builder_host.importers.uff.orders import Order
from builder_host.importers.uff.problem import NodeProblem
from builder_host.importers.uff.reader import UffModel, UffNode, constant_values
from builder_host.importers.uff.registry import converters
from builder_host.network.evaluate import evaluate_network
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.network import NUMPY_OF_DTYPE, Network, Tensor
from builder_host.plugins.registry import Creator, PluginNode, PluginRegistry, created

MAX_FOLDED_ELEMS = 1 << 25  # a file of a few bytes can ask for any product of its constants
_SOURCES = ("Const", "Input", "MarkOutput")
_CHANNELS_LAST = (0, 2, 3, 1)
# Attributes that say nothing about what a node computes.
_IGNORED = frozenset({"inputs_orders", "dtype"})


class GraphImporter:
    """Converts one model into one network; problems are collected in `problems`."""

    def __init__(
        self,
        model: UffModel,
        shapes: Mapping[str, Sequence[int]],
        order: AxisOrder,
        plugins: PluginRegistry,
    ) -> None:
        """Remember the model; `run` does the work."""
        self._plugins = plugins
        self.network = Network("uff")
        self.problems: list[str] = []
        self._model = model
        self._shapes = shapes
        self._order: AxisOrder = order
        self._turned: dict[tuple[Tensor, Order], Tensor] = {}
        self._num_folded = 0  # elements that constants were computed to
        self._values: dict[str, Value | None] = {}  # None: could not be converted

    def run(self, outputs: Sequence[str] | None) -> None:
        """Convert everything that the outputs (default: those of the file) need."""
        wanted = list(dict.fromkeys(self._model.outputs if outputs is None else outputs))
        if not wanted:
            self.problems.append("the file marks no output; name some with outputs (--outputs)")
        wanted = [name for name in wanted if self._is_known(name, "output")]
        needed = self._sorted(wanted)
        self._check_shape_names()
        for name in self._model.nodes:  # inputs in the file's order, whatever reads them first
            if name in needed and self._model.nodes[name].operation == "Input":
                self._convert(self._model.nodes[name])
        for name in needed:
            if name not in self._values:
                self._convert(self._model.nodes[name])
        if not self.problems:
            for name in wanted:
                self._mark(name)

    def _is_known(self, name: str, what: str) -> bool:
        if name in self._model.nodes:
            return True
        self.problems.append(
            f"{what} '{name}' is no node of the file{nearest(name, self._model.nodes)}"
        )
        return False

    def _check_shape_names(self) -> None:
        inputs = [n.id for n in self._model.nodes.values() if n.operation == "Input"]
        for name in self._shapes:
            if name not in inputs:
                self.problems.append(
                    f"shape of '{name}', which is no input{nearest(name, inputs)}; "
                    f"inputs: {', '.join(inputs) or 'none'}"
                )

    # --- order ---------------------------------------------------------------------------

    def _sorted(self, wanted: Sequence[str]) -> dict[str, None]:
        """Nodes that `wanted` depend on, each behind its inputs; as an ordered set."""
        done: dict[str, None] = {}
        open_nodes: set[str] = set()
        missing: dict[str, str] = {}
        stack = [(name, False) for name in reversed(wanted)]
        while stack:
            name, is_ready = stack.pop()
            if is_ready:
                open_nodes.discard(name)
                done[name] = None
                continue
            if name in done or name in open_nodes:
                continue
            open_nodes.add(name)
            stack.append((name, True))
            node = self._model.nodes[name]
            for source in reversed(node.inputs):
                if source not in self._model.nodes:
                    missing.setdefault(source, node.title)
                elif source in open_nodes:
                    self.problems.append(f"{node.title}: depends on itself through '{source}'")
                else:
                    stack.append((source, False))
        self.problems += [
            f"{title}: input '{source}' is no node of the file; it was cut short"
            for source, title in missing.items()
        ]
        return done

    # --- nodes ---------------------------------------------------------------------------

    def _convert(self, node: UffNode) -> None:
        self._values[node.id] = None
        try:
            if node.problem:
                raise NodeProblem(node.problem)
            if node.operation == "Input":
                self._values[node.id] = self._input(node)
            elif node.operation == "Const":
                self._values[node.id] = self._constant(node)
            else:
                self._values[node.id] = self._operation(node)
        except NodeProblem as problem:
            self.problems.append(f"{node.title}: {problem}")
        except NetworkError as error:
            rule = str(error).partition(f"({node.title}): ")[2]
            self.problems.append(f"{node.title}: {rule or error}")

    def _input(self, node: UffNode) -> Value:
        shape, axes = input_shape(node, self._shapes, self._order, self._model)
        return Value(self.network.add_input(node.id, shape, input_dtype(node)), axes)

    def _constant(self, node: UffNode) -> Value:
        for name in ("dtype", "shape", "values"):
            if node.fields.get(name) is None:
                raise NodeProblem(f"field '{name}' is missing; the file is damaged")
        shape: Any = node.fields["shape"]
        if not isinstance(shape, tuple):
            raise NodeProblem(f"field 'shape' is {shape!r}, must be whole numbers")
        values = constant_values(str(node.fields["dtype"]), shape, node.fields["values"])
        return plain_value(self.network.add_constant(values, node.id))

    def _operation(self, node: UffNode) -> Value | None:
        convert = converters().get(node.operation)
        creator = self._plugins.find("uff", node.operation)
        if convert is None and creator is None:
            raise NodeProblem(unsupported_text(node))
        values: list[Value] = []
        for source in node.inputs:
            value = self._values.get(source)
            if value is None:
                return None  # what is missing has its own line in the report
            values.append(value)
        if creator is not None:
            return self._plugin(node, values, creator)
        if convert is None:
            return None
        is_known = bool(values) and all(value.tensor.is_constant for value in values)
        network = Network("scratch") if is_known else self.network
        view = NodeView(node, values, network)
        if not is_known:  # names in the scratch network are not those of this one
            view.turned = self._turned
        result = convert(view)
        unread = sorted(set(node.fields) - view.read - _IGNORED)
        if unread:
            listed = ", ".join(f"{name} = {node.fields[name]!r}" for name in unread)
            raise NodeProblem(f"fields that this operation does not have: {listed}")
        if is_known:
            return self._folded(node, result, network)
        self._rename(result.tensor, node.id)
        return result

    def _plugin(self, node: UffNode, values: list[Value], creator: Creator) -> Value:
        """A plugin layer; in a channels-last file it sees images as NCHW, as TensorRT's did."""
        view = NodeView(node, values, self.network)
        is_last = has_channels_last(self._model)
        inputs = [
            view.ordered(i, _CHANNELS_LAST) if is_last and value.rank == 4 else view.plain(i)
            for i, value in enumerate(values)
        ]
        seen = PluginNode(node.id, node.operation, node.fields, tuple(t.type for t in inputs))
        made = self.network.add_plugin(
            created(creator, seen), inputs, f"{node.id}:plugin", origin=node.title
        )
        result = made.outputs[0]
        self._rename(result, node.id)
        if is_last and len(result.shape) == 4:
            return Value(result, _CHANNELS_LAST)
        return plain_value(result)

    def _folded(self, node: UffNode, result: Value, network: Network) -> Value:
        """The result of known inputs, computed now."""
        tensor = result.tensor
        if tensor.values is None:
            self._num_folded += tensor.type.num_elems
            if self._num_folded > MAX_FOLDED_ELEMS:
                raise NodeProblem(
                    f"its constant inputs make {tensor.type.num_elems:,} elements, in all "
                    f"{self._num_folded:,}, the limit is {MAX_FOLDED_ELEMS:,}; the file is damaged"
                )
            values = evaluate_network(network, {}, keep=[tensor])[tensor.name]
            tensor = self.network.add_constant(
                np.asarray(values).astype(NUMPY_OF_DTYPE[tensor.dtype]), node.id
            )
        return Value(tensor, result.axes)

    def _rename(self, tensor: Tensor, name: str) -> None:
        """Name a tensor that this node made, and its layer, after the node."""
        if tensor.producer is not None and tensor.name.startswith(f"{name}:"):
            tensor.name = tensor.producer.name = self.network.unique_name(name)

    # --- outputs -------------------------------------------------------------------------

    def _mark(self, name: str) -> None:
        """Make a node's value an output: images in the caller's order, the rest in the file's."""
        value = self._values[name]
        if value is None:
            return
        node = self._model.nodes[name]
        if node.operation == "MarkOutput":
            self.problems.append(f"output '{name}' marks '{', '.join(node.inputs)}'; name that")
            return
        view = NodeView(node, [value], self.network)
        is_image = value.axes == _CHANNELS_LAST
        tensor = value.tensor if is_image and self._order == "NCHW" else view.plain(0)
        if tensor.producer is None or tensor in self.network.outputs:
            params = PointwiseParams(Input(0))
            tensor = view.add("pointwise", params, [tensor])
        if tensor.name != name:
            holders = {t.name: t for t in self.network.tensors()}
            if name in holders:
                holders[name].name = self.network.unique_name(f"{name}:inner")
            tensor.name = name
        self.network.mark_output(tensor)


def unsupported_text(node: UffNode) -> str:
    """What to do about an operation that nobody converts."""
    near = nearest(node.operation.lstrip("_"), [*converters(), *_SOURCES])
    name = node.operation.removeprefix("_") if node.source else node.operation
    return (
        f"operation '{name}' is not supported{near}; write a plugin for it "
        "(docs/plugins.md), give an output before it (--outputs), or convert the model without it"
    )
