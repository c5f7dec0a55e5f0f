"""`add_*` methods that move data: shuffle, slice, concatenate, pad, resize, gather, sort, cast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt

from builder_host.errors import NetworkError
from builder_host.network.api import NetworkDoor, known_shape, per_dim, positive_axis
from builder_host.network.layers.arg_reduce import ArgReduceParams
from builder_host.network.layers.broadcast import BroadcastParams
from builder_host.network.layers.cast import CastParams
from builder_host.network.layers.concatenation import ConcatenationParams
from builder_host.network.layers.gather import GatherParams
from builder_host.network.layers.pad import PadParams
from builder_host.network.layers.reshape import ReshapeParams
from builder_host.network.layers.resize import ResizeParams, output_extent
from builder_host.network.layers.slice import SliceParams
from builder_host.network.layers.top_k import TopKParams
from builder_host.network.layers.transpose import TransposeParams
from planformat.datatypes import DataType

if TYPE_CHECKING:
    from builder_host.network.network import Layer, Tensor

Array = npt.NDArray[Any]


class ShapeMethods(NetworkDoor):
    """Part of `Network`."""

    def add_concatenation(
        self, tensors: Sequence[Tensor], axis: int = 1, *, name: str = ""
    ) -> Layer:
        """Join along one axis (default: channels).

        Args:
            tensors: equal but for that axis.
            axis: dimension to join along.
            name: of the layer.
        """
        if not tensors:
            raise NetworkError("concatenation takes at least one tensor")
        params = ConcatenationParams(positive_axis(axis, tensors[0].type.rank))
        return self.add_layer("concatenation", params, tensors, name)

    def add_transpose(self, x: Tensor, permutation: Sequence[int], *, name: str = "") -> Layer:
        """out_dim[i] = in_dim[permutation[i]].

        Args:
            x: input.
            permutation: one number per dimension.
            name: of the layer.
        """
        params = TransposeParams(tuple(int(i) for i in permutation))
        return self.add_layer("transpose", params, [x], name)

    def add_reshape(self, x: Tensor, shape: Sequence[int], *, name: str = "") -> Layer:
        """Row-major reshape; 0 copies that dimension, one -1 takes what is left.

        Args:
            x: input.
            shape: of the result.
            name: of the layer.
        """
        params = ReshapeParams(known_shape(shape, x.shape))
        return self.add_layer("reshape", params, [x], name)

    def add_shuffle(
        self,
        x: Tensor,
        *,
        first_transpose: Sequence[int] | None = None,
        reshape: Sequence[int] | None = None,
        second_transpose: Sequence[int] | None = None,
        name: str = "",
    ) -> Layer:
        """Transpose, reshape (0 and -1 as in add_reshape), transpose: the steps that are given.

        Args:
            x: input.
            first_transpose: permutation before the reshape, or None.
            reshape: shape, or None.
            second_transpose: permutation after the reshape, or None.
            name: of the layer.

        Returns:
            The last layer. With no step given, a reshape to the same shape.
        """
        layer = None
        if first_transpose is not None:
            layer = self.add_transpose(x, first_transpose, name=f"{name or 'shuffle'}.first")
            x = layer.output
        if reshape is not None or (layer is None and second_transpose is None):
            shape = x.shape if reshape is None else reshape
            layer = self.add_reshape(x, shape, name=name or "shuffle")
            x = layer.output
        if second_transpose is not None:
            layer = self.add_transpose(x, second_transpose, name=f"{name or 'shuffle'}.second")
        if layer is None:  # one of the three branches above always ran
            raise NetworkError("shuffle: no step was added")
        return layer

    def add_slice(
        self,
        x: Tensor,
        starts: Sequence[int],
        sizes: Sequence[int],
        strides: Sequence[int] | None = None,
        *,
        name: str = "",
    ) -> Layer:
        """y[i] = x[starts + i * strides], one value per dimension; strides default to 1.

        Args:
            x: input.
            starts: one number for all dimensions or one each.
            sizes: extents of the result.
            strides: may be negative.
            name: of the layer.
        """
        rank = x.type.rank
        params = SliceParams(
            per_dim(starts, rank, "starts"),
            per_dim(sizes, rank, "sizes"),
            per_dim(1 if strides is None else strides, rank, "strides"),
        )
        return self.add_layer("slice", params, [x], name)

    def add_padding(
        self,
        x: Tensor,
        pads_begin: Sequence[int],
        pads_end: Sequence[int],
        *,
        mode: Literal["constant", "reflect", "edge", "wrap"] = "constant",
        value: float = 0.0,
        name: str = "",
    ) -> Layer:
        """Extend (or crop, with negative pads) the innermost dimensions, one value for each.

        Args:
            x: input.
            pads_begin: elements before each of them.
            pads_end: elements after each of them.
            mode: what is put there.
            value: of the `constant` mode.
            name: of the layer.
        """
        rank = x.type.rank
        if len(pads_begin) > rank:
            raise NetworkError(f"{len(pads_begin)} pads for a rank-{rank} tensor")
        outer = (0,) * (rank - len(pads_begin))
        params = PadParams(
            (*outer, *pads_begin),
            (*outer, *per_dim(pads_end, len(pads_begin), "pads_end")),
            mode,
            value,
        )
        return self.add_layer("pad", params, [x], name)

    def add_resize(
        self,
        x: Tensor,
        output_shape: Sequence[int] | None = None,
        *,
        scales: Sequence[float] | None = None,
        mode: Literal["nearest", "linear", "cubic"] = "nearest",
        coordinate_mode: str = "asymmetric",
        nearest_mode: str = "floor",
        cubic_coefficient: float = -0.75,
        exclude_outside: bool = False,
        name: str = "",
    ) -> Layer:
        """Resize to output_shape, or by scales (extents round down); names as in ONNX Resize.

        Args:
            x: input.
            output_shape: all dimensions, or None.
            scales: one factor per dimension, or None.
            mode: `nearest`, `linear` or `cubic`.
            coordinate_mode: where elements of the result lie in x.
            nearest_mode: how positions are rounded.
            cubic_coefficient: `a` of the cubic kernel.
            exclude_outside: whether taps outside x weigh nothing.
            name: of the layer.
        """
        if (output_shape is None) == (scales is None):
            raise NetworkError("resize takes either output_shape or scales")
        if scales is not None:
            factors = tuple(float(s) for s in scales)
            shape = tuple(output_extent(d, s) for d, s in zip(x.shape, factors, strict=False))
        else:
            shape = tuple(int(d) for d in output_shape or ())
            factors = tuple(o / i if i else 1.0 for o, i in zip(shape, x.shape, strict=False))
        params = ResizeParams(
            shape,
            mode,
            coordinate_mode,
            nearest_mode,
            factors,
            cubic_coefficient,
            exclude_outside,
        )
        return self.add_layer("resize", params, [x], name)

    def add_gather(
        self, data: Tensor, indices: Tensor | Array, axis: int = 0, *, name: str = ""
    ) -> Layer:
        """data[:axis] + indices + data[axis+1:]; an index out of range gives zeros.

        Args:
            data: what is read.
            indices: integers of any shape.
            axis: dimension that they count along.
            name: of the layer.
        """
        where = self._operand(indices, data, f"{name or 'gather'}.indices")
        params = GatherParams(positive_axis(axis, data.type.rank))
        return self.add_layer("gather", params, [data, where], name)

    def add_broadcast(self, x: Tensor, shape: Sequence[int], *, name: str = "") -> Layer:
        """Repeat dimensions of extent 1.

        Args:
            x: input.
            shape: of the result, as NumPy broadcasts.
            name: of the layer.
        """
        return self.add_layer("broadcast", BroadcastParams(tuple(shape)), [x], name)

    def add_cast(self, x: Tensor, dtype: DataType, *, name: str = "") -> Layer:
        """Another element type.

        Args:
            x: input.
            dtype: of the result.
            name: of the layer.
        """
        return self.add_layer("cast", CastParams(dtype), [x], name)

    def add_top_k(
        self, x: Tensor, k: int, axis: int = -1, *, largest: bool = True, name: str = ""
    ) -> Layer:
        """The k largest (or smallest) elements in order: outputs values and INT64 indices.

        Args:
            x: input.
            k: how many.
            axis: dimension that is sorted.
            largest: whether the largest come, else the smallest.
            name: of the layer.
        """
        params = TopKParams(k, positive_axis(axis, x.type.rank), largest)
        return self.add_layer("top_k", params, [x], name)

    def add_arg_reduce(
        self,
        x: Tensor,
        op: Literal["max", "min"],
        axis: int,
        *,
        keep_dims: bool = True,
        name: str = "",
    ) -> Layer:
        """INT64 position of the largest or smallest element along one axis.

        Args:
            x: input.
            op: `max` or `min`.
            axis: dimension that is searched.
            keep_dims: whether it stays, with extent 1.
            name: of the layer.
        """
        params = ArgReduceParams(op, positive_axis(axis, x.type.rank), keep_dims)
        return self.add_layer("arg_reduce", params, [x], name)
