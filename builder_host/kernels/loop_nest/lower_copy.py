"""Kinds that move elements: reformat, transpose, reshape, slice, broadcast, concatenation, pad."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from builder_host.codegen.indices import Index, Var, as_index, dot, minimum
from builder_host.codegen.loop_nest import Condition, Literal, Load, Value, guarded
from builder_host.codegen.nest import Emit, Nest, StoreTo
from builder_host.kernels.family import Problem
from builder_host.kernels.loop_nest.operands import Lowering, Operands, iterate, offset
from planformat.datatypes import TensorFormat


def lower_same(problem: Problem) -> list[Nest]:
    """Reformat: the same coordinates."""
    operands = Operands(problem)
    return [operands.map(lambda c: operands.load(0, c), block=operands.shared_block())]


def lower_broadcast(problem: Problem) -> list[Nest]:
    """Numpy's broadcast_to."""
    operands = Operands(problem)
    block = operands.shared_block() if len(problem.outputs[0].shape) == 4 else 1
    return [operands.map(lambda c: operands.load_broadcast(0, c), block=block)]


def lower_transpose(problem: Problem) -> list[Nest]:
    """out_dim[i] = in_dim[permutation[i]]."""
    operands = Operands(problem)
    permutation = problem.params.permutation

    def value(coords: Sequence[Index]) -> Value:
        source = [Index()] * len(permutation)
        for position, dim in enumerate(permutation):
            source[dim] = coords[position]
        return operands.load(0, source)

    block = problem.inputs[0].format.channel_block
    return [operands.map(value, block=block, axis=permutation.index(1) if block > 1 else 1)]


def lower_slice(problem: Problem) -> list[Nest]:
    """Starts and strides per dimension."""
    operands = Operands(problem)
    params = problem.params

    def value(coords: Sequence[Index]) -> Value:
        source = [c * s + b for c, s, b in zip(coords, params.strides, params.starts, strict=True)]
        return operands.load(0, source)

    block = operands.shared_block() if len(problem.outputs[0].shape) == 4 else 1
    piece = 0
    if block > 1:
        start, stride = params.starts[1], params.strides[1]
        if stride > 1 and block % stride == 0 and start % block < stride:
            piece = block // stride  # a run of outputs reads one block of the input
        elif stride == 1:
            piece = _run(start, block)
    return [operands.map(value, block=block, piece=piece)]


def _run(shift: int, block: int) -> int:
    """Channels that stay together when blocks are shifted; 0 when cutting does not pay."""
    run = math.gcd(shift, block)
    return run if 4 <= run < block else 0


def lower_reshape(problem: Problem) -> list[Nest]:
    """The same row-major order in another shape; one flat loop when both are dense."""
    operands = Operands(problem)
    source, target = problem.inputs[0], problem.outputs[0]
    flat_formats = {source.format, target.format} == {TensorFormat.LINEAR}
    if flat_formats and source.is_dense and target.is_dense and problem.epilogue is None:
        var = Var("i", math.prod(target.shape))
        load = Load(operands.inputs[0], as_index(var))
        return [Nest((var,), (Emit((StoreTo(operands.outputs[0], as_index(var), load),)),))]

    def value(coords: Sequence[Index]) -> Value:
        flat = dot(coords, [math.prod(target.shape[d + 1 :]) for d in range(len(coords))])
        shape = source.shape
        inner = [math.prod(shape[d + 1 :]) for d in range(len(shape))]
        found = [
            (flat // step) % extent if dim else flat // step
            for dim, (extent, step) in enumerate(zip(shape, inner, strict=True))
        ]
        return operands.load(0, found)

    return [operands.map(value)]


def lower_concatenation(problem: Problem) -> list[Nest]:
    """One copy per input, side by side."""
    operands = Operands(problem)
    layout, axis = problem.outputs[0], problem.params.axis
    block = operands.shared_block() if len(layout.shape) == 4 else 1
    nests = []
    start = 0
    for number in range(problem.num_own_inputs):
        shape = problem.inputs[number].shape
        piece = _run(start, block) if axis == 1 and block > 1 else 0
        over = iterate(layout, shape, block=block, piece=piece)
        coords = list(over.coords)
        coords[axis] = coords[axis] + start
        store = operands.store(0, coords, operands.load(number, over.coords))
        # Lanes past these channels belong to the next input.
        nests.append(operands.nest(over, [Emit((store,))], is_exact=True))
        start += shape[axis]
    return nests


def lower_bit_cast(problem: Problem) -> list[Nest]:
    """A copy that reads the input as the output's type."""
    operands = Operands(problem)
    source = replace(operands.inputs[0], dtype=problem.outputs[0].dtype)

    def value(coords: Sequence[Index]) -> Value:
        return Load(source, offset(problem.inputs[0], coords))

    block = operands.shared_block() if len(problem.outputs[0].shape) == 4 else 1
    return [operands.map(value, block=block)]


def lower_pad(problem: Problem) -> list[Nest]:
    """Guarded loads for constants, folded coordinates for the other modes."""
    operands = Operands(problem)
    params, layout = problem.params, problem.inputs[0]

    def value(coords: Sequence[Index]) -> Value:
        source: list[Index] = []
        conditions: list[Condition] = []
        for dim, extent in enumerate(layout.shape):
            begin, end = params.pads_begin[dim], params.pads_end[dim]
            first, kept = max(0, -begin), extent + min(begin, 0) + min(end, 0)
            position = coords[dim] - max(begin, 0)
            if params.mode == "constant":
                conditions.append(Condition(position, 0, kept))
            else:
                position = _folded(position, kept, params.mode)
            source.append(position + first)
        fill = Literal(params.value, layout.dtype)
        return guarded(tuple(conditions), operands.load(0, source), fill)

    return [operands.map(value)]


def _folded(position: Index, extent: int, mode: str) -> Index:
    """A position outside 0..extent-1 by the rule of the mode."""
    low, high = position.bounds()
    if low >= 0 and high < extent:
        return position
    if mode == "wrap":
        return position % extent
    if mode == "edge":
        return minimum(minimum(position * -1, 0) * -1, extent - 1)
    distance = minimum(position, position * -1) * -1  # reflect: |position|
    return minimum(distance, distance * -1 + 2 * (extent - 1))


LOWERINGS: dict[str, Lowering] = {
    "reformat": lower_same,
    "broadcast": lower_broadcast,
    "transpose": lower_transpose,
    "slice": lower_slice,
    "reshape": lower_reshape,
    "concatenation": lower_concatenation,
    "pad": lower_pad,
    "bit_cast": lower_bit_cast,
}
