"""Placement: which buffer each tensor lives in, at which offset, with which strides.

Copies that only move data vanish here: the parts of a concatenation are written straight into the
whole, slices read out of it, reshapes share memory, and elementwise results overwrite an operand
that nobody needs any more. A step that cannot be elided stays a copy.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from builder_host.kernels.choice import FamilyChoice
from builder_host.kernels.family import Problem
from builder_host.layouts import Layout, dense_layout
from builder_host.lowering.problems import copy_problem, layer_problem
from builder_host.network.network import Layer, Network, Tensor
from planformat.datatypes import TensorFormat


@dataclass(frozen=True, slots=True)
class View:
    """A tensor inside the buffer of its root tensor: offset in bytes, layout."""

    root: Tensor
    offset_bytes: int
    layout: Layout


@dataclass(frozen=True, slots=True)
class Operation:
    """One problem to solve, with the views of its non-constant tensors.

    Attributes:
        name: layer name; a copy says what it copies.
        layer: the layer it comes from.
        inputs: views of the problem's inputs, None for constants.
        constants: the constant tensor of each input, None for computed ones.
    """

    name: str
    layer: Layer
    problem: Problem
    inputs: tuple[View | None, ...]
    constants: tuple[Tensor | None, ...]
    outputs: tuple[View, ...]


@dataclass(frozen=True, slots=True)
class _Link:
    parent: Tensor
    offset_elems: int
    layout: Layout


class Placement:
    """Views of all computed tensors of a network; see the module's text."""

    def __init__(
        self,
        network: Network,
        formats: Mapping[Tensor, TensorFormat],
        choice: FamilyChoice,
        num_workers: int,
    ) -> None:
        """Elide what can be elided; every decision is checked with the kernel families."""
        self.network = network
        self.choice = choice
        self.num_workers = num_workers
        self._consumers = network.consumers()
        self._fixed = {*network.inputs, *network.outputs}
        self._order = {layer: i for i, layer in enumerate(network.layers)}
        self._links: dict[Tensor, _Link] = {}
        self._dense = {t: dense_layout(t.type, fmt) for t, fmt in formats.items()}
        for layer in reversed(network.layers):
            if layer.kind == "concatenation":
                self._elide_concatenation(layer)
        for layer in network.layers:
            if layer.kind == "slice":
                self._elide_slice(layer)
        for layer in network.layers:
            if layer.kind == "reshape":
                self._elide_reshape(layer)
        for layer in network.layers:
            self._work_in_place(layer)

    # --- what was decided ------------------------------------------------------------------

    def view(self, tensor: Tensor) -> View:
        """Where a computed tensor (or network input) lies."""
        link = self._links.get(tensor)
        if link is None:
            return View(tensor, 0, self._dense[tensor])
        parent = self.view(link.parent)
        offset = link.offset_elems * tensor.dtype.size_bytes
        return View(parent.root, parent.offset_bytes + offset, link.layout)

    def layout(self, tensor: Tensor) -> Layout:
        """Layout of a computed tensor."""
        link = self._links.get(tensor)
        return link.layout if link else self._dense[tensor]

    def buffer_bytes(self, root: Tensor) -> int:
        """Size of the buffer of a root tensor."""
        return self._dense[root].stored_bytes

    def operations(self) -> list[Operation]:
        """Everything that must run, in order."""
        found: list[Operation] = []
        for layer in self.network.layers:
            if layer.kind == "concatenation" and self._has_views(layer):
                found.extend(self._concatenation_copies(layer))
            elif not self._is_elided(layer):
                found.append(self._operation(layer))
        return found

    def _is_elided(self, layer: Layer) -> bool:
        if layer.kind == "reshape":
            return self._shares_memory(layer)
        link = self._links.get(layer.outputs[0])
        return layer.kind == "slice" and link is not None and link.parent is layer.inputs[0]

    def _problem(self, layer: Layer) -> Problem:
        math = self.choice.math_of(layer.name)
        return layer_problem(layer, self.layout, self.num_workers, math)

    def _operation(self, layer: Layer) -> Operation:
        return Operation(
            layer.name,
            layer,
            self._problem(layer),
            tuple(None if t.is_constant else self.view(t) for t in layer.inputs),
            tuple(t if t.is_constant else None for t in layer.inputs),
            tuple(self.view(t) for t in layer.outputs),
        )

    # --- concatenation ---------------------------------------------------------------------

    def _has_views(self, layer: Layer) -> bool:
        """Whether every part of the whole is a view: none starts in the middle of a block."""
        block = self.layout(layer.outputs[0]).format.channel_block
        if block == 1:
            return True
        starts = itertools.accumulate(t.shape[layer.params.axis] for t in layer.inputs[:-1])
        return layer.params.axis != 1 or all(start % block == 0 for start in starts)

    def _parts(self, layer: Layer) -> list[tuple[Tensor, int, Layout]]:
        whole = layer.outputs[0]
        layout = self.layout(whole)
        axis = layer.params.axis
        start = 0
        parts = []
        for tensor in layer.inputs:
            part = Layout(layout.format, tensor.shape, tensor.dtype, layout.strides)
            parts.append((tensor, _axis_offset(layout, axis, start), part))
            start += tensor.shape[axis]
        return parts

    def _elide_concatenation(self, layer: Layer) -> None:
        if not self._has_views(layer):
            return
        for tensor, offset, part in self._parts(layer):
            if (
                not tensor.is_constant
                and tensor not in self._fixed
                and tensor not in self._links
                and tensor.producer is not None
                and layer.inputs.count(tensor) == 1
                and self._dense[tensor].format is part.format
            ):
                self._try_link(tensor, _Link(layer.outputs[0], offset, part))

    def _concatenation_copies(self, layer: Layer) -> list[Operation]:
        whole = self.view(layer.outputs[0])
        copies = []
        for number, (tensor, offset, part) in enumerate(self._parts(layer)):
            if tensor.type.num_elems == 0:
                continue
            place = View(whole.root, whole.offset_bytes + offset * tensor.dtype.size_bytes, part)
            if not tensor.is_constant and self.view(tensor) == place:
                continue
            source = dense_layout(tensor.type) if tensor.is_constant else self.layout(tensor)
            problem = copy_problem(source, part, self.num_workers)
            if tensor.is_constant:
                problem = Problem(
                    problem.kind,
                    problem.params,
                    problem.inputs,
                    (True,),
                    problem.outputs,
                    None,
                    self.num_workers,
                )
            copies.append(
                Operation(
                    f"{layer.name} input {number}",
                    layer,
                    problem,
                    (None if tensor.is_constant else self.view(tensor),),
                    (tensor if tensor.is_constant else None,),
                    (place,),
                )
            )
        return copies

    # --- slice, reshape --------------------------------------------------------------------

    def _elide_slice(self, layer: Layer) -> None:
        source, result = layer.inputs[0], layer.outputs[0]
        if source.is_constant or result in self._fixed or result in self._links:
            return
        link = self._slice_link(layer)
        if link is not None:
            self._try_link(result, link)

    def _slice_link(self, layer: Layer) -> _Link | None:
        source, result = layer.inputs[0], layer.outputs[0]
        layout = self.layout(source)
        params = layer.params
        block = layout.format.channel_block
        if layout.format is not self._dense[result].format or any(s <= 0 for s in params.strides):
            return None
        if block > 1 and (
            params.starts[1] % block or any(s != 1 for s in params.strides) or params.starts[0]
        ):
            return None
        offset = sum(_axis_offset(layout, axis, start) for axis, start in enumerate(params.starts))
        strides = layout.strides
        if block == 1:
            strides = tuple(a * b for a, b in zip(strides, params.strides, strict=True))
        return _Link(source, offset, Layout(layout.format, result.shape, result.dtype, strides))

    def _elide_reshape(self, layer: Layer) -> None:
        source, result = layer.inputs[0], layer.outputs[0]
        if source.is_constant or not self._is_linear_dense(source):
            return
        if self._dense[result].format is not TensorFormat.LINEAR:
            return
        if result not in self._fixed and result not in self._links:
            self._try_link(result, _Link(source, 0, self._dense[result]))
        elif (
            source not in self._fixed
            and source not in self._links
            and self._is_linear_dense(result)
            and source.producer is not None
        ):
            self._try_link(source, _Link(result, 0, self._dense[source]))

    def _is_linear_dense(self, tensor: Tensor) -> bool:
        layout = self.layout(tensor)
        return layout.format is TensorFormat.LINEAR and layout.is_dense

    def _shares_memory(self, layer: Layer) -> bool:
        source, result = layer.inputs[0], layer.outputs[0]
        if source.is_constant:
            return False
        a, b = self.view(source), self.view(result)
        return (
            a.root is b.root
            and a.offset_bytes == b.offset_bytes
            and self._is_linear_dense(source)
            and self._is_linear_dense(result)
        )

    # --- in place --------------------------------------------------------------------------

    def _work_in_place(self, layer: Layer) -> None:
        if layer.kind != "pointwise" and layer.epilogue is None:
            return
        result = layer.outputs[0]
        if result in self._fixed or result in self._links:
            return
        candidates = layer.inputs if layer.kind == "pointwise" else layer.operands
        for tensor in candidates:
            if self._may_overwrite(layer, tensor, result):
                self._links[result] = _Link(tensor, 0, self._dense[result])
                return

    def _may_overwrite(self, layer: Layer, tensor: Tensor, result: Tensor) -> bool:
        if tensor.is_constant or layer.inputs.count(tensor) != 1:
            return False
        if self.layout(tensor) != self._dense[result]:
            return False
        root = self.view(tensor).root
        if root in self._fixed or self.view(tensor).layout != self._dense[root]:
            return False
        others = [t for t in layer.inputs if t is not tensor and not t.is_constant]
        if any(self.view(t).root is root for t in others):
            return False
        now = self._order[layer]
        for other in self._dense:
            if self.view(other).root is root:
                if other in self._fixed or self._born(other) > now:
                    return False
                if any(self._order[y] > now for y in self._consumers.get(other, [])):
                    return False
        return True

    def _born(self, tensor: Tensor) -> int:
        return self._order[tensor.producer] if tensor.producer else -1

    # --- checking --------------------------------------------------------------------------

    def _try_link(self, tensor: Tensor, link: _Link) -> None:
        """Place a tensor inside another if its producer and readers can work with that."""
        before = self._links.get(tensor)
        self._links[tensor] = link
        touched = [y for y in [tensor.producer, *self._consumers.get(tensor, [])] if y]
        for layer in touched:
            if layer.kind in ("concatenation", "reshape", "slice"):
                continue  # these become copies, which any layout allows
            if not self.choice.can_compute(self._problem(layer)):
                if before is None:
                    del self._links[tensor]
                else:
                    self._links[tensor] = before
                return


def _axis_offset(layout: Layout, axis: int, start: int) -> int:
    """Elements from the first one to index `start` along one logical axis."""
    block = layout.format.channel_block
    if axis == 1 and block > 1:
        return start // block * layout.strides[1]
    return start * layout.strides[axis]
