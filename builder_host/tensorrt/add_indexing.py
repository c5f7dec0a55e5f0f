"""`add_*` methods of layers around positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder_host.tensorrt import layers as kinds
from builder_host.tensorrt.enums import GatherMode, ScatterMode, TopKOperation
from builder_host.tensorrt.recorder import Recorder
from runtime_edge.tensorrt.types import DataType

if TYPE_CHECKING:
    from builder_host.tensorrt.network import ITensor


class IndexMethods(Recorder):
    """Part of `INetworkDefinition`; indices come out as INT32 unless `indices_type` says else."""

    def add_topk(
        self,
        input: ITensor,
        op: TopKOperation,
        k: int,
        axes: int,
        indices_type: DataType = DataType.INT32,
    ) -> kinds.ITopKLayer:
        """The k largest or smallest: values and indices."""
        return self.add_kind(
            kinds.ITopKLayer, [input], 2, op=op, k=k, axes=axes, indices_type=indices_type
        )

    def add_gather(self, input: ITensor, indices: ITensor, axis: int) -> kinds.IGatherLayer:
        """Gather along an axis."""
        return self.add_kind(kinds.IGatherLayer, [input, indices], axis=axis)

    def add_gather_v2(
        self, input: ITensor, indices: ITensor, mode: GatherMode
    ) -> kinds.IGatherLayer:
        """Gather along an axis, element by element or by index tuples."""
        return self.add_kind(kinds.IGatherLayer, [input, indices], mode=mode)

    def add_scatter(
        self, data: ITensor, indices: ITensor, updates: ITensor, mode: ScatterMode
    ) -> kinds.IScatterLayer:
        """Scatter element by element or by index tuples."""
        return self.add_kind(kinds.IScatterLayer, [data, indices, updates], mode=mode)

    def add_one_hot(
        self, indices: ITensor, values: ITensor, depth: ITensor, axis: int
    ) -> kinds.IOneHotLayer:
        """Rows with one value where the index is."""
        return self.add_kind(kinds.IOneHotLayer, [indices, values, depth], axis=axis)

    def add_non_zero(
        self, input: ITensor, indices_type: DataType = DataType.INT32
    ) -> kinds.INonZeroLayer:
        """Coordinates of what is not zero; as many columns as there can be, unused ones -1."""
        return self.add_kind(kinds.INonZeroLayer, [input], indices_type=indices_type)

    def add_nms(
        self,
        boxes: ITensor,
        scores: ITensor,
        max_output_boxes_per_class: ITensor,
        indices_type: DataType = DataType.INT32,
    ) -> kinds.INMSLayer:
        """Selection of boxes: rows, and how many of them are used."""
        return self.add_kind(
            kinds.INMSLayer,
            [boxes, scores, max_output_boxes_per_class],
            2,
            indices_type=indices_type,
        )

    def add_grid_sample(self, input: ITensor, grid: ITensor) -> kinds.IGridSampleLayer:
        """Interpolation at the points of a grid."""
        return self.add_kind(kinds.IGridSampleLayer, [input, grid])

    def add_reverse_sequence(
        self, input: ITensor, sequence_lens: ITensor
    ) -> kinds.IReverseSequenceLayer:
        """Sequences backwards."""
        return self.add_kind(kinds.IReverseSequenceLayer, [input, sequence_lens])
