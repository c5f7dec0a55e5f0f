"""Convolution, deconvolution and pooling of any rank: correct everywhere, fast nowhere.

8-bit tensors are added up in int32, exactly.

The hand-made families are far quicker; this one stands in where none of them applies.
"""

from __future__ import annotations

import math

from builder_host.codegen.indices import Index, Var, as_index
from builder_host.codegen.loop_nest import Buffer, Condition, Literal, Load, Local, Value, convert
from builder_host.codegen.nest import Emit, Nest, Reduce
from builder_host.expressions import Binary, Input
from builder_host.kernels.family import Problem
from builder_host.kernels.loop_nest.operands import (
    Iteration,
    Lowering,
    Operands,
    apply,
    iterate,
    sum_type,
)
from builder_host.network.layers.pooling import divisors
from planformat.datatypes import DataType

_F32 = DataType.FLOAT32
_PRODUCT = Binary("mul", Input(0), Input(1))


def lower_convolution(problem: Problem) -> list[Nest]:
    """y[n,k,o] = sum over c, f of x[n, c, o*stride + f*dilation - pad] * w[k,c,f]."""
    operands = Operands(problem)
    params, x, w = problem.params, problem.inputs[0], problem.inputs[1]
    over = _over(problem)
    n, k, *spatial = over.coords
    channels = Var("rc", w.shape[1])
    taps = [Var(f"rf{d}", extent) for d, extent in enumerate(w.shape[2:])]
    source, conditions = [], []
    for dim, tap in enumerate(taps):
        position = spatial[dim] * params.strides[dim] + as_index(tap) * params.dilations[dim]
        source.append(position - params.pads_begin[dim])
        conditions.append(Condition(source[-1], 0, x.shape[2 + dim]))
    group = k // (w.shape[0] // params.groups)
    channel = group * w.shape[1] + channels
    product = apply(
        _PRODUCT,
        [
            operands.load(0, [n, channel, *source]),
            operands.load(1, [k, as_index(channels), *map(as_index, taps)]),
        ],
    )
    return [_sum(operands, over, product, (channels, *taps), conditions, bias=2)]


def lower_deconvolution(problem: Problem) -> list[Nest]:
    """Gather form: each output sums the inputs whose scattered windows reach it."""
    operands = Operands(problem)
    params, x, w = problem.params, problem.inputs[0], problem.inputs[1]
    over = _over(problem)
    n, k, *spatial = over.coords
    per_group = x.shape[1] // params.groups
    channels = Var("rc", per_group)
    taps = [Var(f"rf{d}", extent) for d, extent in enumerate(w.shape[2:])]
    source, conditions = [], []
    for dim, tap in enumerate(taps):
        reach = spatial[dim] + params.pads_begin[dim] - as_index(tap) * params.dilations[dim]
        stride = params.strides[dim]
        source.append(reach // stride)
        conditions.append(Condition(source[-1], 0, x.shape[2 + dim]))
        conditions.append(Condition(reach % stride, 0, 1))
    group = k // w.shape[1]
    channel = group * per_group + channels
    product = apply(
        _PRODUCT,
        [
            operands.load(0, [n, channel, *source]),
            operands.load(1, [channel, k % w.shape[1], *map(as_index, taps)]),
        ],
    )
    return [_sum(operands, over, product, (channels, *taps), conditions, bias=2)]


def lower_pooling(problem: Problem) -> list[Nest]:
    """Maximum with padding left out; sum over the divisor that the layer's rules give."""
    operands = Operands(problem)
    params, x = problem.params, problem.inputs[0]
    over = iterate(problem.outputs[0], problem.outputs[0].shape)
    n, c, *spatial = over.coords
    taps = [Var(f"rf{d}", extent) for d, extent in enumerate(params.window)]
    source, conditions = [], []
    for dim, tap in enumerate(taps):
        position = spatial[dim] * params.strides[dim] + as_index(tap) * params.dilations[dim]
        source.append(position - params.pads_begin[dim])
        conditions.append(Condition(source[-1], 0, x.shape[2 + dim]))
    is_max = params.mode == "max"
    load = operands.load(0, [n, c, *source])
    total_type = sum_type(x, x)
    lowest = -math.inf if total_type is _F32 else -128.0
    init = lowest if is_max else 0.0
    reduce = Reduce(
        "total", total_type, "max" if is_max else "add", init, load, tuple(taps), tuple(conditions)
    )
    result: Value = Local("total", total_type)
    if not is_max:
        counts = divisors(params, x.shape[2:])
        first = float(counts.reshape(-1)[0])
        count: Value = Literal(first, _F32)
        if (counts != first).any():
            table = Buffer("counts", _F32, None, tuple(float(v) for v in counts.reshape(-1)))
            where = Index()
            for position, extent in zip(spatial, params.output_spatial, strict=True):
                where = where * extent + position
            count = Load(table, where)
        result = apply(Binary("div", Input(0), Input(1)), [convert(result, _F32), count])
    return [operands.nest(over, [reduce, Emit((operands.store(0, over.coords, result),))])]


def _over(problem: Problem) -> Iteration:
    return iterate(problem.outputs[0], problem.outputs[0].shape)


def _sum(
    operands: Operands,
    over: Iteration,
    product: Value,
    variables: tuple[Var, ...],
    conditions: list[Condition],
    *,
    bias: int,
) -> Nest:
    problem = operands.problem
    total_type = sum_type(problem.inputs[0], problem.inputs[1])
    total: Value = convert(Local("total", total_type), _F32)
    if problem.num_own_inputs > bias:
        both = [total, operands.load(bias, [over.coords[1]])]
        total = apply(Binary("add", Input(0), Input(1)), both)
    stages = (
        Reduce("total", total_type, "add", 0.0, product, variables, tuple(conditions)),
        Emit((operands.store(0, over.coords, total),)),
    )
    return operands.nest(over, stages)


LOWERINGS: dict[str, Lowering] = {
    "convolution": lower_convolution,
    "deconvolution": lower_deconvolution,
    "pooling": lower_pooling,
}
