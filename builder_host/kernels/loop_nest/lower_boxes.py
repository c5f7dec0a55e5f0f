"""Box selection: greedy non-maximum suppression, one work unit per list."""

from __future__ import annotations

import math
from collections.abc import Sequence

from builder_host.codegen.indices import Dynamic, Index, Var, as_index
from builder_host.codegen.loop_nest import (
    Apply,
    Assign,
    Condition,
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
    offset,
)
from builder_host.network.layers.box_selection import BoxSelectionParams
from planformat.datatypes import DataType

_F32, _I64 = DataType.FLOAT32, DataType.INT64
_X, _Y, _Z = Input(0), Input(1), Input(2)
_KEPT, _IS_OPEN = Local("kept", _I64), Local("is_open", _I64)
_MIN_BLOCK = 32


def lower(problem: Problem) -> list[Section]:
    """Boxes in the order of their scores, each compared with those kept so far.

    The scores of a list are cut into blocks of about the square root of their number; the best
    remaining box of each block is at hand, so that the next box costs a look at every block and a
    pass over one. Nothing is sorted, and one list needs little more memory than its result.
    """
    if problem.epilogue is not None:
        raise NotLowerableError("box_selection takes no epilogue")
    if any(layout.dtype not in (_F32, DataType.FLOAT16) for layout in problem.inputs[:2]):
        raise NotLowerableError("boxes and scores must be float32 or float16")
    if 0 in problem.outputs[0].shape:
        return []
    return [_Selection(problem).section()]


class _Selection:
    """Statements of one list of one batch and class."""

    def __init__(self, problem: Problem) -> None:
        self.operands = Operands(problem)
        self.params: BoxSelectionParams = problem.params
        self.out = problem.outputs[0]
        self.most = self.out.shape[2]
        self.count = problem.inputs[0].shape[1]
        self.size = max(_MIN_BLOCK, math.isqrt(self.count - 1) + 1)
        self.num_blocks = -(-self.count // self.size)
        self.batch, self.number = Var("b", self.out.shape[0]), Var("c", self.out.shape[1])

    def section(self) -> Section:
        block, step, rest = (
            Var("block", self.num_blocks),
            Var("step", self.count),
            Var("k", self.most),
        )
        every, none = Literal(math.inf, _F32), Literal(-1, _I64)
        empty = Store(self.operands.outputs[0], self._slot(as_index(rest)), none)
        unused = integer(Binary("ge", _X, _Y), FromIndex(as_index(rest)), _KEPT)
        body: tuple[Statement, ...] = (
            Declare("tops", _F32, max(self.num_blocks, 2)),  # an array even for one block
            Declare("places", _I64, max(self.num_blocks, 2)),
            Declare("kept", _I64),
            Declare("is_open", _I64),
            Assign(_KEPT, Literal(0, _I64)),
            Assign(_IS_OPEN, Literal(1, _I64)),
            Loop(block, Index((), block.extent), self._next_of_block(as_index(block), every, none)),
            Loop(step, Index((), step.extent), (If((is_true(_IS_OPEN),), self._next_box()),)),
            Loop(rest, Index((), rest.extent), (If((is_true(unused),), (empty,)),)),
        )
        return Section((self.batch, self.number), body)

    def _slot(self, rank: Index) -> Index:
        return offset(self.out, [as_index(self.batch), as_index(self.number), rank])

    def _next_of_block(self, block: Index, last: Value, last_at: Value) -> tuple[Statement, ...]:
        """Set a block's best box behind the one given, in the order (score, number)."""
        inner = Var("inner", self.size)
        item = block * self.size + inner
        score, top, top_at = Local("score", _F32), Local("top", _F32), Local("top_at", _I64)
        place = FromIndex(item)
        follows = _either(
            _test(Binary("lt", _X, _Y), score, last),
            _both(
                _test(Binary("eq", _X, _Y), score, last),
                integer(Binary("gt", _X, _Y), place, last_at),
            ),
        )
        leads = _either(
            _test(Binary("gt", _X, _Y), score, top),
            integer(Binary("lt", _X, Const(0.0)), top_at),
        )
        eligible = _both(follows, leads)
        if self.params.score_threshold is not None:
            above = Binary("gt", _X, Const(self.params.score_threshold))
            eligible = _both(eligible, _test(above, score))
        chosen = Local("chosen", _I64)
        where = [as_index(self.batch), as_index(self.number), _within(item, self.count)]
        scan: tuple[Statement, ...] = (
            Declare("score", _F32),
            Assign(score, self.operands.load(1, where)),
            Declare("chosen", _I64),
            Assign(chosen, eligible),
            Assign(top_at, Apply(Select(_X, _Y, _Z), (chosen, place, top_at), _I64)),
            Assign(top, Apply(Select(_X, _Y, _Z), (chosen, score, top), _F32)),
        )
        exists = Condition(item, 0, self.count)
        return (
            Declare("top", _F32),
            Declare("top_at", _I64),
            Assign(top, Literal(-math.inf, _F32)),
            Assign(top_at, Literal(-1, _I64)),
            Loop(inner, Index((), inner.extent), (If((exists,), scan),)),
            Assign(Local("tops", _F32, block), top),
            Assign(Local("places", _I64, block), top_at),
        )

    def _next_box(self) -> tuple[Statement, ...]:
        """Take the best box of all blocks: keep it unless it overlaps, then go on in its block."""
        block = Var("block", self.num_blocks)
        best, best_at, home = Local("best", _F32), Local("best_at", _I64), Local("home", _I64)
        top, place = (
            Local(name, dtype, as_index(block))
            for name, dtype in (("tops", _F32), ("places", _I64))
        )
        is_better = _both(
            integer(Binary("ge", _X, Const(0.0)), place),
            _either(
                _test(Binary("gt", _X, _Y), top, best),
                integer(Binary("lt", _X, Const(0.0)), best_at),
            ),
        )
        search: tuple[Statement, ...] = (
            If(
                (is_true(is_better),),
                (
                    Assign(best, top),
                    Assign(best_at, place),
                    Assign(home, FromIndex(as_index(block))),
                ),
            ),
        )
        keep: tuple[Statement, ...] = (
            Store(self.operands.outputs[0], self._slot(position(_KEPT, self.most)), best_at),
            Assign(_KEPT, integer(Binary("add", _X, Const(1.0)), _KEPT)),
        )
        is_free = integer(Binary("eq", _X, Const(0.0)), Local("overlaps", _I64))
        has_room = integer(Binary("lt", _X, Const(float(self.most))), _KEPT)
        found: tuple[Statement, ...] = (
            *self._compare(position(best_at, self.count)),
            If((is_true(is_free),), keep),
            *self._next_of_block(position(home, self.num_blocks), best, best_at),
        )
        return (
            Declare("best", _F32),
            Declare("best_at", _I64),
            Declare("home", _I64),
            Assign(best, Literal(-math.inf, _F32)),
            Assign(best_at, Literal(-1, _I64)),
            Assign(home, Literal(0, _I64)),
            Loop(block, Index((), block.extent), search),
            If((is_inside(best_at, self.count),), found),
            Assign(_IS_OPEN, _both(integer(Binary("ge", _X, Const(0.0)), best_at), has_room)),
        )

    def _compare(self, item: Index) -> tuple[Statement, ...]:
        """Whether a box overlaps one of those kept so far."""
        rank = Var("rank", self.most)
        other, ratio = Local("other", _I64), Local("ratio", _F32)
        overlaps = Local("overlaps", _I64)
        boxes = (*self._corners(item), *self._corners(position(other, self.count)))
        too_close = _test(Binary("gt", _X, Const(self.params.iou_threshold)), ratio)
        against: tuple[Statement, ...] = (
            Declare("other", _I64),
            Assign(other, Load(self.operands.outputs[0], self._slot(as_index(rank)))),
            Declare("ratio", _F32),
            Assign(ratio, Apply(_OVERLAP, boxes, _F32)),
            Assign(overlaps, _either(overlaps, too_close)),
        )
        return (
            Declare("overlaps", _I64),
            Assign(overlaps, Literal(0, _I64)),
            Loop(rank, Index(((Dynamic(_KEPT, 0, self.most), 1),)), against),
        )

    def _corners(self, item: Index) -> list[Value]:
        box = [self.operands.load(0, [as_index(self.batch), item, as_index(d)]) for d in range(4)]
        return [Apply(expr, tuple(box), _F32) for expr in _corner_expressions(self.params)]


def _within(item: Index, count: int) -> Index:
    """The item as a coordinate; the caller tests that it is inside."""
    return position(FromIndex(item), count)


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
