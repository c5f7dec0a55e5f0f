"""Layers around positions: gathers, scatters, sorting, selection of boxes, sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from builder_host.errors import NetworkError
from builder_host.network.network import Network, Tensor
from builder_host.tensorrt.enums import (
    BoundingBoxFormat,
    GatherMode,
    InterpolationMode,
    SampleMode,
    ScatterMode,
    TopKOperation,
)
from builder_host.tensorrt.layers.base import (
    ILayer,
    known_ints,
    optional,
    required,
    single_axis,
)
from builder_host.tensorrt.layers.translated import through_onnx
from planformat.datatypes import DataType as PlanType
from runtime_edge.tensorrt.types import PLAN_TYPES, DataType

_PADDING_OF = {
    SampleMode.FILL: "zeros",
    SampleMode.CLAMP: "border",
    SampleMode.REFLECT: "reflection",
}


@dataclass(eq=False, kw_only=True)
class ITopKLayer(ILayer):
    """The k largest or smallest along the axis of a bit mask: values, and indices.

    Input 1, if given, is k.
    """

    op: TopKOperation
    k: int
    axes: int
    indices_type: DataType = DataType.INT32

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a top-k."""
        axis = single_axis(self.axes, self) + shift
        counts = known_ints(xs, 1, self, "k") or (self.k,)
        layer = net.add_top_k(
            required(xs, 0, self),
            counts[0],
            axis,
            largest=self.op is TopKOperation.MAX,
            name=self.name,
        )
        return [layer.outputs[0], _indices(net, layer.outputs[1], self.indices_type, self.name)]


@dataclass(eq=False, kw_only=True)
class IGatherLayer(ILayer):
    """Slices by index: along an axis, element by element, or by index tuples."""

    axis: int = 0
    mode: GatherMode = GatherMode.DEFAULT
    num_elementwise_dims: int = 0

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a gather."""
        data, indices = required(xs, 0, self), required(xs, 1, self)
        axis = self.axis + shift if self.axis >= 0 else self.axis
        if self.mode is GatherMode.ELEMENT:
            return net.add_gather_elements(data, indices, axis, name=self.name).outputs
        if self.mode is GatherMode.ND:
            together = self.num_elementwise_dims + shift
            return net.add_gather_nd(data, indices, together, name=self.name).outputs
        if shift:  # all items of the batch read the same places
            if not indices.is_constant:
                raise NetworkError(
                    f"'{self.name}': indices that differ from item to item of an implicit batch "
                    "are not supported; use a network with EXPLICIT_BATCH"
                )
            shape = indices.shape[1:]
            indices = net.add_reshape(indices, shape, name=f"{self.name}.indices").output
        elif self.num_elementwise_dims:
            return self._row_by_row(net, data, indices, axis)
        return net.add_gather(data, indices, axis, name=self.name).outputs

    def _row_by_row(self, net: Network, data: Tensor, indices: Tensor, axis: int) -> list[Tensor]:
        """Row i of the indices reads row i of the data."""
        count = self.num_elementwise_dims
        axis = axis % data.type.rank
        if count != 1 or axis < 1 or indices.type.rank < 1 or indices.shape[0] != data.shape[0]:
            raise NetworkError(
                f"'{self.name}': num_elementwise_dims={count} with axis {axis}, data {data.type} "
                f"and indices {indices.type}; one common leading dimension is supported"
            )
        order = [0, axis, *(i for i in range(1, data.type.rank) if i != axis)]
        moved = net.add_transpose(data, order, name=f"{self.name}.rows").output
        tuples = net.add_reshape(indices, (*indices.shape, 1), name=f"{self.name}.tuples").output
        y = net.add_gather_nd(moved, tuples, 1, name=f"{self.name}.gathered").output
        places = indices.type.rank - 1  # stand where the axis was
        back = [0, *(1 + places + i for i in range(axis - 1)), *range(1, 1 + places)]
        back += range(places + axis, y.type.rank)
        return net.add_transpose(y, back, name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class IScatterLayer(ILayer):
    """A copy of the data with updates at indices, element by element or by index tuples."""

    mode: ScatterMode
    axis: int = 0

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a scatter."""
        data, indices, updates = (required(xs, i, self) for i in range(3))
        if shift:
            raise NetworkError(f"'{self.name}': add_scatter needs a network with EXPLICIT_BATCH")
        if self.mode is ScatterMode.ND:
            return net.add_scatter_nd(data, indices, updates, name=self.name).outputs
        return net.add_scatter_elements(data, indices, updates, self.axis, name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class IOneHotLayer(ILayer):
    """Rows that hold values[1] at the index and values[0] elsewhere, along a new axis."""

    axis: int = -1

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add comparisons with the positions."""
        indices, values, depth = (required(xs, i, self) for i in range(3))
        axis = self.axis + shift if self.axis >= 0 else self.axis
        return through_onnx(net, "OneHot", [indices, depth, values], self.name, axis=axis)


@dataclass(eq=False, kw_only=True)
class INonZeroLayer(ILayer):
    """Coordinates [rank, number of elements] of what is not zero; -1 behind the last."""

    indices_type: DataType = DataType.INT32

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a search."""
        if shift:
            raise NetworkError(f"'{self.name}': add_non_zero needs a network with EXPLICIT_BATCH")
        found = net.add_non_zero(required(xs, 0, self), name=f"{self.name}.found").output
        return [_indices(net, found, self.indices_type, self.name)]


@dataclass(eq=False, kw_only=True)
class INMSLayer(ILayer):
    """Non-maximum suppression: rows (batch, class, box), and how many of them are used.

    Boxes [B, N, 4], or [B, N, C, 4] with boxes of their own for each class; scores [B, N, C]. There
    are as many rows as could be selected at most; unused ones hold -1. Inputs 3 and 4, if given,
    are the thresholds of overlap and score.
    """

    bounding_box_format: BoundingBoxFormat = BoundingBoxFormat.CORNER_PAIRS
    topk_box_limit: int = 0
    indices_type: DataType = DataType.INT32

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a selection of boxes."""
        boxes, scores, most = (required(xs, i, self) for i in range(3))
        if boxes.type.rank == 4 and boxes.shape[2] == 1:
            shape: tuple[int, ...] = (*boxes.shape[:2], 4)
            boxes = net.add_reshape(boxes, shape, name=f"{self.name}.shared").output
        own = boxes.shape[2] if boxes.type.rank == 4 else 1  # classes with boxes of their own
        is_known = boxes.type.rank in (3, 4) and scores.type.rank == 3 and boxes.shape[-1] == 4
        if shift or not is_known or own not in (1, scores.shape[2]):
            raise NetworkError(
                f"'{self.name}': boxes {boxes.type} and scores {scores.type}; expected [B, N, 4] "
                "or [B, N, C, 4], and [B, N, C], with an explicit batch"
            )
        candidates = boxes.shape[1] * scores.shape[2]
        if 0 < self.topk_box_limit < candidates:
            raise NetworkError(
                f"'{self.name}': topk_box_limit={self.topk_box_limit}, but all {candidates:,} "
                "boxes of all classes are considered: leave it at 0"
            )
        batch, num_boxes, num_classes = scores.shape
        by_class = net.add_transpose(scores, (0, 2, 1), name=f"{self.name}.scores").output
        if own > 1:  # each class of each item is an item of one class
            order = net.add_transpose(boxes, (0, 2, 1, 3), name=f"{self.name}.order").output
            shape = (batch * own, num_boxes, 4)
            boxes = net.add_reshape(order, shape, name=f"{self.name}.boxes").output
            shape = (batch * own, 1, num_boxes)
            by_class = net.add_reshape(by_class, shape, name=f"{self.name}.rows").output
        inputs = [boxes, by_class, most, optional(xs, 3), optional(xs, 4)]
        is_centred = self.bounding_box_format is BoundingBoxFormat.CENTER_SIZES
        [rows] = through_onnx(
            net, "NonMaxSuppression", inputs, self.name, center_point_box=int(is_centred)
        )
        first = net.add_slice(rows, (0, 0), (rows.shape[0], 1), name=f"{self.name}.batch").output
        zero = np.zeros((1, 1), np.int64)
        used = net.add_elementwise(first, zero, "ge", name=f"{self.name}.used").output
        ones = net.add_cast(used, PlanType.INT32).output
        count = net.add_reduce(ones, "sum", (0, 1), keep_dims=False, name=f"{self.name}.count")
        if own > 1:
            rows = self._split(net, rows, first, used, num_classes)
        return [_indices(net, rows, self.indices_type, self.name), count.output]

    def _split(
        self, net: Network, rows: Tensor, items: Tensor, used: Tensor, num_classes: int
    ) -> Tensor:
        """Rows whose items, which are classes of items, are items and classes; -1 stays."""

        def pointwise(a: Tensor, b: Tensor, op: str) -> Tensor:
            return net.add_elementwise(a, b, op, name=f"{self.name}.{op}").output

        factor = net.add_constant(np.full((1, 1), num_classes, np.int64), f"{self.name}.classes")
        unused = net.add_constant(np.full((1, 1), -1, np.int64), f"{self.name}.unused")
        item = pointwise(items, factor, "div")
        number = pointwise(items, pointwise(item, factor, "mul"), "sub")
        columns = [
            net.add_select(used, column, unused, name=f"{self.name}.select").output
            for column in (item, number)
        ]
        place = (0, 2), (rows.shape[0], 1)
        box = net.add_slice(rows, *place, name=f"{self.name}.box").output
        return net.add_concatenation([*columns, box], 1, name=f"{self.name}.indices").output


@dataclass(eq=False, kw_only=True)
class IGridSampleLayer(ILayer):
    """Interpolation of [N, C, H, W] at the points of a grid [N, Ho, Wo, 2] from -1 to 1."""

    interpolation_mode: InterpolationMode = InterpolationMode.LINEAR
    align_corners: bool = False
    sample_mode: SampleMode = SampleMode.FILL

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a sampling."""
        del shift
        if self.sample_mode not in _PADDING_OF:
            raise NetworkError(
                f"'{self.name}': sample_mode {self.sample_mode.name}; one of "
                f"{', '.join(mode.name for mode in _PADDING_OF)} is supported"
            )
        mode: Any = self.interpolation_mode.value
        padding: Any = _PADDING_OF[self.sample_mode]
        return net.add_grid_sample(
            required(xs, 0, self),
            required(xs, 1, self),
            mode,
            padding=padding,
            align_corners=self.align_corners,
            name=self.name,
        ).outputs


@dataclass(eq=False, kw_only=True)
class IReverseSequenceLayer(ILayer):
    """The first lengths[b] steps of each sequence backwards."""

    batch_axis: int = 1
    sequence_axis: int = 0

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a reversal."""
        if shift:
            raise NetworkError(f"'{self.name}': add_reverse_sequence needs EXPLICIT_BATCH")
        return net.add_reverse_sequence(
            required(xs, 0, self),
            required(xs, 1, self),
            batch_axis=self.batch_axis,
            time_axis=self.sequence_axis,
            name=self.name,
        ).outputs


def _indices(net: Network, x: Tensor, dtype: DataType, name: str) -> Tensor:
    """Positions in the element type that the API gives them."""
    wanted = PLAN_TYPES[dtype]
    return x if x.dtype is wanted else net.add_cast(x, wanted, name=f"{name}.indices").output
