"""Kinds whose elements depend on those before them: running sums, coordinates of non-zeros."""

from __future__ import annotations

from collections.abc import Sequence

from builder_host.codegen.indices import Dynamic, Index, Var, as_index
from builder_host.codegen.loop_nest import (
    Assign,
    Declare,
    FromIndex,
    If,
    Literal,
    Local,
    Loop,
    Section,
    Statement,
    Store,
    convert,
)
from builder_host.expressions import Binary, Const, Input
from builder_host.kernels.family import Problem
from builder_host.kernels.loop_nest.dynamic_index import integer, is_inside, is_true
from builder_host.kernels.loop_nest.operands import (
    Lowering,
    NotLowerableError,
    Operands,
    apply,
    compute_type,
    offset,
)
from planformat.datatypes import DataType

_I64 = DataType.INT64


def lower_cumulative(problem: Problem) -> list[Section]:
    """One unit per line along the axis."""
    if problem.epilogue is not None:
        raise NotLowerableError("cumulative takes no epilogue")
    operands, params = Operands(problem), problem.params
    shape, axis = problem.outputs[0].shape, params.axis
    if 0 in shape:
        return []
    others = [Var(f"i{d}", e) for d, e in enumerate(shape) if d != axis]
    step = Var("step", shape[axis])
    place = as_index(step) * -1 + (shape[axis] - 1) if params.reverse else as_index(step)
    fixed = [as_index(v) for v in others]
    at = [*fixed[:axis], place, *fixed[axis:]]
    x = operands.load(0, at)
    kind = compute_type([x])
    total = Local("total", kind)
    fold = Binary("add" if params.op == "sum" else "mul", Input(0), Input(1))
    store = Store(
        operands.outputs[0],
        offset(problem.outputs[0], at),
        convert(total, operands.outputs[0].dtype),
    )
    update = Assign(total, apply(fold, [total, x]))
    start = Literal(0 if params.op == "sum" else 1, kind)
    body = (store, update) if params.exclusive else (update, store)
    return [
        Section(
            tuple(others),
            (Declare("total", kind), Assign(total, start), _loop(step, body)),
        )
    ]


def lower_non_zero(problem: Problem) -> list[Section]:
    """One unit: where an element goes depends on all before it."""
    operands = Operands(problem)
    if problem.epilogue is not None:
        raise NotLowerableError("non_zero takes no epilogue")
    x, out = problem.inputs[0], problem.outputs[0]
    bound = out.shape[1]
    if not bound:
        return []
    variables = [Var(f"i{d}", e) for d, e in enumerate(x.shape)]
    coords = [as_index(v) for v in variables]
    count = Local("count", _I64)
    column = Index(((Dynamic(count, 0, bound - 1), 1),))
    stored: list[Statement] = [
        Store(operands.outputs[0], offset(out, [as_index(d), column]), FromIndex(coord))
        for d, coord in enumerate(coords or [Index()])
    ]
    stored.append(Assign(count, integer(Binary("add", Input(0), Const(1.0)), count)))
    value = operands.load(0, coords)
    is_set = is_true(convert(value, DataType.BOOL))
    body: Sequence[Statement] = (If((is_set, is_inside(count, bound)), tuple(stored)),)
    for var in reversed(variables):
        body = (_loop(var, tuple(body)),)
    rest = Var("rest", bound)
    rows = Var("row", out.shape[0])
    empty = Store(
        operands.outputs[0], offset(out, [as_index(rows), as_index(rest)]), Literal(-1, _I64)
    )
    unused = is_inside(
        integer(Binary("sub", Input(0), Input(1)), FromIndex(as_index(rest)), count), bound
    )
    fill = _loop(rows, (_loop(rest, (If((unused,), (empty,)),)),))
    return [Section((), (Declare("count", _I64), Assign(count, Literal(0, _I64)), *body, fill))]


def _loop(var: Var, body: Sequence[Statement]) -> Loop:
    return Loop(var, Index((), var.extent), tuple(body))


LOWERINGS: dict[str, Lowering] = {
    "cumulative": lower_cumulative,
    "non_zero": lower_non_zero,
}
