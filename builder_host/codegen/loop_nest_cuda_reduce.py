"""Nests with reductions on the threads of a GPU: points, and lanes that share each reduction.

Lanes join their results in a fixed order; neighbouring threads walk along contiguous memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from builder_host.codegen.indices import Var
from builder_host.codegen.loop_nest import (
    Apply,
    Assign,
    Condition,
    Local,
)
from builder_host.codegen.loop_nest_cuda import (
    CUDA_TYPES,
    CudaPrinter,
    conversion,
    literal,
)
from builder_host.codegen.loop_nest_cuda_parts import (
    Part,
    nest_index_type,
    num_points,
    print_emit,
    unravel,
)
from builder_host.codegen.nest import ArgBest, Emit, EmitTile, Nest, Reduce, Stage
from builder_host.expressions import Binary, Input
from planformat.datatypes import DataType

REDUCE_THREADS = 256
_SERIAL_THREADS = 128
_COMPARISONS = {"gt": (">", "<"), "ge": (">", ">"), "lt": ("<", "<"), "le": ("<", ">")}


def _reduced(nest: Nest) -> int:
    """Length of the longest reduction."""
    sizes = [1]
    for stage in nest.stages:
        if isinstance(stage, Reduce | Emit):
            sizes.append(num_points(stage.variables))
        elif isinstance(stage, ArgBest):
            sizes.append(stage.variable.extent)
    return max(sizes)


def _power_of_two(value: float, low: int, high: int) -> int:
    """The largest power of two up to `value`, within low..high."""
    size = low
    while size * 2 <= min(value, high):
        size *= 2
    return size


def share_of_lanes(nest: Nest, num_sms: int) -> tuple[int, int]:
    """Points per block, and threads that share the reductions of each point."""
    points, length = num_points(nest.dims), _reduced(nest)
    wanted = num_sms * 512
    if nest.is_vector:  # neighbouring points are contiguous: 32 of them side by side
        lanes = _power_of_two(min(length / 4, wanted / points), 1, 32)
        if lanes == 1:
            return _SERIAL_THREADS, 1
        return 32, lanes
    if points * 32 >= wanted or length < 256:
        lanes = 32 if length >= 24 else _power_of_two(length, 1, 32)
        return REDUCE_THREADS // lanes, lanes
    lanes = _power_of_two(min(length / 4, wanted / points), 32, 512)
    return max(1, 128 // lanes), lanes


def reduce_part(nest: Nest, num_threads: int, num_sms: int) -> Part:
    kind = nest_index_type(nest)
    points, lanes = share_of_lanes(nest, num_sms)
    points = num_threads // lanes  # another nest may have asked for more threads
    total = num_points(nest.dims)
    if nest.is_vector:
        where, lane = f"threadIdx.x % {points}", f"threadIdx.x / {points}"
    else:
        where, lane = f"threadIdx.x / {lanes}", f"threadIdx.x % {lanes}"
    lines = [
        f"  const int share = {lane if lanes > 1 else '0'};",
        f"  {kind} unit = static_cast<{kind}>(block) * {points} + "
        f"{where if lanes > 1 else 'threadIdx.x'};",
        f"  const bool is_live = unit < {total};",
        "  if (!is_live) unit = 0;  // all threads must meet at the barriers",
        *unravel("unit", nest.dims, kind, "  "),
        "  (void)share;",
    ]
    printer = CudaPrinter(kind)
    shape = _Shape(num_threads, points, lanes, not nest.is_vector)
    for stage in nest.stages:
        lines += _reduce_stage(printer, stage, shape, kind)
    return Part(lines, -(-total // points))


@dataclass(frozen=True, slots=True)
class _Shape:
    num_threads: int
    points: int
    lanes: int
    is_contiguous: bool

    @property
    def template(self) -> str:
        return f"{self.lanes}, {self.points}, {'true' if self.is_contiguous else 'false'}"


def _reduce_stage(printer: CudaPrinter, stage: Stage, shape: _Shape, kind: str) -> list[str]:
    match stage:
        case Reduce():
            return _reduction(printer, stage, shape, kind)
        case ArgBest():
            return _arg_best(printer, stage, shape, kind)
        case Emit(variables=()):
            inner = print_emit(printer, stage, "    ")
            return ["  if (is_live && share == 0) {", *inner, "  }"]
        case Emit():

            def body(indent: str) -> list[str]:
                return print_emit(printer, stage, indent)

            loop = _share_loop(printer, stage.variables, (), shape, kind, body, "    ")
            return ["  if (is_live) {", *loop, "  }"]
        case EmitTile():
            raise ValueError("vector tiles are made for CPUs only")


def _share_loop(
    printer: CudaPrinter,
    variables: Sequence[Var],
    conditions: Sequence[Condition],
    shape: _Shape,
    kind: str,
    body: Callable[[str], list[str]],
    indent: str,
) -> list[str]:
    """`body` for this thread's share of all values of the variables."""
    open_ = [c for c in conditions if not c.is_always_true]
    if shape.lanes == 1:
        return _nested_loop(printer, list(variables), open_, kind, body, indent)
    total = num_points(variables)
    head = f"{indent}for ({kind} item = share; item < {total}; item += {shape.lanes}) {{"
    inner = indent + "  "
    lines = [f'{indent}_Pragma("unroll 4")', head, f"{inner}{kind} part = item;"]
    lines += unravel("part", variables, kind, inner) or [f"{inner}(void)part;"]
    return [*lines, *_guarded(printer, open_, body, inner), f"{indent}}}"]


def _guarded(
    printer: CudaPrinter,
    conditions: Sequence[Condition],
    body: Callable[[str], list[str]],
    indent: str,
) -> list[str]:
    if not conditions:
        return body(indent)
    lines: list[str] = []
    test = printer.conditions(conditions, lines, indent)
    return [*lines, f"{indent}if ({test}) {{", *body(indent + "  "), f"{indent}}}"]


def _nested_loop(
    printer: CudaPrinter,
    variables: list[Var],
    conditions: list[Condition],
    kind: str,
    body: Callable[[str], list[str]],
    indent: str,
) -> list[str]:
    """Nested loops; every condition is tested as far out as its variables allow."""
    now = [c for c in conditions if not c.index.variables() & set(variables)]
    later = [c for c in conditions if c not in now]

    def inside(deeper: str) -> list[str]:
        if not variables:
            return body(deeper)
        var = variables[0]
        head = f"for ({kind} {var.name} = 0; {var.name} < {var.extent}; ++{var.name}) {{"
        inner = _nested_loop(printer, variables[1:], later, kind, body, deeper + "  ")
        return [f"{deeper}{head}", *inner, f"{deeper}}}"]

    return _guarded(printer, now, inside, indent)


def _reduction(printer: CudaPrinter, stage: Reduce, shape: _Shape, kind: str) -> list[str]:
    ctype = CUDA_TYPES[stage.dtype]
    compute = DataType.FLOAT32 if stage.dtype is DataType.FLOAT32 else DataType.INT64
    joined = Binary(stage.op, Input(0), Input(1))
    target = Local(stage.name, stage.dtype)

    def body(indent: str) -> list[str]:
        update = Apply(joined, (target, stage.value), compute)
        return printer.statement(Assign(target, update), indent)

    lines = [f"  {ctype} {stage.name} = {literal(stage.init, stage.dtype)};"]
    lines += _share_loop(printer, stage.variables, stage.conditions, shape, kind, body, "  ")
    if shape.lanes > 1:
        before: list[str] = []
        operands = (Local("a", stage.dtype), Local("b", stage.dtype))
        text = printer.value(Apply(joined, operands, compute), before, "")
        text = conversion(text, compute, stage.dtype)
        lines.append(
            f"  {stage.name} = ep_join_lanes<{shape.template}>({stage.name}, "
            f"[]({ctype} a, {ctype} b) -> {ctype} {{ {' '.join(before)} return {text}; }});"
        )
    return lines


def _arg_best(printer: CudaPrinter, stage: ArgBest, shape: _Shape, kind: str) -> list[str]:
    is_float = stage.value.dtype is DataType.FLOAT32
    dtype = DataType.FLOAT32 if is_float else DataType.INT64
    ctype = CUDA_TYPES[dtype]
    value, where = stage.value_name, stage.index_name
    sign = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}[stage.comparison]

    def body(indent: str) -> list[str]:
        before, text = printer.converted(stage.value, dtype, indent)
        name = printer.name()
        lines = [*before, f"{indent}const {ctype} {name} = {text};"]
        test = f"{name} {sign} {value}"
        if stage.eligible is not None:
            more, eligible = printer.converted(stage.eligible, DataType.INT64, indent)
            lines += more
            test = f"({eligible}) != 0 && {test}"
        update = f"{value} = {name}; {where} = {stage.variable.name};"
        return [*lines, f"{indent}if ({test}) {{ {update} }}"]

    lines = [
        f"  {ctype} {value} = {literal(stage.start, dtype)};",
        f"  ep_i64 {where} = -1;",
        *_share_loop(printer, (stage.variable,), (), shape, kind, body, "  "),
    ]
    if shape.lanes > 1:
        better, tie = _COMPARISONS[stage.comparison]
        lines.append(
            f"  ep_join_best<{shape.template}>({value}, {where}, []({ctype} a, ep_i64 at_a, "
            f"{ctype} b, ep_i64 at_b) -> bool {{ return at_b >= 0 && (at_a < 0 || b {better} a || "
            f"(b == a && at_b {tie} at_a)); }});"
        )
    return lines
