"""`add_*` methods of layers that move or make data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from builder_host.tensorrt import layers as kinds
from builder_host.tensorrt.enums import FillOperation
from builder_host.tensorrt.recorder import Recorder
from runtime_edge.tensorrt.types import DataType

if TYPE_CHECKING:
    from builder_host.tensorrt.network import ITensor


class MovementMethods(Recorder):
    """Part of `INetworkDefinition`."""

    def add_concatenation(self, inputs: Sequence[ITensor]) -> kinds.IConcatenationLayer:
        """Concatenation."""
        return self.add_kind(kinds.IConcatenationLayer, list(inputs))

    def add_padding_nd(
        self, input: ITensor, pre_padding: Sequence[int], post_padding: Sequence[int]
    ) -> kinds.IPaddingLayer:
        """Padding of the last two dimensions."""
        return self.add_kind(
            kinds.IPaddingLayer,
            [input],
            pre_padding=tuple(pre_padding),
            post_padding=tuple(post_padding),
        )

    add_padding = add_padding_nd

    def add_shuffle(self, input: ITensor) -> kinds.IShuffleLayer:
        """Shuffle."""
        return self.add_kind(kinds.IShuffleLayer, [input])

    def add_squeeze(self, input: ITensor, axes: ITensor) -> kinds.ISqueezeLayer:
        """Without dimensions of extent 1."""
        return self.add_kind(kinds.ISqueezeLayer, [input, axes])

    def add_unsqueeze(self, input: ITensor, axes: ITensor) -> kinds.IUnsqueezeLayer:
        """With further dimensions of extent 1."""
        return self.add_kind(kinds.IUnsqueezeLayer, [input, axes])

    def add_slice(
        self, input: ITensor, start: Sequence[int], shape: Sequence[int], stride: Sequence[int]
    ) -> kinds.ISliceLayer:
        """Slice."""
        return self.add_kind(
            kinds.ISliceLayer,
            [input],
            start=tuple(start),
            shape=tuple(shape),
            stride=tuple(stride),
        )

    def add_resize(self, input: ITensor) -> kinds.IResizeLayer:
        """Resize."""
        return self.add_kind(kinds.IResizeLayer, [input])

    def add_constant(self, shape: Sequence[int], weights: Any) -> kinds.IConstantLayer:
        """Constant."""
        return self.add_kind(kinds.IConstantLayer, [], shape=tuple(shape), weights=weights)

    def add_fill(
        self,
        shape: Sequence[int] | None,
        op: FillOperation,
        output_type: DataType = DataType.FLOAT,
    ) -> kinds.IFillLayer:
        """Numbers by a rule."""
        own = None if shape is None else tuple(shape)
        return self.add_kind(kinds.IFillLayer, [], shape=own, op=op, dtype=output_type)

    def add_shape(self, input: ITensor) -> kinds.IShapeLayer:
        """Dimensions."""
        return self.add_kind(kinds.IShapeLayer, [input])

    def add_identity(self, input: ITensor) -> kinds.IIdentityLayer:
        """Identity, or a conversion when its output type is set."""
        return self.add_kind(kinds.IIdentityLayer, [input])

    def add_cast(self, input: ITensor, to_type: DataType) -> kinds.ICastLayer:
        """Conversion."""
        return self.add_kind(kinds.ICastLayer, [input], to_type=to_type)
