"""Max pool indices: where the maximum of each window lies."""

from __future__ import annotations

import math
from collections.abc import Sequence

from builder_host.codegen.indices import Dynamic, Index, Var, as_index, dot, minimum
from builder_host.codegen.loop_nest import (
    Apply,
    Condition,
    FromIndex,
    Literal,
    Local,
    Value,
    convert,
    guarded,
)
from builder_host.codegen.nest import ArgBest, Emit, Nest
from builder_host.expressions import Binary, Const, Input, Select
from builder_host.kernels.family import Problem
from builder_host.kernels.loop_nest.operands import (
    Lowering,
    NotLowerableError,
    Operands,
    iterate,
)
from builder_host.network.layers.max_pool_indices import position_steps
from builder_host.network.layers.pooling import PoolingParams
from planformat.datatypes import DataType

_F32 = DataType.FLOAT32


def lower(problem: Problem) -> list[Nest]:
    """The best tap of each window, then the index of the element under it."""
    operands = Operands(problem)
    params, x = problem.params.pooling, problem.inputs[0]
    over = iterate(problem.outputs[0], problem.outputs[0].shape)
    n, c, *spatial = over.coords
    tap = Var("tap", math.prod(params.window))
    if not x.dtype.is_float:
        raise NotLowerableError(f"max_pool_indices of {x.dtype.text}")

    def element(number: Index) -> list[Index]:
        """Coordinates under a tap, which is counted in row-major order of the window."""
        found = []
        for dim in range(len(params.window)):
            inner = math.prod(params.window[dim + 1 :])
            step = (number // inner) % params.window[dim]
            position = spatial[dim] * params.strides[dim] + step * params.dilations[dim]
            found.append(position - params.pads_begin[dim])
        return found

    source = element(as_index(tap))
    inside = tuple(
        Condition(place, 0, extent) for place, extent in zip(source, x.shape[2:], strict=True)
    )
    lowest = Literal(-math.inf, _F32)
    value = guarded(inside, convert(operands.load(0, [n, c, *source]), _F32), lowest)
    one, none = Literal(1, DataType.INT64), Literal(0, DataType.INT64)
    eligible = guarded(inside, one, none)
    # A window that holds nothing but -inf: no tap beats the start, the first element stands in.
    best = ArgBest("best", "where", "gt", value, tap, -math.inf, eligible)
    first = _first_tap(params, spatial, x.shape[2:])
    where = Apply(
        Select(Binary("lt", Input(0), Const(0.0)), Input(1), Input(0)),
        (Local("where", DataType.INT64), first),
        DataType.INT64,
    )
    chosen = element(Index(((Dynamic(where, 0, tap.extent - 1), 1),)))
    steps = position_steps(x.shape[2:], is_column_major=problem.params.is_column_major)
    flat = (n * x.shape[1] + c) * math.prod(x.shape[2:]) + dot(chosen, steps)
    emit = Emit((operands.store(0, over.coords, FromIndex(flat)),))
    return [operands.nest(over, [best, emit])]


def _first_tap(params: PoolingParams, spatial: Sequence[Index], extents: tuple[int, ...]) -> Value:
    """Number of the first tap of a window that lies inside the tensor."""
    total = Index()
    for dim, _ in enumerate(extents):
        outside = minimum(spatial[dim] * params.strides[dim] - params.pads_begin[dim], 0) * -1
        dilation = params.dilations[dim]
        step = (outside + (dilation - 1)) // dilation
        total = total + step * math.prod(params.window[dim + 1 :])
    return FromIndex(total)


LOWERINGS: dict[str, Lowering] = {"max_pool_indices": lower}
