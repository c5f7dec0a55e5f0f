"""Layers that move, repeat, convert or make data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from builder_host.errors import NetworkError
from builder_host.network.network import Network, Tensor
from builder_host.tensorrt.enums import (
    FillOperation,
    InterpolationMode,
    ResizeCoordinateTransformation,
    ResizeRoundMode,
    ResizeSelector,
    SampleMode,
)
from builder_host.tensorrt.layers.base import (
    ILayer,
    alias,
    known_ints,
    known_numbers,
    required,
    weights_of,
)
from builder_host.tensorrt.layers.compute import same_integers
from planformat.datatypes import DataType as PlanType
from runtime_edge.tensorrt.types import PLAN_TYPES, DataType

Extents = Sequence[int]


@dataclass(eq=False, kw_only=True)
class IConcatenationLayer(ILayer):
    """Concatenation; by default along the third axis from the end, at least the first."""

    axis: int | None = None

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a concatenation; constants are repeated for each item of an implicit batch."""
        if not xs:
            raise NetworkError(f"'{self.name}': concatenation takes at least one tensor")
        tensors = same_integers(net, [required(xs, i, self) for i in range(len(xs))])
        if shift:
            batch = max(t.shape[0] for t in tensors)
            tensors = [
                t
                if t.shape[0] == batch
                else net.add_broadcast(t, (batch, *t.shape[1:]), name=f"{self.name}.batch").output
                for t in tensors
            ]
        rank = tensors[0].type.rank
        axis = max(rank - 3, shift) if self.axis is None else self.axis
        if self.axis is not None and self.axis >= 0:
            axis += shift
        return net.add_concatenation(tensors, axis, name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class IPaddingLayer(ILayer):
    """Zeros around the last two dimensions; negative numbers crop."""

    pre_padding: Extents
    post_padding: Extents
    pre_padding_nd = alias("pre_padding")
    post_padding_nd = alias("post_padding")

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a padding."""
        del shift
        return net.add_padding(
            required(xs, 0, self),
            tuple(self.pre_padding),
            tuple(self.post_padding),
            name=self.name,
        ).outputs


@dataclass(eq=False, kw_only=True)
class IShuffleLayer(ILayer):
    """Transpose, reshape, transpose: what is given of them; input 1, if given, is the shape."""

    first_transpose: Sequence[int] | None = None
    reshape_dims: Sequence[int] | None = None
    second_transpose: Sequence[int] | None = None
    zero_is_placeholder: bool = True

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a shuffle."""

        def with_batch(order: Sequence[int] | None) -> Sequence[int] | None:
            if order is None or not shift:
                return order
            return (0, *(axis + 1 for axis in order))

        x = required(xs, 0, self)
        given = known_ints(xs, 1, self, "the shape")
        reshape = self.reshape_dims if given is None else given
        if reshape is not None and shift:
            reshape = (x.shape[0], *reshape)
        if reshape is not None and not self.zero_is_placeholder and 0 in reshape:
            raise NetworkError(f"'{self.name}': shape {tuple(reshape)} has no elements")
        if reshape is None and self.first_transpose is None and self.second_transpose is None:
            return [x]
        return net.add_shuffle(
            x,
            first_transpose=with_batch(self.first_transpose),
            reshape=reshape,
            second_transpose=with_batch(self.second_transpose),
            name=self.name,
        ).outputs


@dataclass(eq=False, kw_only=True)
class ISqueezeLayer(ILayer):
    """Without the dimensions of extent 1 that input 1 names."""

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a reshape."""
        x = required(xs, 0, self)
        rank = x.type.rank - shift
        axes = {_axis(a, rank, self) + shift for a in known_ints(xs, 1, self, "axes") or ()}
        for axis in axes:
            if x.shape[axis] != 1:
                raise NetworkError(f"'{self.name}': dimension {axis - shift} of {x.type} is not 1")
        shape = tuple(d for i, d in enumerate(x.shape) if i not in axes)
        return net.add_reshape(x, shape, name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class IUnsqueezeLayer(ILayer):
    """With dimensions of extent 1 where input 1 says, counted in the result."""

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a reshape."""
        x = required(xs, 0, self)
        stated = known_ints(xs, 1, self, "axes") or ()
        rank = x.type.rank - shift + len(stated)
        axes = {_axis(a, rank, self) + shift for a in stated}
        if len(axes) != len(stated):
            raise NetworkError(f"'{self.name}': axes {stated} name a dimension twice")
        rest = iter(x.shape)
        shape = tuple(1 if i in axes else next(rest) for i in range(rank + shift))
        return net.add_reshape(x, shape, name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class ISliceLayer(ILayer):
    """Every stride-th element from a start on; `mode` says what lies outside the tensor.

    Inputs 1, 2 and 3, if given, are start, shape and stride; 4 the value of FILL; 5 the axes that
    they speak of.
    """

    start: Extents
    shape: Extents
    stride: Extents
    axes: Extents | None = None
    mode: SampleMode = SampleMode.STRICT_BOUNDS

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a slice, behind a padding or gathers where it leaves the tensor."""
        x = required(xs, 0, self)
        start = known_ints(xs, 1, self, "start") or tuple(self.start)
        size = known_ints(xs, 2, self, "shape") or tuple(self.shape)
        stride = known_ints(xs, 3, self, "stride") or tuple(self.stride)
        stated = known_ints(xs, 5, self, "axes") or self.axes
        rank = x.type.rank - shift
        axes = range(rank) if stated is None else [_axis(a, rank, self) for a in stated]
        if not len(start) == len(size) == len(stride) == len(axes):
            raise NetworkError(
                f"'{self.name}': start {start}, shape {size} and stride {stride} must have "
                f"{len(axes)} numbers each"
            )
        starts, sizes, strides = [0] * x.type.rank, list(x.shape), [1] * x.type.rank
        for axis, first, count, step in zip(axes, start, size, stride, strict=True):
            place = axis + shift
            starts[place], sizes[place], strides[place] = first, count, step
        if self.mode is SampleMode.FILL:
            x = self._filled(net, xs, x, starts, sizes, strides)
        elif self.mode is not SampleMode.STRICT_BOUNDS:
            for axis in range(x.type.rank):
                places = starts[axis] + np.arange(sizes[axis], dtype=np.int64) * strides[axis]
                if places.size and not 0 <= places.min() <= places.max() < x.shape[axis]:
                    inside = _inside(places, x.shape[axis], self.mode)
                    x = net.add_gather(x, inside, axis, name=f"{self.name}.axis{axis}").output
                    starts[axis], strides[axis] = 0, 1
        return net.add_slice(x, starts, sizes, strides, name=self.name).outputs

    def _filled(
        self,
        net: Network,
        xs: list[Tensor | None],
        x: Tensor,
        starts: list[int],
        sizes: list[int],
        strides: list[int],
    ) -> Tensor:
        """The tensor with as much around it as the slice reads; `starts` then count from there."""
        before, after = [], []
        for axis, extent in enumerate(x.shape):
            last = starts[axis] + max(sizes[axis] - 1, 0) * strides[axis]
            before.append(max(0, -min(starts[axis], last)))
            after.append(max(0, max(starts[axis], last) + 1 - extent))
            starts[axis] += before[-1]
        if not any((*before, *after)):
            return x
        value = (known_numbers(xs, 4, self, "the value") or [0.0])[0]
        return net.add_padding(x, before, after, value=value, name=f"{self.name}.fill").output


def _inside(places: Any, extent: int, mode: SampleMode) -> Any:
    """Positions inside a dimension for positions anywhere."""
    if mode is SampleMode.CLAMP:
        return places.clip(0, extent - 1)
    if mode is SampleMode.WRAP:
        return places % extent
    period = max(2 * (extent - 1), 1)
    return (extent - 1) - abs(places % period - (extent - 1))


@dataclass(eq=False, kw_only=True)
class IResizeLayer(ILayer):
    """Resize to `shape` (or input 1), or by `scales`."""

    shape: Extents | None = None
    scales: Sequence[float] | None = None
    resize_mode: InterpolationMode = InterpolationMode.NEAREST
    coordinate_transformation: ResizeCoordinateTransformation = (
        ResizeCoordinateTransformation.ASYMMETRIC
    )
    selector_for_single_pixel: ResizeSelector = ResizeSelector.FORMULA
    nearest_rounding: ResizeRoundMode = ResizeRoundMode.FLOOR
    cubic_coeff: float = -0.75
    exclude_outside: bool = False
    interpolation_mode = alias("resize_mode")

    @property
    def align_corners(self) -> bool:
        """Whether corners fall on corners; the older form of `coordinate_transformation`."""
        return self.coordinate_transformation is ResizeCoordinateTransformation.ALIGN_CORNERS

    @align_corners.setter
    def align_corners(self, is_aligned: bool) -> None:
        kinds = ResizeCoordinateTransformation
        self.coordinate_transformation = kinds.ALIGN_CORNERS if is_aligned else kinds.ASYMMETRIC

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a resize."""
        x = required(xs, 0, self)
        shape = known_ints(xs, 1, self, "the shape") or self.shape
        if (shape is None) == (self.scales is None):
            raise NetworkError(f"'{self.name}': give either a shape or scales")
        coordinates = self.coordinate_transformation.value
        if coordinates == "half_pixel" and self.selector_for_single_pixel is ResizeSelector.UPPER:
            coordinates = "pytorch_half_pixel"
        mode: Any = self.resize_mode.value
        return net.add_resize(
            x,
            None if shape is None else (*x.shape[:shift], *shape),
            scales=None if self.scales is None else (*(1.0,) * shift, *self.scales),
            mode=mode,
            coordinate_mode=coordinates,
            nearest_mode=self.nearest_rounding.value,
            cubic_coefficient=self.cubic_coeff,
            exclude_outside=self.exclude_outside,
            name=self.name,
        ).outputs


@dataclass(eq=False, kw_only=True)
class IConstantLayer(ILayer):
    """A constant."""

    shape: Extents
    weights: Any

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a constant."""
        del xs
        shape = (1, *self.shape) if shift else tuple(self.shape)
        values = weights_of(self.weights, self)
        if values.size != int(np.prod(shape)):
            raise NetworkError(f"'{self.name}': {values.size} weights do not fill {shape}")
        return [net.add_constant(values.reshape(shape), self.name)]


@dataclass(eq=False, kw_only=True)
class IFillLayer(ILayer):
    """A tensor made of a rule: LINSPACE counts from alpha (or input 1) in steps of beta (input 2).

    Input 0, if given, is the shape. One beta counts along all elements, a tensor of them has one
    step per dimension.
    """

    shape: Extents | None
    op: FillOperation
    dtype: DataType = DataType.FLOAT
    alpha: float = 0.0
    beta: float = 1.0

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add the numbers as a constant."""
        if self.op is not FillOperation.LINSPACE:
            raise NetworkError(
                f"'{self.name}': {self.op.name}: a plan gives the same outputs for the same "
                "inputs; make random numbers an input"
            )
        shape = tuple(known_ints(xs, 0, self, "the shape") or self.shape or ())
        steps = known_numbers(xs, 2, self, "beta") or [self.beta]
        first = (known_numbers(xs, 1, self, "alpha") or [self.alpha])[0]
        if len(steps) not in (1, len(shape)):
            raise NetworkError(f"'{self.name}': {len(steps)} betas for the shape {shape}")
        if len(steps) == 1:
            values = first + np.arange(int(np.prod(shape))).reshape(shape) * steps[0]
        else:
            grid = np.indices(shape)
            values = first + sum(axis * step for axis, step in zip(grid, steps, strict=True))
        wide = net.add_constant(np.asarray(values, np.float64).reshape((1,) * shift + shape))
        return net.add_cast(wide, PLAN_TYPES[self.dtype], name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class IShapeLayer(ILayer):
    """The dimensions of a tensor, INT64; known while building."""

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add them as a constant."""
        shape = required(xs, 0, self).shape[shift:]
        if shift:
            raise NetworkError(f"'{self.name}': add_shape needs a network with EXPLICIT_BATCH")
        return [net.add_constant(np.asarray(shape, np.int64), self.name)]


@dataclass(eq=False, kw_only=True)
class IIdentityLayer(ILayer):
    """Its input, in another element type if its output's was set."""

    obeys_output_type: ClassVar[bool] = True

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a conversion if there is one."""
        del shift
        return _cast(net, required(xs, 0, self), self.output_types.get(0), self.name)


@dataclass(eq=False, kw_only=True)
class ICastLayer(ILayer):
    """Its input in another element type."""

    to_type: DataType

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a conversion."""
        del shift
        return _cast(net, required(xs, 0, self), self.to_type, self.name)


def _cast(net: Network, x: Tensor, wanted: DataType | None, name: str) -> list[Tensor]:
    dtype: PlanType = x.dtype if wanted is None else PLAN_TYPES[wanted]
    return [x] if dtype is x.dtype else net.add_cast(x, dtype, name=name).outputs


def _axis(axis: int, rank: int, layer: ILayer) -> int:
    if not -rank <= axis < rank:
        raise NetworkError(f"'{layer.name}': axis {axis} of a tensor with {rank} dimensions")
    return axis % rank
