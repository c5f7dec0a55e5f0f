"""`import_caffe`: a prototxt and its caffemodel become a Network, by the rules of BVLC Caffe."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from builder_host.errors import ImportModelError, NetworkError
from builder_host.importers.caffe import schema
from builder_host.importers.caffe.graph import Graph, Node, Version
from builder_host.importers.caffe.layer import CaffeLayer, identity_params
from builder_host.importers.caffe.net_state import NetState, net_state
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.importers.caffe.prototxt import Prototxt, read_prototxt
from builder_host.importers.caffe.registry import converters
from builder_host.importers.caffe.sources import (
    TRAINING_TYPES,
    missing_shape_text,
    stated_shape,
)
from builder_host.importers.caffe.upgrade import upgraded
from builder_host.importers.caffe.weight_source import WeightSource
from builder_host.importers.caffe.weights import read_caffemodel
from builder_host.importers.spelling import nearest
from builder_host.network.network import Network, Tensor
from builder_host.plugins.registry import (
    Creator,
    PluginNode,
    PluginRegistry,
    created,
    float32_weights,
)

__all__ = ["import_caffe"]

_log = logging.getLogger(__name__)


def import_caffe(
    prototxt: str | Path,
    caffemodel: str | Path | None = None,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] | None = None,
    phase: str = "TEST",
    stages: Sequence[str] = (),
    level: int = 0,
    random_seed: int = 0,
    plugins: PluginRegistry | None = None,
) -> Network:
    """Import a Caffe network; float32, batch explicit, shapes static.

    Args:
        prototxt: network file: `layer` or V1 `layers` blocks, deploy or train_val.
        caffemodel: weights, matched by layer name. Without it weights are random, scaled by
            fan-in, and depend on `random_seed` and layer names alone: for timing only.
        shapes: shape per input blob, batch included; needed for data layers, overrides what
            the file states.
        outputs: blobs to mark as network outputs; default those that no layer reads. Layers
            that no output depends on are left out. A blob stands for its last state (in-place
            layers overwrite); `blob@layer` is its state after that layer, and the name of a
            layer is its first top.
        phase: TRAIN or TEST, for the include and exclude rules of layers.
        stages: for the same rules; added to those of the file.
        level: for the same rules; 0 takes that of the file.
        random_seed: of the weights when there is no caffemodel.
        plugins: asked for each layer type before the built-in ones.

    Returns:
        The network; each layer's origin is `file:line type 'name'`.

    Raises:
        ImportModelError: with every problem found: file, line, layer, type and what to do.
        ValueError: phase is neither TRAIN nor TEST.
    """
    text = read_prototxt(prototxt)
    state = net_state(text.net, phase, stages, level)
    importer = _Import(str(prototxt), text, state, dict(shapes or {}), plugins or PluginRegistry())
    return importer.run(caffemodel, outputs, random_seed)


class _Import:
    """One run of the importer."""

    def __init__(
        self,
        path: str,
        text: Prototxt,
        state: NetState,
        shapes: dict[str, Sequence[int]],
        plugins: PluginRegistry,
    ) -> None:
        self._path = path
        self._plugins = plugins
        self._text = text
        self._shapes = shapes
        self._problems: list[str] = [f"{text.file}:{u.line}: {u}" for u in text.unknown]
        self._tensors: dict[Version, Tensor | None] = {}  # None: its maker had a problem
        self._network = Network(text.net.name or Path(text.file).stem)
        self._left_out: dict[str, str] = {}  # blob: origin of a layer that the rules exclude
        nodes = [*self._net_inputs(), *self._layers(state)]
        self._graph = Graph(nodes, self._left_out)

    def run(
        self, caffemodel: str | Path | None, outputs: Sequence[str] | None, random_seed: int
    ) -> Network:
        """Convert every needed layer; raise one report when anything is wrong."""
        source = WeightSource(self._read_weights(caffemodel), random_seed)
        self._problems += self._graph.problems
        wanted = self._wanted(outputs)
        self._graph.mark_needed([version for _, version in wanted])
        self._check_shape_names()
        for node in self._graph.nodes:
            if node.is_needed:
                self._node(node, source)
        if not self._problems:
            self._finish(wanted)
        if self._problems:
            report = sorted(dict.fromkeys(self._problems), key=self._line)
            raise ImportModelError(self._path, report)
        return self._network

    def _line(self, problem: str) -> int:
        """Line that a problem names; 0 for those of the whole file."""
        found = re.match(rf"{re.escape(self._text.file)}:(\d+)", problem)
        return int(found.group(1)) if found else 0

    # --- what the file holds -------------------------------------------------------------

    def _net_inputs(self) -> list[Node]:
        """`input` fields with `input_shape` or groups of four `input_dim`, as Input layers."""
        net = self._text.net
        names = list(net.input)
        dims = list(net.input_dim)
        shapes: list[tuple[int, ...] | None] = [None] * len(names)
        if net.input_shape:
            shapes = [tuple(s.dim) for s in net.input_shape]
        elif dims:
            shapes = [tuple(dims[i : i + 4]) for i in range(0, len(dims), 4)]
        if len(shapes) != len(names) or len(dims) % 4:
            what = (
                f"{len(net.input_shape)} input_shape"
                if net.input_shape
                else (f"{len(dims)} input_dim (four for each input)")
            )
            line = self._text.input_lines[0] if self._text.input_lines else 1
            self._problems.append(
                f"{self._text.file}:{line}: {len(names)} input but {what}; make them agree"
            )
            shapes = [None] * len(names)
        nodes = []
        for name, shape, line in zip(names, shapes, self._text.input_lines, strict=True):
            message = schema.message_class("LayerParameter")(name=name, type="Input", top=[name])
            if shape is not None:
                message.input_param.shape.add().dim.extend(shape)
            nodes.append(Node(message, f"{self._text.file}:{line} input '{name}'", []))
        return nodes

    def _layers(self, state: NetState) -> list[Node]:
        """Layers that the state includes, V1 layers in today's form, training measures apart."""
        nodes = []
        for entry in self._text.layers:
            message = upgraded(entry.message) if entry.is_v1 else entry.message
            origin = f"{self._text.file}:{entry.line} {message.type or 'layer'} '{message.name}'"
            if not message.type:
                self._problems.append(f"{origin}: has no type; state one")
                continue
            try:
                is_in = state.includes(message)
            except ValueError as error:
                self._problems.append(f"{origin}: {error}")
                continue
            if is_in:
                nodes.append(Node(message, origin, entry.unknown, entry))
                if message.type in TRAINING_TYPES:
                    _log.info("%s: left out, it serves training only", origin)
            else:
                self._left_out.update(dict.fromkeys(message.top, origin))
        return nodes

    def _read_weights(self, caffemodel: str | Path | None) -> Any:
        if caffemodel is None:
            return None
        try:
            return read_caffemodel(caffemodel)
        except ImportModelError as error:
            self._problems += [f"{caffemodel}: {problem}" for problem in error.problems]
            return None

    def _wanted(self, outputs: Sequence[str] | None) -> list[tuple[str, Version]]:
        if outputs is None:
            found = self._graph.default_outputs()
            if not found:
                self._problems.append(f"{self._text.file}: no layer makes an output")
            return found
        wanted = []
        for name in dict.fromkeys(outputs):
            try:
                wanted.append((name, self._graph.find_output(name)))
            except LayerProblem as problem:
                self._problems.append(f"{self._text.file}: {problem}")
        return wanted

    def _check_shape_names(self) -> None:
        known = [v.blob for node in self._graph.nodes if node.is_source for v in node.tops]
        for name in self._shapes:
            if name not in known:
                self._problems.append(
                    f"{self._text.file}: shapes names '{name}', which is no input"
                    f"{nearest(name, known)}; inputs: {', '.join(known) or 'none'}"
                )

    # --- conversion ----------------------------------------------------------------------

    def _node(self, node: Node, source: WeightSource) -> None:
        creator = self._plugins.find("caffe", node.message.type)
        is_known = creator is None and (not node.is_source or node.message.type == "Input")
        if is_known:  # how other sources read data, and what plugins are told, is theirs
            self._problems += [
                f"{self._text.file}:{u.line} {node.message.type} '{node.message.name}': {u}"
                for u in node.unknown
            ]
        if node.is_source and creator is None:
            self._add_inputs(node)
            return
        for version in node.tops:
            self._tensors[version] = None
        convert = converters().get(node.message.type)
        if creator is None and convert is None:
            self._problems.append(f"{node.origin}: {_unsupported(node.message.type)}")
            return
        bottoms = self._bottoms(node)
        if bottoms is None:
            return  # what is missing has its own line in the report
        layer = CaffeLayer(
            node.message,
            node.origin,
            bottoms,
            [v.blob if v.is_last else f"{v.blob}@{node.message.name}" for v in node.tops],
            self._network,
            source,
        )
        try:
            if creator is not None:
                self._add_plugin(node, layer, creator)
            elif convert is not None:
                convert(layer)
        except LayerProblem as problem:
            self._problems.append(f"{node.origin}: {problem}")
        except NetworkError as error:
            rule = str(error).partition(f"({node.origin}): ")[2]
            self._problems.append(f"{node.origin}: {rule or error}")
        else:
            self._take_tops(node, layer)

    def _add_plugin(self, node: Node, layer: CaffeLayer, creator: Creator) -> None:
        """A plugin layer; the blobs of the file are constant inputs behind the bottoms."""
        weights = float32_weights(layer.source.stored(layer.name))
        fields = self._text.fields(node.entry) if node.entry is not None else {}
        seen = PluginNode(
            layer.name, node.message.type, fields, tuple(t.type for t in layer.bottoms), weights
        )
        made = self._network.add_plugin(
            created(creator, seen),
            [*layer.bottoms, *weights],
            layer.name,
            output_names=layer.top_names,
            origin=layer.origin,
        )
        layer.tops.update(enumerate(made.outputs))

    def _bottoms(self, node: Node) -> list[Tensor] | None:
        versions = node.bottoms[:1] if node.message.type == "SoftmaxWithLoss" else node.bottoms
        found = [self._tensors[v] if v is not None else None for v in versions]
        present = [t for t in found if t is not None]
        return present if len(present) == len(found) else None

    def _take_tops(self, node: Node, layer: CaffeLayer) -> None:
        for version in node.tops:
            tensor = layer.tops.get(version.top)
            if tensor is None:
                self._problems.append(
                    f"{node.origin}: makes {len(layer.tops)} tops, has {len(node.tops)}; "
                    f"remove top '{version.blob}'"
                )
            self._tensors[version] = tensor

    def _add_inputs(self, node: Node) -> None:
        for version in node.tops:
            self._tensors[version] = None
            if not self._is_read(version):
                continue
            try:
                self._tensors[version] = self._add_input(node, version)
            except (LayerProblem, NetworkError) as problem:
                self._problems.append(f"{node.origin}: {problem}")

    def _is_read(self, version: Version) -> bool:
        """Whether a needed layer reads it; the labels of a data layer are mostly not read."""
        for node in self._graph.nodes:
            if node.is_needed:
                used = node.bottoms[:1] if node.message.type == "SoftmaxWithLoss" else node.bottoms
                if version in used:
                    return True
        return False

    def _add_input(self, node: Node, version: Version) -> Tensor:
        shape = self._shapes.get(version.blob)
        if shape is None:
            shape = stated_shape(node.message, version.top)
        if shape is None:
            raise LayerProblem(missing_shape_text(node.message, version.blob))
        if not shape or min(shape) < 1:
            raise LayerProblem(
                f"shape {tuple(shape)} of '{version.blob}' must have dimensions of at least 1; "
                f"state it with shapes={{'{version.blob}': (N, C, H, W)}}"
            )
        return self._network.add_input(version.blob, [int(d) for d in shape])

    # --- end -----------------------------------------------------------------------------

    def _finish(self, wanted: list[tuple[str, Version]]) -> None:
        """Name tensors after their blobs and mark the outputs."""
        holders = {tensor.name: tensor for tensor in self._network.tensors()}
        for version, tensor in self._tensors.items():
            if tensor is not None and version.is_last:
                _rename(tensor, version.blob, holders)
        for name, version in wanted:
            tensor = self._tensors[version]
            if tensor is None:
                continue
            if tensor.producer is None or tensor in self._network.outputs:
                # An input, a constant, or an output already: it needs a tensor of its own.
                tensor = self._network.add_layer(
                    "pointwise",
                    identity_params(),
                    [tensor],
                    f"{name}/copy",
                    origin=version.writer.origin,
                ).outputs[0]
                holders[tensor.name] = tensor
            _rename(tensor, name, holders)
            self._network.mark_output(tensor)


def _rename(tensor: Tensor, name: str, holders: dict[str, Tensor]) -> None:
    """Give a tensor a name unless another tensor has it.

    A layer may have the same name: tensors and layers are told apart by their place.
    """
    if name not in holders and tensor.producer is not None:
        holders.pop(tensor.name, None)
        holders[name] = tensor
        tensor.name = name


def _unsupported(type_name: str) -> str:
    known = list(converters())
    near = nearest(type_name, known) or f"; supported: {', '.join(known)}"
    return (
        f"layer type '{type_name}' cannot be imported{near}; write a plugin for it "
        "(docs/plugins.md), or cut the network before it with outputs=[...] (--outputs)"
    )
