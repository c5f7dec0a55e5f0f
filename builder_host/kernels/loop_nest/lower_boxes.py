"""Box selection: greedy non-maximum suppression, one work unit per list."""

from __future__ import annotations

import math
from collections.abc import Sequence

from builder_host.codegen.indices import Index, Var, as_index
from builder_host.codegen.loop_nest import (
    Apply,
    Assign,
    Declare,
    FromIndex,
    If,
    Literal,
    Load,
    Local,
    Loop,
    Section,
    Statement,
    Store,
    Value,
)
from builder_host.expressions import Binary, Const, Expr, Input, Select
from builder_host.kernels.family import Problem
from builder_host.kernels.loop_nest.dynamic_index import integer, is_true, position
from builder_host.kernels.loop_nest.operands import (
    Lowering,
    NotLowerableError,
    Operands,
    offset,
)
from builder_host.network.layers.box_selection import BoxSelectionParams
from planformat.datatypes import DataType

_F32, _I64 = DataType.FLOAT32, DataType.INT64
_X, _Y, _Z = Input(0), Input(1), Input(2)


def lower(problem: Problem) -> list[Section]:
    """Each pass over the scores finds the best box after the last one that overlaps no kept box.

    Overlaps are computed only for a box that would be the new best, so that a pass costs little
    more than reading the scores; nothing but the result itself is remembered.
    """
    if problem.epilogue is not None:
        raise NotLowerableError("box_selection takes no epilogue")
    operands, params = Operands(problem), problem.params
    boxes, out = problem.inputs[0], problem.outputs[0]
    if any(layout.dtype not in (_F32, DataType.FLOAT16) for layout in problem.inputs[:2]):
        raise NotLowerableError("boxes and scores must be float32 or float16")
    if 0 in out.shape:
        return []
    batch, number = Var("b", out.shape[0]), Var("c", out.shape[1])
    rank, item, kept = Var("k", out.shape[2]), Var("i", boxes.shape[1]), Var("j", out.shape[2])
    b, c = as_index(batch), as_index(number)
    last, last_at = Local("last", _F32), Local("last_at", _I64)
    best, best_at = Local("best", _F32), Local("best_at", _I64)
    score, chosen, overlaps = Local("score", _F32), Local("chosen", _I64), Local("overlaps", _I64)
    other, ratio = Local("other", _I64), Local("ratio", _F32)
    place = FromIndex(as_index(item))

    def corners(index: Index) -> list[Value]:
        box = [operands.load(0, [b, index, as_index(d)]) for d in range(4)]
        return [Apply(expr, tuple(box), _F32) for expr in _corner_expressions(params)]

    follows = _either(
        _test(Binary("lt", _X, _Y), score, last),
        _both(
            _test(Binary("eq", _X, _Y), score, last),
            integer(Binary("gt", _X, _Y), place, last_at),
        ),
    )
    leads = _either(
        _test(Binary("gt", _X, _Y), score, best), integer(Binary("lt", _X, Const(0.0)), best_at)
    )
    eligible = _both(follows, leads)
    if params.score_threshold is not None:
        above = Binary("gt", _X, Const(params.score_threshold))
        eligible = _both(eligible, _test(above, score))
    picked = Load(operands.outputs[0], offset(out, [b, c, as_index(kept)]))
    overlap = Apply(
        _OVERLAP, (*corners(as_index(item)), *corners(position(other, boxes.shape[1]))), _F32
    )
    too_close = _test(Binary("gt", _X, Const(params.iou_threshold)), ratio)
    against: tuple[Statement, ...] = (
        Declare("other", _I64),
        Assign(other, picked),
        Declare("ratio", _F32),
        Assign(ratio, overlap),
        Assign(overlaps, _either(overlaps, too_close)),
    )
    compare: tuple[Statement, ...] = (
        Declare("overlaps", _I64),
        Assign(overlaps, Literal(0, _I64)),
        Loop(kept, as_index(rank), against),
        If(
            (is_true(integer(Binary("eq", _X, Const(0.0)), overlaps)),),
            (Assign(best, score), Assign(best_at, place)),
        ),
    )
    scan: tuple[Statement, ...] = (
        Declare("score", _F32),
        Assign(score, operands.load(1, [b, c, as_index(item)])),
        Declare("chosen", _I64),
        Assign(chosen, eligible),
        If((is_true(chosen),), compare),
    )
    is_open = integer(Binary("lt", _X, Const(float(item.extent))), last_at)  # else none is left
    none_left = Select(Binary("lt", _X, Const(0.0)), Const(float(item.extent)), _X)
    ranks: tuple[Statement, ...] = (
        Declare("best", _F32),
        Declare("best_at", _I64),
        Assign(best, Literal(-math.inf, _F32)),
        Assign(best_at, Literal(-1, _I64)),
        If((is_true(is_open),), (Loop(item, Index((), item.extent), scan),)),
        Store(operands.outputs[0], offset(out, [b, c, as_index(rank)]), best_at),
        Assign(last, best),
        Assign(last_at, integer(none_left, best_at)),
    )
    body: tuple[Statement, ...] = (
        Declare("last", _F32),
        Declare("last_at", _I64),
        Assign(last, Literal(math.inf, _F32)),
        Assign(last_at, Literal(-1, _I64)),
        Loop(rank, Index((), rank.extent), ranks),
    )
    return [Section((batch, number), body)]


def _test(expr: Expr, *values: Value) -> Value:
    """A comparison of floats as an integer."""
    return integer(_X, Apply(expr, values, _F32))


def _both(a: Value, b: Value) -> Value:
    return integer(Binary("and", _X, _Y), a, b)


def _either(a: Value, b: Value) -> Value:
    return integer(Binary("or", _X, _Y), a, b)


def _corner_expressions(params: BoxSelectionParams) -> Sequence[Expr]:
    """Top, left, bottom, right over the four stored numbers."""
    a, b, c, d = (Input(k) for k in range(4))
    if params.is_centred:
        half_width, half_height = (Binary("mul", e, Const(0.5)) for e in (c, d))
        return (
            Binary("sub", b, half_height),
            Binary("sub", a, half_width),
            Binary("add", b, half_height),
            Binary("add", a, half_width),
        )
    return Binary("min", a, c), Binary("min", b, d), Binary("max", a, c), Binary("max", b, d)


def _overlap_expression() -> Expr:
    """Intersection over union of boxes Input(0..3) and Input(4..7); 0 without area."""
    box, other = [Input(k) for k in range(4)], [Input(k) for k in range(4, 8)]

    def side(low: int, high: int) -> Expr:
        reach = Binary("min", box[high], other[high])
        length = Binary("sub", reach, Binary("max", box[low], other[low]))
        return Binary("max", length, Const(0.0))

    def area(corners: Sequence[Expr]) -> Expr:
        height, width = (Binary("sub", corners[k + 2], corners[k]) for k in (0, 1))
        return Binary("mul", height, width)

    inter = Binary("mul", side(0, 2), side(1, 3))
    union = Binary("sub", Binary("add", area(box), area(other)), inter)
    is_real = Binary("and", Binary("gt", inter, Const(0.0)), Binary("gt", union, Const(0.0)))
    return Select(is_real, Binary("div", inter, union), Const(0.0))


_OVERLAP = _overlap_expression()
LOWERINGS: dict[str, Lowering] = {"box_selection": lower}
