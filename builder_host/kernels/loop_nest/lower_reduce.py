"""Reductions over axes, positions of extremes, and the k best."""

from __future__ import annotations

import math
from collections.abc import Sequence

from builder_host.codegen.indices import Index, Var, as_index
from builder_host.codegen.loop_nest import (
    Apply,
    Assign,
    Condition,
    Declare,
    FromIndex,
    Literal,
    Local,
    Loop,
    Section,
    Statement,
    Store,
    Value,
    convert,
)
from builder_host.codegen.nest import ArgBest, Emit, Nest, Reduce, Stage
from builder_host.expressions import Binary, Const, Expr, Input, Select, Unary, substitute
from builder_host.kernels.family import Problem
from builder_host.kernels.loop_nest.operands import (
    Lowering,
    NotLowerableError,
    Operands,
    apply,
    compute_type,
    iterate,
    offset,
)
from builder_host.layouts import Layout
from planformat.datatypes import DataType

_X = Input(0)
# op -> (what is accumulated, how, what becomes of it)
_PLANS: dict[str, tuple[Expr, str, Expr]] = {
    "sum": (_X, "add", _X),
    "mean": (_X, "add", _X),
    "prod": (_X, "mul", _X),
    "max": (_X, "max", _X),
    "min": (_X, "min", _X),
    "l1": (Unary("abs", _X), "add", _X),
    "l2": (Binary("mul", _X, _X), "add", Unary("sqrt", _X)),
    "sum_square": (Binary("mul", _X, _X), "add", _X),
    "log_sum": (_X, "add", Unary("log", _X)),
}


MIN_FOLDED = 16  # shorter rows are folded one per lane


def smallest(dtype: DataType) -> float:
    """Start of a maximum in the compute type of `dtype`."""
    return -math.inf if dtype.is_float else -(2**63)


def largest(dtype: DataType) -> float:
    """Start of a minimum in the compute type of `dtype`."""
    return math.inf if dtype.is_float else 2**63 - 1


class ReducedAxes:
    """Loops over the kept dimensions of an input and over those that are folded.

    Attributes:
        variables: loop variables of the folded axes, outermost first.
        conditions: the folded coordinates that exist (a partial last channel block).
        source: input coordinates of the point under the output coordinates given.
    """

    def __init__(self, layout: Layout, axes: Sequence[int], prefix: str = "r") -> None:
        """Variables for the axes of an input in the order of its memory."""
        self.layout = layout
        self.axes = tuple(axes)
        self.conditions: tuple[Condition, ...] = ()
        self._coords: dict[int, Index] = {}
        block = layout.format.channel_block
        ordered = sorted(axes, key=lambda a: (-layout.strides[a], a))
        variables: list[Var] = []
        lane: Var | None = None
        for axis in ordered:
            extent = layout.shape[axis]
            if block > 1 and axis == 1:
                outer, lane = Var(f"{prefix}1b", -(-extent // block)), Var(f"{prefix}1l", block)
                variables.append(outer)
                self._coords[1] = as_index(outer) * block + lane
                self.conditions = (Condition(self._coords[1], 0, extent),)
            else:
                var = Var(f"{prefix}{axis}", extent)
                variables.append(var)
                self._coords[axis] = as_index(var)
        if lane is not None:
            variables.append(lane)
        self.variables = tuple(variables)

    @property
    def is_contiguous(self) -> bool:
        """Whether the innermost memory dimension is folded, and long enough for lanes."""
        if self.layout.format.channel_block > 1:
            return 1 in self.axes
        moving = [d for d, e in enumerate(self.layout.shape) if e > 1]
        if not moving:
            return False
        inner = min(moving, key=lambda d: (self.layout.strides[d], -d))
        return inner in self.axes and self._num_folded >= MIN_FOLDED

    @property
    def _num_folded(self) -> int:
        return math.prod(self.layout.shape[a] for a in self.axes)

    def source(self, coords: Sequence[Index], *, keeps_dims: bool) -> list[Index]:
        """Input coordinates for output coordinates."""
        kept = iter(coords)
        found: list[Index] = []
        for dim in range(len(self.layout.shape)):
            if dim in self.axes:
                found.append(self._coords[dim])
                if keeps_dims:
                    next(kept)
            else:
                found.append(next(kept))
        return found


def lower_reduce(problem: Problem) -> list[Nest]:
    """One accumulator per element of the output, or partial ones along contiguous memory."""
    operands = Operands(problem)
    params, layout, out = problem.params, problem.inputs[0], problem.outputs[0]
    axes = ReducedAxes(layout, params.axes)
    over = iterate(out, out.shape)
    x = operands.load(0, axes.source(over.coords, keeps_dims=params.keep_dims))
    kind = compute_type([x])
    count = math.prod(layout.shape[a] for a in params.axes)
    stages: list[Stage] = []
    if params.op == "log_sum_exp":
        peak = Local("peak", kind)
        stages.append(_reduce("peak", kind, "max", convert(x, kind), axes))
        finite = Select(
            Binary("eq", Binary("sub", _X, _X), Const(0.0)), _X, Const(0.0)
        )  # inf - inf is NaN
        powers = apply(Unary("exp", Binary("sub", _X, substituted(finite, 1))), [x, peak])
        stages.append(_reduce("total", kind, "add", powers, axes))
        result = apply(
            Binary("add", Unary("log", _X), substituted(finite, 1)), [Local("total", kind), peak]
        )
    else:
        before, op, after = _PLANS[params.op]
        stages.append(_reduce("total", kind, op, apply(before, [x]), axes))
        if params.op == "mean":
            after = Binary("div", _X, Const(float(count)))
        result = apply(after, [Local("total", kind)])
    stages.append(Emit((operands.store(0, over.coords, result),)))
    return [operands.nest(over, stages, is_vector=not axes.is_contiguous)]


def substituted(expr: Expr, number: int) -> Expr:
    """An expression over Input(0) with another input in its place."""
    return substitute(expr, [Input(number)])


def _reduce(name: str, kind: DataType, op: str, value: Value, axes: ReducedAxes) -> Reduce:
    init = {"add": 0.0, "mul": 1.0, "max": smallest(kind), "min": largest(kind)}[op]
    return Reduce(name, kind, op, init, value, axes.variables, axes.conditions)


def lower_arg_reduce(problem: Problem) -> list[Nest]:
    """First or last position of the largest or smallest element."""
    operands = Operands(problem)
    params, layout, out = problem.params, problem.inputs[0], problem.outputs[0]
    over = iterate(out, out.shape)
    var = Var("r", layout.shape[params.axis])
    coords = list(over.coords)
    if params.keep_dims:
        coords[params.axis] = as_index(var)
    else:
        coords.insert(params.axis, as_index(var))
    x = operands.load(0, coords)
    kind = compute_type([x])
    comparison = {"max": "g", "min": "l"}[params.op] + ("e" if params.select_last else "t")
    start = smallest(kind) if params.op == "max" else largest(kind)
    best = ArgBest("best", "where", comparison, convert(x, kind), var, start)
    position = apply(Binary("max", _X, Const(0.0)), [Local("where", DataType.INT64)])
    emit = Emit((operands.store(0, over.coords, position),))
    strides = layout.strides
    is_last = params.axis == min(range(len(strides)), key=lambda d: (strides[d], -d))
    return [operands.nest(over, [best, emit], is_vector=not is_last)]


def lower_top_k(problem: Problem) -> list[Section]:
    """K passes over a row; each finds the next one in the order (value, position)."""
    operands = Operands(problem)
    params, layout = problem.params, problem.inputs[0]
    if problem.epilogue is not None:
        raise NotLowerableError("top_k takes no epilogue")
    if 0 in problem.outputs[0].shape:
        return []
    axis = params.axis
    rows = [Var(f"i{d}", e) for d, e in enumerate(layout.shape) if d != axis]
    rank, item = Var("k", params.k), Var("j", layout.shape[axis])
    fixed = [as_index(v) for v in rows]
    x = operands.load(0, [*fixed[:axis], as_index(item), *fixed[axis:]])
    kind = compute_type([x])
    value, position = Local("value", kind), FromIndex(as_index(item))
    last, last_at = Local("last", kind), Local("last_at", DataType.INT64)
    best, best_at = Local("best", kind), Local("best_at", DataType.INT64)
    better, worse = ("gt", "lt") if params.largest else ("lt", "gt")
    start = largest(kind) if params.largest else smallest(kind)
    end = smallest(kind) if params.largest else largest(kind)

    def test(op: str, a: Value, b: Value) -> Value:
        return convert(Apply(Binary(op, Input(0), Input(1)), (a, b), kind), DataType.INT64)

    def both(op: str, a: Value, b: Value) -> Value:
        return Apply(Binary(op, Input(0), Input(1)), (a, b), DataType.INT64)

    def after(op: str, a: Value, b: Value) -> Value:
        return Apply(Binary(op, Input(0), Input(1)), (a, b), DataType.INT64)

    waits = both(
        "or",
        test(worse, value, last),
        both("and", test("eq", value, last), after("gt", position, last_at)),
    )
    wins = both("or", test(better, value, best), after("lt", best_at, Literal(0, DataType.INT64)))
    chosen = Local("chosen", DataType.INT64)
    pick = Select(Input(0), Input(1), Input(2))
    scan: list[Statement] = [
        Declare("value", kind),
        Assign(value, x),
        Declare("chosen", DataType.INT64),
        Assign(chosen, both("and", waits, wins)),
        Assign(best_at, Apply(pick, (chosen, position, best_at), DataType.INT64)),
        Assign(best, Apply(pick, (chosen, value, best), kind)),
    ]
    at = [*fixed[:axis], as_index(rank), *fixed[axis:]]
    ranks: list[Statement] = [
        Declare("best", kind),
        Declare("best_at", DataType.INT64),
        Assign(best, Literal(end, kind)),
        Assign(best_at, Literal(-1, DataType.INT64)),
        Loop(item, Index((), item.extent), tuple(scan)),
        Store(operands.outputs[0], offset(problem.outputs[0], at), best),
        Store(operands.outputs[1], offset(problem.outputs[1], at), best_at),
        Assign(last, best),
        Assign(last_at, best_at),
    ]
    body: list[Statement] = [
        Declare("last", kind),
        Declare("last_at", DataType.INT64),
        Assign(last, Literal(start, kind)),
        Assign(last_at, Literal(-1, DataType.INT64)),
        Loop(rank, Index((), rank.extent), tuple(ranks)),
    ]
    return [Section(tuple(rows), tuple(body))]


LOWERINGS: dict[str, Lowering] = {
    "reduce": lower_reduce,
    "arg_reduce": lower_arg_reduce,
    "top_k": lower_top_k,
}
