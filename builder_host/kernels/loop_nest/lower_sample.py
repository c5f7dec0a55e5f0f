"""Kinds that interpolate at computed places: grid sample, ROI align, deformable convolution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from builder_host.codegen.indices import Index, Var, as_index
from builder_host.codegen.loop_nest import (
    Apply,
    Condition,
    Convert,
    FromIndex,
    Literal,
    Local,
    Value,
    guarded,
)
from builder_host.codegen.nest import Emit, Nest, Reduce
from builder_host.expressions import Binary, Const, Expr, Input, Select, Unary, clip
from builder_host.kernels.family import Problem
from builder_host.kernels.loop_nest.dynamic_index import (
    integer,
    is_inside,
    is_true,
    position,
)
from builder_host.kernels.loop_nest.operands import (
    Lowering,
    NotLowerableError,
    Operands,
    apply,
    iterate,
)
from builder_host.network.layers.grid_sample import CUBIC_COEFFICIENT, GridSampleParams
from planformat.datatypes import DataType

_F32, _I64 = DataType.FLOAT32, DataType.INT64
_FLOATS = (DataType.FLOAT32, DataType.FLOAT16)
_X, _Y, _Z = Input(0), Input(1), Input(2)


def _float(expr: Expr, *values: Value) -> Value:
    return Apply(expr, values, _F32)


@dataclass(frozen=True, slots=True)
class _Tap:
    """An element along one axis: where it lies, and its weight (None: 1)."""

    place: Value
    weight: Value | None
    extent: int
    is_always_inside: bool

    @property
    def conditions(self) -> tuple[Condition, ...]:
        return () if self.is_always_inside else (is_inside(self.place, self.extent),)

    @property
    def index(self) -> Index:
        return position(self.place, self.extent)


def _sum_of_taps(
    operands: Operands, lead: Sequence[Index], axes: Sequence[Sequence[_Tap]], *, op: str = "add"
) -> Value:
    """Fold of weighted elements of input 0 at `lead` and one tap per axis, over all choices."""
    args: list[Value] = []
    total: Expr | None = None
    zero = Literal(0, operands.inputs[0].dtype)
    for taps in itertools.product(*axes):
        conditions = tuple(c for tap in taps for c in tap.conditions)
        element = operands.load(0, [*lead, *(tap.index for tap in taps)])
        args.append(guarded(conditions, element, zero))
        term: Expr = Input(len(args) - 1)
        for tap in taps:
            if tap.weight is not None:
                args.append(tap.weight)
                term = Binary("mul", term, Input(len(args) - 1))
        total = term if total is None else Binary(op, total, term)
    assert total is not None
    return _float(total, *args)


def _linear_taps(where: Value, extent: int) -> list[_Tap]:
    """The two elements around a position; those outside count as zero."""
    low, weight = Unary("floor", _X), Binary("sub", _X, Unary("floor", _X))
    return [
        _Tap(
            Convert(_float(Binary("add", low, Const(float(k))), where), _I64),
            _float(weight if k else Binary("sub", Const(1.0), weight), where),
            extent,
            False,
        )
        for k in (0, 1)
    ]


# --- grid sample -----------------------------------------------------------------------------


def lower_grid_sample(problem: Problem) -> list[Nest]:
    """Every output element on its own: positions, taps, weighted sum."""
    operands, params = Operands(problem), problem.params
    _require_floats(problem, 2)
    spatial = problem.inputs[0].shape[2:]

    def value(coords: Sequence[Index]) -> Value:
        n, c, *out = coords
        axes = []
        for dim, extent in enumerate(spatial):
            number = as_index(len(spatial) - 1 - dim)
            axes.append(_grid_taps(params, operands.load(1, [n, *out, number]), extent))
        return _sum_of_taps(operands, [n, c], axes)

    return [operands.map(value)]


def _grid_taps(params: GridSampleParams, grid: Value, extent: int) -> list[_Tap]:
    from_left = Binary("add", _X, Const(1.0))
    if params.align_corners:
        where: Expr = Binary("mul", from_left, Const((extent - 1) / 2))
    else:
        scaled = Binary("mul", from_left, Const(float(extent)))
        where = Binary("mul", Binary("sub", scaled, Const(1.0)), Const(0.5))
    is_padded = params.padding != "zeros"
    if params.mode != "cubic" and is_padded:
        where = _padded(params, where, extent)
    if params.mode == "nearest":
        return [_Tap(Convert(_float(Unary("round", where), grid), _I64), None, extent, is_padded)]
    if params.mode == "linear":
        return _linear_taps(_float(where, grid), extent)
    low = Unary("floor", where)
    taps = []
    for offset in (-1, 0, 1, 2):
        place: Expr = Binary("add", low, Const(float(offset)))
        distance = Unary("abs", Binary("sub", Binary("sub", where, low), Const(float(offset))))
        if is_padded:
            place = _padded(params, place, extent)
        taps.append(
            _Tap(
                Convert(_float(place, grid), _I64),
                _float(_cubic(distance), grid),
                extent,
                is_padded,
            )
        )
    return taps


def _padded(params: GridSampleParams, where: Expr, extent: int) -> Expr:
    """A position brought into the tensor by the padding rule."""
    if params.padding == "reflection":
        low, span = (0.0, extent - 1.0) if params.align_corners else (-0.5, float(extent))
        if span == 0:
            return Const(0.0)
        folded = Binary("mod", Binary("sub", where, Const(low)), Const(2 * span))
        mirrored = Binary("min", folded, Binary("sub", Const(2 * span), folded))
        where = Binary("add", mirrored, Const(low))
    return clip(where, 0.0, extent - 1.0)


def _cubic(distance: Expr) -> Expr:
    """Keys' kernel by Horner's rule, for distances up to 2."""

    def polynomial(*factors: float) -> Expr:
        result: Expr = Const(factors[0])
        for factor in factors[1:]:
            result = Binary("add", Binary("mul", result, distance), Const(factor))
        return result

    a = CUBIC_COEFFICIENT
    near, far = polynomial(a + 2, -(a + 3), 0.0, 1.0), polynomial(a, -5 * a, 8 * a, -4 * a)
    return Select(Binary("le", distance, Const(1.0)), near, far)


# --- ROI align -------------------------------------------------------------------------------


def lower_roi_align(problem: Problem) -> list[Nest]:
    """A reduction over the samples of each cell."""
    operands, params, x = Operands(problem), problem.params, problem.inputs[0]
    _require_floats(problem, 2)
    over = iterate(problem.outputs[0], problem.outputs[0].shape)
    region, channel, *cell = over.coords
    samples = [Var(f"s{d}", params.max_samples(d, x.shape[2 + d])) for d in (0, 1)]
    batch: Value = Convert(operands.load(2, [region]), _I64)
    conditions: list[Condition] = []
    axes, counts = [], []
    reaches: list[Condition] = [is_inside(batch, x.shape[0])]
    for dim in (0, 1):
        extent = x.shape[2 + dim]
        first, last = (operands.load(1, [region, as_index(1 - dim + 2 * end)]) for end in (0, 1))
        size: Expr = Binary("mul", Binary("sub", _Y, _X), Const(params.spatial_scale))
        if not params.half_pixel:
            size = Binary("max", size, Const(1.0))
        length = _float(Binary("div", size, Const(float(params.output_size[dim]))), first, last)
        count: Value = Literal(float(params.sampling_ratio), _F32)
        if not params.sampling_ratio:
            most = float(samples[dim].extent)
            count = _float(clip(Unary("ceil", _X), 0.0, most), length)
            taken = Binary("lt", _X, _Y)
            conditions.append(is_true(_float(taken, FromIndex(as_index(samples[dim])), count)))
        counts.append(count)
        start = Binary("mul", _X, Const(params.spatial_scale))
        if params.half_pixel:
            start = Binary("sub", start, Const(0.5))
        share = Binary("div", Binary("add", Input(3), Const(0.5)), Input(4))
        steps = Binary("mul", _Y, Binary("add", _Z, share))  # cells, and samples within one
        where = _float(
            Binary("add", start, steps),
            *(first, length, FromIndex(cell[dim]), FromIndex(as_index(samples[dim])), count),
        )
        inside = Binary(
            "and", Binary("ge", _X, Const(-1.0)), Binary("le", _X, Const(float(extent)))
        )
        reaches.append(is_true(_float(inside, where)))
        axes.append(_roi_taps(where, extent))
    lead = [position(batch, x.shape[0]), channel]
    is_mean = params.mode == "average"
    sample = _sum_of_taps(operands, lead, axes, op="add" if is_mean else "max")
    reduce = Reduce(
        "total",
        _F32,
        "add" if is_mean else "max",
        0.0 if is_mean else -math.inf,
        guarded(tuple(reaches), sample, Literal(0.0, _F32)),
        tuple(samples),
        tuple(conditions),
    )
    number = Binary("mul", _Y, _Z)
    if is_mean:
        finish: Expr = Binary("div", _X, Binary("max", number, Const(1.0)))
    else:
        finish = Select(Binary("gt", number, Const(0.0)), _X, Const(0.0))
    result = _float(finish, Local("total", _F32), *counts)
    return [operands.nest(over, [reduce, Emit((operands.store(0, over.coords, result),))])]


def _roi_taps(where: Value, extent: int) -> list[_Tap]:
    """The two elements around a position, which never lie outside."""
    last = Const(extent - 1.0)
    inside = Binary("max", _X, Const(0.0))
    low = Binary("min", Unary("floor", inside), last)
    is_last = Binary("ge", low, last)
    weight = Select(is_last, Const(0.0), Binary("sub", inside, low))
    high = Binary("min", Binary("add", low, Const(1.0)), last)
    rows = ((low, Binary("sub", Const(1.0), weight)), (high, weight))
    return [
        _Tap(Convert(_float(place, where), _I64), _float(factor, where), extent, True)
        for place, factor in rows
    ]


# --- ROI pooling -----------------------------------------------------------------------------


def lower_roi_pool(problem: Problem) -> list[Nest]:
    """A reduction over the whole map; only elements of the cell take part."""
    operands, params, x = Operands(problem), problem.params, problem.inputs[0]
    _require_floats(problem, 2)
    over = iterate(problem.outputs[0], problem.outputs[0].shape)
    region, channel, *cell = over.coords
    batch: Value = Convert(operands.load(1, [region, Index()]), _I64)
    places = [Var(f"r{d}", x.shape[2 + d]) for d in (0, 1)]
    conditions = [is_inside(batch, x.shape[0])]
    corner = Binary("mul", _X, Const(params.spatial_scale))
    rounded = Unary("floor", Binary("add", corner, Const(0.5)))
    for dim in (0, 1):
        first, last = (
            Convert(_float(rounded, operands.load(1, [region, as_index(2 - dim + 2 * end)])), _I64)
            for end in (0, 1)
        )
        count = Const(float(params.output_size[dim]))
        # Input 0 and 1: the corners, 2: the cell, 3: the element.
        length = Binary("max", Binary("add", Binary("sub", _Y, _X), Const(1.0)), Const(1.0))
        begin = Binary("add", _X, Binary("floor_div", Binary("mul", _Z, length), count))
        after = Binary("mul", Binary("add", _Z, Const(1.0)), length)
        rounds_up = Binary("floor_div", Binary("add", after, Const(count.value - 1)), count)
        belongs = Binary(
            "and",
            Binary("ge", Input(3), begin),
            Binary("lt", Input(3), Binary("add", _X, rounds_up)),
        )
        values = (first, last, FromIndex(cell[dim]), FromIndex(as_index(places[dim])))
        conditions.append(is_true(integer(belongs, *values)))
    element = operands.load(0, [position(batch, x.shape[0]), channel, *map(as_index, places)])
    reduce = Reduce("best", _F32, "max", -math.inf, element, tuple(places), tuple(conditions))
    found = Select(Binary("gt", _X, Const(-math.inf)), _X, Const(0.0))
    result = _float(found, Local("best", _F32))
    return [operands.nest(over, [reduce, Emit((operands.store(0, over.coords, result),))])]


# --- deformable convolution -------------------------------------------------------------------


def lower_deformable_convolution(problem: Problem) -> list[Nest]:
    """A reduction over channels and taps of weight times interpolated element."""
    operands, params = Operands(problem), problem.params
    _require_floats(problem, problem.num_own_inputs)
    x, w = problem.inputs[:2]
    over = iterate(problem.outputs[0], problem.outputs[0].shape)
    n, k, *out = over.coords
    inner = Var("rc", w.shape[1])
    taps = [Var("rr", w.shape[2]), Var("rs", w.shape[3])]
    channel = k // (w.shape[0] // params.groups) * w.shape[1] + inner
    shared = channel // (x.shape[1] // params.offset_groups)
    number = shared * (w.shape[2] * w.shape[3]) + as_index(taps[0]) * w.shape[3] + taps[1]
    axes = []
    for dim in (0, 1):
        regular = out[dim] * params.strides[dim] + as_index(taps[dim]) * params.dilations[dim]
        offset = operands.load(2, [n, number * 2 + dim, *out])
        added = Binary("add", _X, _Y)
        where = _float(added, FromIndex(regular - params.pads_begin[dim]), offset)
        axes.append(_linear_taps(where, x.shape[2 + dim]))
    factors = [operands.load(1, [k, as_index(inner), *map(as_index, taps)])]
    if params.has_mask:
        factors.append(operands.load(3, [n, number, *out]))
    product: Expr = _X
    for place in range(len(factors)):
        product = Binary("mul", product, Input(1 + place))
    value = _float(product, _sum_of_taps(operands, [n, channel], axes), *factors)
    total: Value = Local("total", _F32)
    if params.has_bias:
        bias = operands.load(problem.num_own_inputs - 1, [k])
        total = apply(Binary("add", _X, _Y), [total, bias])
    reduce = Reduce("total", _F32, "add", 0.0, value, (inner, *taps))
    return [operands.nest(over, [reduce, Emit((operands.store(0, over.coords, total),))])]


def _require_floats(problem: Problem, count: int) -> None:
    if any(layout.dtype not in _FLOATS for layout in problem.inputs[:count]):
        raise NotLowerableError("interpolation is generated for float32 and float16 only")


LOWERINGS: dict[str, Lowering] = {
    "grid_sample": lower_grid_sample,
    "roi_align": lower_roi_align,
    "roi_pool": lower_roi_pool,
    "deformable_convolution": lower_deformable_convolution,
}
