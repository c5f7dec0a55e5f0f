"""How a lowering reaches the tensors of a problem: buffers, offsets, iteration, epilogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from builder_host.codegen.indices import Index, Var, as_index, dot
from builder_host.codegen.loop_nest import Apply, Buffer, Condition, Load, Section, Value, convert
from builder_host.codegen.nest import Emit, Nest, Stage, StoreTo
from builder_host.expressions import Expr
from builder_host.kernels.family import Problem
from builder_host.layouts import Layout
from builder_host.network.rules import EIGHT_BITS
from planformat.datatypes import DataType

_FLOATS = (DataType.FLOAT32, DataType.FLOAT16, DataType.BFLOAT16)
CONSTANT_SLACK = 64  # elements that packed constants are padded with, for whole-vector reads


class NotLowerableError(Exception):
    """The family does not compute this problem; the text says why."""


Lowering = Callable[[Problem], Sequence[Nest | Section]]


@dataclass(frozen=True, slots=True)
class Iteration:
    """Loops over a tensor in the order of its memory.

    Attributes:
        dims: loop variables, outermost first.
        coords: logical coordinates as forms over the variables.
        bound: the channel coordinate is inside the tensor; None when that always holds.
        lane: the variable within a channel block, when channels are cut into blocks.
    """

    dims: tuple[Var, ...]
    coords: tuple[Index, ...]
    bound: Condition | None = None
    lane: Var | None = None


def offset(layout: Layout, coords: Sequence[Index]) -> Index:
    """Offset in elements of a logical coordinate."""
    block = layout.format.channel_block
    if block == 1:
        return dot(coords, layout.strides)
    n, c, h, w = coords
    return dot((n, c // block, h, w), layout.strides) + c % block


def iterate(
    layout: Layout, shape: Sequence[int], *, block: int = 1, axis: int = 1, piece: int = 0
) -> Iteration:
    """Loops over `shape` in the memory order of `layout`.

    Args:
        layout: whose order is wanted; a blocked one makes the lane the innermost loop.
        shape: extents, rank as the layout's (a part of the tensor is legal).
        block: cut an axis into blocks of this size although the layout is not blocked.
        axis: which one, when the layout is not blocked.
        piece: cut the lanes of a blocked layout further, into runs of this length.
    """
    lanes = layout.format.channel_block
    if lanes > 1:
        block, axis = lanes, 1
    variables = [Var(f"i{dim}", extent) for dim, extent in enumerate(shape)]
    coords = [as_index(v) for v in variables]
    order = sorted(range(len(shape)), key=lambda d: (-layout.strides[d], d))
    if block == 1 or len(shape) < 2:
        return Iteration(tuple(variables[d] for d in order), tuple(coords))
    channels = shape[axis]
    outer = Var(f"i{axis}b", -(-channels // block))
    inner: tuple[Var, ...] = (Var(f"i{axis}l", min(block, channels) if lanes == 1 else block),)
    coords[axis] = as_index(outer) * block + inner[0]
    if lanes > 1 and 0 < piece < lanes:
        inner = (Var(f"i{axis}p", lanes // piece), Var(f"i{axis}l", piece))
        coords[axis] = as_index(outer) * block + as_index(inner[0]) * piece + inner[1]
    dims: list[Var] = []
    for dim in order:
        if dim != axis:
            dims.append(variables[dim])
        else:
            dims += [outer] if lanes > 1 else [outer, *inner]
    if lanes > 1:
        dims += inner
    bound = None if channels % block == 0 else Condition(coords[axis], 0, channels)
    if bound is not None and bound.is_always_true:
        bound = None
    return Iteration(tuple(dims), tuple(coords), bound, inner[-1] if bound is not None else None)


class Operands:
    """Buffers of a problem in argument order."""

    def __init__(self, problem: Problem) -> None:
        """Name the buffers x0, x1 ... and y0, y1 ..."""
        self.problem = problem
        self.inputs = tuple(
            Buffer(
                f"x{number}",
                layout.dtype,
                number,
                lanes=layout.format.channel_block,
                slack=CONSTANT_SLACK if constant else 0,
            )
            for number, (layout, constant) in enumerate(
                zip(problem.inputs, problem.is_constant, strict=True)
            )
        )
        first = len(problem.inputs)
        self.outputs = tuple(
            Buffer(f"y{number}", layout.dtype, first + number, lanes=layout.format.channel_block)
            for number, layout in enumerate(problem.outputs)
        )

    def load(self, number: int, coords: Sequence[Index]) -> Load:
        """Element of an input at logical coordinates."""
        return Load(self.inputs[number], offset(self.problem.inputs[number], coords))

    def load_broadcast(self, number: int, coords: Sequence[Index]) -> Load:
        """Element of an input that is numpy-broadcast against the coordinates."""
        shape = self.problem.inputs[number].shape
        aligned = coords[len(coords) - len(shape) :]
        return self.load(
            number, [Index() if e == 1 else c for c, e in zip(aligned, shape, strict=True)]
        )

    def store(self, number: int, coords: Sequence[Index], value: Value) -> StoreTo:
        """Write an element of an output; output 0 passes through the epilogue."""
        final = self.finished(value, coords) if number == 0 else value
        where = offset(self.problem.outputs[number], coords)
        return StoreTo(self.outputs[number], where, final)

    def finished(self, value: Value, coords: Sequence[Index]) -> Value:
        """The value after the epilogue, if there is one."""
        epilogue = self.problem.epilogue
        if epilogue is None:
            return value
        own = self.problem.num_own_inputs
        operands: list[Value] = [
            self.load_broadcast(own + i, coords) for i in range(epilogue.num_operands)
        ]
        values = [value, *operands]
        first = self.problem.inputs[0].dtype
        if first in EIGHT_BITS or first.is_float:  # 8-bit values are read as plain numbers
            values = [v if v.dtype.is_float else convert(v, DataType.FLOAT32) for v in values]
        return apply(epilogue.expr, values)

    def nest(
        self,
        over: Iteration,
        stages: Sequence[Stage],
        *,
        is_exact: bool = False,
        is_vector: bool = True,
    ) -> Nest:
        """A nest over an iteration."""
        return Nest(over.dims, tuple(stages), over.bound, over.lane, is_exact, is_vector)

    def map(
        self,
        value: Callable[[tuple[Index, ...]], Value],
        *,
        block: int = 1,
        axis: int = 1,
        piece: int = 0,
    ) -> Nest:
        """A nest that computes every element of output 0 on its own; see `iterate`."""
        layout = self.problem.outputs[0]
        over = iterate(layout, layout.shape, block=block, axis=axis, piece=piece)
        return self.nest(over, [Emit((self.store(0, over.coords, value(over.coords)),))])

    def shared_block(self) -> int:
        """Channel block of any blocked tensor among inputs and outputs of rank 4, else 1."""
        layouts = (*self.problem.inputs, *self.problem.outputs)
        return max(layout.format.channel_block for layout in layouts)


def sum_type(x: Layout, w: Layout) -> DataType:
    """Type in which products of two tensors are added: FLOAT32, INT32 for 8-bit tensors.

    Raises:
        NotLowerableError: other element types.
    """
    if x.dtype in _FLOATS and w.dtype in _FLOATS:
        return DataType.FLOAT32
    if x.dtype in EIGHT_BITS and w.dtype in EIGHT_BITS:
        return DataType.INT32
    raise NotLowerableError("sums are generated for float32, 16-bit floats and 8-bit integers only")


def compute_type(values: Sequence[Value]) -> DataType:
    """FLOAT32 when any operand is a float, else INT64."""
    if any(v.dtype is DataType.FLOAT64 for v in values):
        raise NotLowerableError("arithmetic on float64 is not generated; cast to float32")
    return DataType.FLOAT32 if any(v.dtype.is_float for v in values) else DataType.INT64


def apply(expr: Expr, values: Sequence[Value]) -> Value:
    """A scalar expression of values, in their common type."""
    return Apply(expr, tuple(values), compute_type(values))
