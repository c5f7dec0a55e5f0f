"""`import_tensorflow`: a frozen TensorFlow graph becomes a Network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from builder_host.errors import ImportModelError
from builder_host.importers.tensorflow import schema
from builder_host.importers.tensorflow.folding import input_names, known_values
from builder_host.importers.tensorflow.loops import unrolled
from builder_host.importers.tensorflow.operations import CONVERTERS, NodeSource
from builder_host.importers.tensorflow.tensors import tensor_array
from builder_host.importers.uff.graph import GraphImporter
from builder_host.importers.uff.inputs import AxisOrder, has_channels_last
from builder_host.importers.uff.problem import NodeProblem
from builder_host.importers.uff.reader import MAX_FILE_BYTES, MAX_NODES, UffModel, UffNode
from builder_host.network.network import Network
from builder_host.plugins.registry import PluginRegistry

__all__ = ["import_tensorflow"]

Array = npt.NDArray[Any]


def import_tensorflow(
    path: str | Path,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    order: AxisOrder | None = None,
    outputs: Sequence[str] | None = None,
    plugins: PluginRegistry | None = None,
) -> Network:
    """Import a frozen graph (TensorFlow 1, `.pb`); shapes static, the batch explicit.

    Args:
        path: serialized GraphDef whose variables are constants.
        shapes: shape per input, batch included; images in `order`. A node that is no placeholder
            becomes an input, and what is before it is left out.
        order: of images at inputs and outputs; default: that of the graph's own operations.
        outputs: nodes to make outputs; default those that nothing reads.
        plugins: asked for each operation first, by its name with an underscore in front, as UFF
            writes operations that it does not know.

    Raises:
        ImportModelError: with every problem found: node, operation and what to do.
        ValueError: order is neither NCHW nor NHWC.
    """
    if order not in ("NCHW", "NHWC", None):
        raise ValueError(f"order is '{order}', must be NCHW or NHWC")
    message = _read(Path(path))
    plugins = plugins or PluginRegistry()
    converted = _Conversion(str(path), message, set(shapes or {}), plugins)
    model = converted.model()
    if order is None:
        order = "NHWC" if has_channels_last(model) else "NCHW"
    importer = GraphImporter(model, shapes or {}, order, plugins)
    importer.run(outputs)
    problems = importer.problems
    if problems:
        raise ImportModelError(str(path), list(dict.fromkeys(problems)))
    importer.network.name = Path(path).stem
    return importer.network


def _read(path: Path) -> Any:
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_FILE_BYTES else b""
    except OSError as error:
        raise ImportModelError(str(path), [f"cannot be read: {error.strerror}"]) from error
    if size > MAX_FILE_BYTES:
        raise ImportModelError(
            str(path), [f"has {size:,} bytes, the format ends at {MAX_FILE_BYTES:,}"]
        )
    message = schema.message_class("GraphDef")()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise ImportModelError(
            str(path), [f"the {size:,} bytes are no GraphDef ({error}); another format?"]
        ) from error
    if not message.node or not all(node.name and node.op for node in message.node):
        text = f"the {size:,} bytes hold no graph of named nodes; is it a frozen graph?"
        raise ImportModelError(str(path), [text])
    if len(message.node) > MAX_NODES:
        text = f"has {len(message.node)} nodes, the limit is {MAX_NODES}"
        raise ImportModelError(str(path), [text])
    return message


class _Conversion:
    """Nodes of a GraphDef as UFF nodes."""

    def __init__(self, path: str, message: Any, cuts: set[str], plugins: PluginRegistry) -> None:
        self._path = path
        self._cuts = cuts
        self._plugins = plugins
        read = {name.partition(":")[0] for node in message.node for name in input_names(node)}
        self._ends = [node.name for node in message.node if node.name not in read]
        self._known = known_values([node for node in message.node if node.name not in cuts])
        self._messages, self._failed = unrolled(message.node, self._known.values)
        # What unrolling made has constants, too.
        made = [node for node in self._messages if node.name not in self._known.values]
        own = known_values([node for node in made if node.op == "Const"])
        self._constants = {**self._known.values, **own.values}
        self._refused = {**own.refused, **self._known.refused}

    def model(self) -> UffModel:
        """All nodes; outputs are those that nothing reads."""
        nodes: dict[str, UffNode] = {}
        problems: list[str] = []
        for message in self._messages:
            source = NodeSource(message, input_names(message), self._constants, self._refused)
            for node in self._converted(source):
                if node.id in nodes:
                    problems.append(f"two nodes are named '{node.id}'; the file is damaged")
                nodes[node.id] = node
        if problems:
            raise ImportModelError(self._path, problems)
        self._add_further_outputs(nodes)
        sources = ("Const", "Input")
        # What ends inside a loop is in no node of the unrolled graph.
        ends = [n for n in self._ends if n in nodes and nodes[n].operation not in sources]
        return UffModel(self._path, nodes, tuple(ends))

    def _add_further_outputs(self, nodes: dict[str, UffNode]) -> None:
        """Nodes for outputs `name:1` .. that something reads and no conversion makes."""
        for node in list(nodes.values()):
            for name in node.inputs:
                base, _, number = name.rpartition(":")
                if name in nodes or base not in nodes or not number.isdigit():
                    continue
                maker = nodes[base]
                is_known = not maker.operation.startswith("_") and not maker.problem
                text = f"its output {number} cannot be imported" if is_known else maker.problem
                nodes[name] = replace(maker, id=name, problem=text)

    def _converted(self, source: NodeSource) -> list[UffNode]:
        name, op = source.name, str(source.message.op)
        if name in self._cuts and op != "Placeholder":
            return [UffNode(name, "Input", (), {}, f"TensorFlow node '{name}'")]
        if name in self._failed:
            text = self._failed[name]
            return [UffNode(name, op, (), {}, f"TensorFlow node '{name}'", text)]
        convert = CONVERTERS.get(op)
        if convert is None and name in self._constants:
            source.add_constant(self._constants[name])
            return source.made
        title = f"TensorFlow node '{name}'"
        if convert is None or self._plugins.find("uff", f"_{op}") is not None:
            return [UffNode(name, f"_{op}", tuple(source.inputs), _attributes(source), title)]
        try:
            convert(source)
        except NodeProblem as problem:
            # Reported only if an output needs the node.
            return [UffNode(name, op, tuple(source.inputs), {}, title, str(problem))]
        return source.made


def _attributes(source: NodeSource) -> dict[str, Any]:
    """Attributes that plugins can be given: numbers, truth, text, lists of numbers."""
    found: dict[str, Any] = {}
    for name, value in sorted(source.message.attr.items()):
        kind = value.WhichOneof("value")
        if kind in ("i", "f", "b"):
            found[name] = getattr(value, kind)
        elif kind == "s":
            found[name] = value.s.decode("utf-8", "replace")
        elif kind == "list" and (value.list.i or value.list.f):
            found[name] = tuple(value.list.i) or tuple(value.list.f)
        elif kind == "tensor":
            found[name] = np.ravel(tensor_array(value.tensor))
    return found
