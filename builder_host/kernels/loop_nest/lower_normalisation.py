"""Softmax, local response normalisation, and SSD's normalize."""

from __future__ import annotations

from collections.abc import Sequence

from builder_host.codegen.indices import Index, Var, as_index
from builder_host.codegen.loop_nest import Condition, Local, Value
from builder_host.codegen.nest import Emit, Nest, Reduce, Stage
from builder_host.expressions import Binary, Const, Expr, Input, Unary
from builder_host.kernels.family import Problem
from builder_host.kernels.loop_nest.lower_reduce import ReducedAxes, smallest
from builder_host.kernels.loop_nest.operands import (
    Iteration,
    Lowering,
    NotLowerableError,
    Operands,
    apply,
    iterate,
)
from builder_host.layouts import Layout
from planformat.datatypes import DataType

_F32 = DataType.FLOAT32
_X, _PEAK, _TOTAL = Input(0), Input(1), Input(2)


def _without(layout: Layout, axes: Sequence[int]) -> tuple[Iteration, list[Index]]:
    """Loops over the dimensions that are not folded, and the coordinates with 0 in the folded."""
    shape = [1 if d in axes else e for d, e in enumerate(layout.shape)]
    if layout.format.channel_block > 1 and 1 in axes:
        variables = [Var(f"i{d}", e) for d, e in enumerate(shape)]
        over = Iteration(tuple(variables), tuple(as_index(v) for v in variables))
    else:
        over = iterate(layout, shape)
    return over, [Index() if d in axes else c for d, c in enumerate(over.coords)]


def _coords(axes: ReducedAxes, kept: Sequence[Index]) -> list[Index]:
    return axes.source(kept, keeps_dims=True)


def lower_softmax(problem: Problem) -> list[Nest]:
    """Largest element, sum of powers, quotient; or the logarithm of it."""
    operands = Operands(problem)
    params, layout = problem.params, problem.inputs[0]
    if not layout.dtype.is_float:
        raise NotLowerableError(f"softmax of {layout.dtype.text}")
    over, kept = _without(layout, (params.axis,))
    axes = ReducedAxes(layout, (params.axis,))
    last = ReducedAxes(layout, (params.axis,), "e")
    x = operands.load(0, _coords(axes, kept))
    peak, total = Local("peak", _F32), Local("total", _F32)
    shifted = Binary("sub", _X, _PEAK)
    where = _coords(last, kept)
    again = operands.load(0, where)
    if params.log:
        result: Expr = Binary("sub", shifted, Unary("log", _TOTAL))
    else:
        result = Binary("div", Unary("exp", shifted), _TOTAL)
    stages: list[Stage] = [
        Reduce("peak", _F32, "max", smallest(_F32), x, axes.variables, axes.conditions),
        Reduce(
            "total",
            _F32,
            "add",
            0.0,
            apply(Unary("exp", shifted), [x, peak]),
            axes.variables,
            axes.conditions,
        ),
        Emit(
            (operands.store(0, where, apply(result, [again, peak, total])),),
            last.variables,
            last.conditions,
        ),
    ]
    return [operands.nest(over, stages, is_vector=not axes.is_contiguous)]


def power(base: Expr, exponent: float) -> Expr:
    """Base ** exponent by square roots where that is exact enough (0.25, 0.5, 0.75, 1)."""
    root = Unary("sqrt", base)
    forms = {1.0: base, 0.5: root, 0.25: Unary("sqrt", root)}
    if exponent == 0.75:
        return Binary("mul", root, Unary("sqrt", root))
    return forms.get(exponent) or Binary("pow", base, Const(exponent))


def lower_lrn(problem: Problem) -> list[Nest]:
    """Sum of squares over neighbouring channels, or over a square window of each channel."""
    operands = Operands(problem)
    params, layout = problem.params, problem.inputs[0]
    over = iterate(layout, layout.shape)
    before = (params.size - 1) // 2
    dims = (1,) if params.region == "across" else (2, 3)
    coords = list(over.coords)
    variables, conditions = [], []
    for dim in dims:
        var = Var(f"r{dim}", params.size)
        variables.append(var)
        coords[dim] = coords[dim] + as_index(var) - before
        conditions.append(Condition(coords[dim], 0, layout.shape[dim]))
    near = operands.load(0, coords)
    count = params.size ** len(dims)
    scale = Const(params.alpha / count)
    base = Binary("add", Const(params.k), Binary("mul", scale, Input(1)))
    result = Binary("div", Input(0), power(base, params.beta))
    x = operands.load(0, over.coords)
    value = apply(result, [x, Local("total", _F32)])
    stages: list[Stage] = [
        Reduce(
            "total",
            _F32,
            "add",
            0.0,
            apply(Binary("mul", Input(0), Input(0)), [near]),
            tuple(variables),
            tuple(conditions),
        ),
        Emit((operands.store(0, over.coords, value),)),
    ]
    return [operands.nest(over, stages)]


def lower_normalize(problem: Problem) -> list[Nest]:
    """X / sqrt(sum of squares + epsilon) * scale."""
    operands = Operands(problem)
    params, layout = problem.params, problem.inputs[0]
    folded = (1, 2, 3) if params.across_spatial else (1,)
    over, kept = _without(layout, folded)
    axes, last = ReducedAxes(layout, folded), ReducedAxes(layout, folded, "e")
    where = _coords(last, kept)
    x = operands.load(0, _coords(axes, kept))
    square = apply(Binary("mul", Input(0), Input(0)), [x])
    length = Unary("sqrt", Binary("add", Input(1), Const(params.epsilon)))
    result = Binary("mul", Binary("div", Input(0), length), Input(2))
    loads: list[Value] = [
        operands.load(0, where),
        Local("total", _F32),
        operands.load_broadcast(1, where),
    ]
    stages: list[Stage] = [
        Reduce("total", _F32, "add", 0.0, square, axes.variables, axes.conditions),
        Emit((operands.store(0, where, apply(result, loads)),), last.variables, last.conditions),
    ]
    return [operands.nest(over, stages, is_vector=not axes.is_contiguous)]


LOWERINGS: dict[str, Lowering] = {
    "softmax": lower_softmax,
    "lrn": lower_lrn,
    "normalize": lower_normalize,
}
