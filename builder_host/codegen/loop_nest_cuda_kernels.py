"""Nests on the threads of a GPU: how points, lanes of reductions and tiles become blocks.

- Nests without reductions: one thread per element, or per 16 bytes where memory allows that.
- Nests with reductions: `points` x `lanes` threads per block; the lanes share each reduction and
  join their results in a fixed order. Neighbouring threads walk along contiguous memory.
- Transposing copies: square tiles through shared memory.
- Sections (statements that were not scheduled): one thread per unit.

All nests of a problem are parts of one kernel, told apart by their range of blocks. Constants and
live tensors alike are read with plain loads: inputs may be written by the kernel before this one
while this one starts, and a result may overwrite an operand in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from builder_host.codegen.indices import Dynamic, FloorDiv, Index, Minimum, Modulo, Var, as_index
from builder_host.codegen.loop_nest import (
    Apply,
    Assign,
    Buffer,
    Condition,
    Convert,
    FromIndex,
    Guarded,
    If,
    Load,
    Local,
    Loop,
    Section,
    Statement,
    Store,
    Value,
    values_in,
)
from builder_host.codegen.loop_nest_cuda import (
    CUDA_TYPES,
    CudaPrinter,
    conversion,
    index_type,
    literal,
    loads_in,
    print_table,
)
from builder_host.codegen.loop_schedule import merged
from builder_host.codegen.nest import ArgBest, Emit, EmitTile, Nest, Reduce, Stage, accesses
from builder_host.expressions import Binary, Input
from planformat.datatypes import DataType

MAP_THREADS = 128
REDUCE_THREADS = 256
TILE = 32  # side of a transposed tile
TILE_THREADS = 256
_MIN_TILE_EXTENT = 8
_PACK_BYTES = 16
_MIN_THREADS_PER_SM = 256  # fewer threads than this: give each of them less to do
_COMPARISONS = {"gt": (">", "<"), "ge": (">", ">"), "lt": ("<", "<"), "le": ("<", ">")}


@dataclass(frozen=True, slots=True)
class Argument:
    """One parameter of a kernel."""

    name: str
    dtype: DataType
    is_output: bool


@dataclass(frozen=True, slots=True)
class PrintedKernel:
    """Text of a kernel (without the include line) and its launch geometry."""

    source: str
    num_blocks: int
    num_threads: int


@dataclass(frozen=True, slots=True)
class _Part:
    """A device function body that covers `num_blocks` blocks.

    `packed`: buffers accessed several elements at a time, with the size in bytes; the body is then
    a template over `is_aligned`.
    """

    lines: list[str]
    num_blocks: int
    packed: tuple[tuple[str, int], ...] = ()


def print_cuda_kernel(
    symbol: str, arguments: Sequence[Argument], nests: Sequence[Nest | Section], num_sms: int
) -> PrintedKernel | None:
    """One kernel for all nests of a problem; None when there is nothing to compute.

    Args:
        symbol: name of the kernel.
        arguments: all parameters in order; buffers of the nests refer to them by name.
        nests: independent of each other.
        num_sms: multiprocessors that the work should fill.
    """
    ready = [merged(n) if isinstance(n, Nest) else n for n in nests if not _is_empty(n)]
    if not ready:
        return None
    num_threads = max(_wanted_threads(n, num_sms) for n in ready)
    parts = [_part(n, num_threads, num_sms) for n in ready]
    tables: dict[str, Buffer] = {}
    for nest in ready:
        for buffer in _buffers(nest):
            if buffer.argument is None:
                tables[buffer.name] = buffer
    if tables and len(ready) > 1:
        raise ValueError(f"{symbol}: tables of several nests in one kernel may share names")
    lines: list[str] = []
    for name in sorted(tables):
        lines += print_table(name, tables[name])
    parameters = ", ".join(
        f"{'' if a.is_output else 'const '}{CUDA_TYPES[a.dtype]} *{a.name}" for a in arguments
    )
    names = ", ".join(a.name for a in arguments)
    for number, part in enumerate(parts):
        if part.packed:
            lines.append("template <bool is_aligned>")
        lines.append(f"EP_DEVICE void {symbol}_{number}({parameters}, const int block) {{")
        lines += ["  (void)block;", *(f"  (void){a.name};" for a in arguments)]
        lines += [*part.lines, "}"]
    lines.append(
        f'extern "C" __global__ void __launch_bounds__({num_threads}) {symbol}({parameters}) {{'
    )
    lines += ["  ep_grid_wait();", "  ep_grid_launch();", "  const int block = blockIdx.x;"]
    first = 0
    for number, part in enumerate(parts):
        given = f"({names}, block - {first});"
        is_last = number + 1 == len(parts)
        test = "" if is_last else f"if (block < {first + part.num_blocks}) "
        end = "" if is_last else " return; "
        if part.packed:
            tests = (f"ep_is_aligned({name}, {size})" for name, size in part.packed)
            lines.append(f"  {test}{{")
            lines.append(f"    if ({' && '.join(tests)}) {symbol}_{number}<true>{given}")
            lines.append(f"    else {symbol}_{number}<false>{given}")
            lines.append(f"   {end}}}")
        else:
            lines.append(f"  {test}{{ {symbol}_{number}{given}{end} }}")
        first += part.num_blocks
    lines.append("}")
    return PrintedKernel("\n".join(lines) + "\n", first, num_threads)


def _is_empty(nest: Nest | Section) -> bool:
    variables = nest.dims if isinstance(nest, Nest) else nest.unit_vars
    return any(var.extent == 0 for var in variables)


def _has_state(nest: Nest) -> bool:
    return any(not isinstance(s, Emit) or s.variables for s in nest.stages)


def _num_points(variables: Sequence[Var]) -> int:
    return math.prod(var.extent for var in variables)


def _wanted_threads(nest: Nest | Section, num_sms: int) -> int:
    if isinstance(nest, Section):
        return 32
    if not _has_state(nest):
        return TILE_THREADS if _tile(nest) is not None else MAP_THREADS
    points, lanes = _lanes(nest, num_sms)
    return max(points * lanes, 32)


def _part(nest: Nest | Section, num_threads: int, num_sms: int) -> _Part:
    if isinstance(nest, Section):
        return _units_part(nest, num_threads)
    if _has_state(nest):
        return _reduce_part(nest, num_threads, num_sms)
    tile = _tile(nest)
    if tile is not None:
        return _tile_part(nest, tile, num_threads)
    return _map_part(nest, num_threads, num_sms)


def _index_type(nest: Nest) -> str:
    offsets = [offset for stage in nest.stages for _, offset in accesses(stage)]
    sizes = [_num_points(nest.dims)]
    for stage in nest.stages:
        if isinstance(stage, Reduce | Emit):
            sizes.append(_num_points(stage.variables))
    return index_type(offsets, max(sizes))


def _unravel(name: str, variables: Sequence[Var], kind: str, indent: str) -> list[str]:
    """Declare variables from a running number; the last varies fastest. Consumes `name`."""
    lines = []
    for number, var in reversed(list(enumerate(variables))):
        if number == 0:
            lines.append(f"{indent}const {kind} {var.name} = {name};")
        else:
            lines.append(f"{indent}const {kind} {var.name} = {name} % {var.extent};")
            lines.append(f"{indent}{name} /= {var.extent};")
    return lines


# --- one thread per element --------------------------------------------------------------------


def _pack_size(nest: Nest, num_sms: int) -> int:
    """Elements per thread along the last dimension."""
    if not nest.dims:
        return 1
    last = nest.dims[-1]
    if _is_conditional(nest):
        return 1
    sizes = [buffer.dtype.size_bytes for buffer, offset in _packable(nest, 2)]
    if not sizes:
        return 1
    size = _PACK_BYTES // min(sizes)
    wanted = num_sms * _MIN_THREADS_PER_SM
    while size > 1 and (
        last.extent % size
        or len(_packable(nest, size)) == 0
        or _num_points(nest.dims) // size < wanted // 2
    ):
        size //= 2
    return size


def _is_conditional(nest: Nest) -> bool:
    return any(isinstance(s, Emit) and s.conditions for s in nest.stages)


def _packable(nest: Nest, size: int) -> list[tuple[Buffer, Index]]:
    """Accesses that read or write `size` neighbours at a multiple of `size`."""
    last = nest.dims[-1]
    found = []
    for stage in nest.stages:
        assert isinstance(stage, Emit)
        for store in stage.stores:
            pairs = [(store.buffer, store.offset)]
            pairs += [(x.buffer, x.offset) for x in _unguarded_loads(store.value)]
            found += [(b, o) for b, o in pairs if b.argument is not None and _fits(o, last, size)]
    return found


def _fits(offset: Index, last: Var, size: int) -> bool:
    if offset.coefficient(last) != 1 or offset.const % size:
        return False
    return all(factor % size == 0 for atom, factor in offset.terms if atom is not last)


def _unguarded_loads(value: Value) -> list[Load]:
    match value:
        case Load():
            return [value]
        case Apply(args=args):
            return [load for argument in args for load in _unguarded_loads(argument)]
        case Convert(x=x):
            return _unguarded_loads(x)
        case _:
            return []


def _map_part(nest: Nest, num_threads: int, num_sms: int) -> _Part:
    kind = _index_type(nest)
    size = _pack_size(nest, num_sms)
    dims = list(nest.dims)
    total = _num_points(dims) // size
    lines = [
        f"  {kind} unit = static_cast<{kind}>(block) * {num_threads} + threadIdx.x;",
        f"  if (unit >= {total}) return;",
    ]
    if size == 1:
        lines += _unravel("unit", dims, kind, "  ")
        printer = CudaPrinter(kind)
        for stage in nest.stages:
            assert isinstance(stage, Emit)
            lines += _emit(printer, stage, "  ")
        return _Part(lines, -(-total // num_threads))
    last = dims[-1]
    chunk = Var(f"{last.name}p", last.extent // size)
    lines += _unravel("unit", [*dims[:-1], chunk], kind, "  ")
    start = as_index(chunk) * size
    lane = Var("lane", size)
    packs = set(_packable(nest, size))
    printer = CudaPrinter(kind)
    loaded: dict[tuple[str, Index], str] = {}
    stages = [s for s in nest.stages if isinstance(s, Emit)]
    moved = {last: start + lane}
    for stage in stages:
        for store in stage.stores:
            for load in _unguarded_loads(store.value):
                if (load.buffer, load.offset) not in packs:
                    continue
                key = (load.buffer.name, load.offset.substitute(moved))
                if key in loaded:
                    continue
                name = printer.name()
                loaded[key] = f"{name}.at[lane]"
                where = printer.index(load.offset.substitute({last: start}), lines, "  ")
                is_known = "true" if load.buffer.slack else "is_aligned"  # constants are
                lines.append(
                    f"  const auto {name} = "
                    f"ep_load_pack_if<{CUDA_TYPES[load.dtype]}, {size}, {is_known}>"
                    f"({load.buffer.name} + {where});"
                )
    printer.loaded = loaded
    body: list[str] = []
    after: list[str] = []
    for stage in stages:
        for store in stage.stores:
            before, text = printer.converted(
                store.value.substitute(moved), store.buffer.dtype, "    "
            )
            body += before
            if (store.buffer, store.offset) in packs:
                name = printer.name()
                ctype = CUDA_TYPES[store.buffer.dtype]
                lines.append(f"  EpPack<{ctype}, {size}> {name};")
                body.append(f"    {name}.at[lane] = {text};")
                where = printer.index(store.offset.substitute({last: start}), after, "  ")
                after.append(
                    f"  ep_store_pack_if<{ctype}, {size}, is_aligned>"
                    f"({store.buffer.name} + {where}, {name});"
                )
            else:
                where = printer.index(store.offset.substitute(moved), body, "    ")
                body.append(f"    {store.buffer.name}[{where}] = {text};")
    lines += [
        "  EP_UNROLL",
        f"  for (int lane = 0; lane < {size}; ++lane) {{",
        *body,
        "  }",
        *after,
    ]
    packed = sorted({(b.name, min(16, size * b.dtype.size_bytes)) for b, _ in packs if not b.slack})
    return _Part(lines, -(-total // num_threads), tuple(packed))


def _emit(printer: CudaPrinter, stage: Emit, indent: str) -> list[str]:
    stores = tuple(Store(s.buffer, s.offset, s.value) for s in stage.stores)
    conditions = tuple(c for c in stage.conditions if not c.is_always_true)
    statements: tuple[Statement, ...] = (If(conditions, stores),) if conditions else stores
    return [line for s in statements for line in printer.statement(s, indent)]


# --- transposing copies ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tile:
    along: Var  # contiguous in the target
    across: Var  # contiguous in the source
    load: Load


def _tile(nest: Nest) -> _Tile | None:
    """The two dimensions of a copy that changes which one is contiguous."""
    if len(nest.stages) != 1 or not isinstance(nest.stages[0], Emit):
        return None
    stage = nest.stages[0]
    if stage.variables or stage.conditions or len(stage.stores) != 1:
        return None
    store = stage.stores[0]
    loads = loads_in(store.value)
    if len(loads) != 1 or loads[0].buffer.argument is None:
        return None
    if any(isinstance(v, FromIndex | Guarded) for v in values_in(store.value)):
        return None
    load = loads[0]
    along = [v for v in nest.dims if store.offset.coefficient(v) == 1]
    across = [v for v in nest.dims if load.offset.coefficient(v) == 1]
    if len(along) != 1 or len(across) != 1 or along == across:
        return None
    a, b = along[0], across[0]
    if not load.offset.coefficient(a) or not store.offset.coefficient(b):
        return None
    if min(a.extent, b.extent) < _MIN_TILE_EXTENT or a.extent * b.extent < TILE * TILE:
        return None
    return _Tile(a, b, load)


def _tile_part(nest: Nest, tile: _Tile, num_threads: int) -> _Part:
    """Read along the source, write along the target; rows are one element longer than the tile."""
    kind = _index_type(nest)
    stage = nest.stages[0]
    assert isinstance(stage, Emit)
    store = stage.stores[0]
    a, b = tile.along, tile.across
    others = [v for v in nest.dims if v not in (a, b)]
    rows, columns = Var(f"{b.name}t", -(-b.extent // TILE)), Var(f"{a.name}t", -(-a.extent // TILE))
    ctype = CUDA_TYPES[tile.load.dtype]
    step = num_threads // TILE
    lines = [
        f"  __shared__ {ctype} tile[{TILE}][{TILE + 1}];",
        f"  {kind} unit = block;",
        *_unravel("unit", [*others, rows, columns], kind, "  "),
        f"  const int column = threadIdx.x % {TILE}, row = threadIdx.x / {TILE};",
    ]
    printer = CudaPrinter(kind)
    element, line = Var("element", TILE), Var("line", TILE)
    # The source: neighbours along b; line counts along a.
    read = {a: as_index(columns) * TILE + line, b: as_index(rows) * TILE + element}
    write = {a: as_index(columns) * TILE + element, b: as_index(rows) * TILE + line}
    for is_read, place in ((True, read), (False, write)):
        indent = "    "
        inner, outer = (b, a) if is_read else (a, b)
        tests = []
        for var, name in ((inner, "column"), (outer, "line")):
            if var.extent % TILE:
                base = rows if var is b else columns
                tests.append(f"{base.name} * {TILE} + {name} < {var.extent}")
        lines += [
            "  EP_UNROLL",
            f"  for (int line = row; line < {TILE}; line += {step}) {{",
            "    const int element = column;",
        ]
        body: list[str] = []
        if is_read:
            where = printer.index(tile.load.offset.substitute(place), body, indent)
            body.append(f"{indent}tile[line][element] = {tile.load.buffer.name}[{where}];")
        else:
            moved = store.value.substitute(place)
            printer.loaded = {
                (tile.load.buffer.name, load.offset): "tile[element][line]"
                for load in loads_in(moved)
            }
            before, text = printer.converted(moved, store.buffer.dtype, indent)
            body += before
            where = printer.index(store.offset.substitute(place), body, indent)
            body.append(f"{indent}{store.buffer.name}[{where}] = {text};")
        if tests:
            lines.append(f"    if ({' && '.join(tests)}) {{")
        lines += body
        if tests:
            lines.append("    }")
        lines.append("  }")
        if is_read:
            lines.append("  __syncthreads();")
    return _Part(lines, _num_points([*others, rows, columns]))


# --- reductions ----------------------------------------------------------------------------------


def _reduced(nest: Nest) -> int:
    """Length of the longest reduction."""
    sizes = [1]
    for stage in nest.stages:
        if isinstance(stage, Reduce | Emit):
            sizes.append(_num_points(stage.variables))
        elif isinstance(stage, ArgBest):
            sizes.append(stage.variable.extent)
    return max(sizes)


def _power_of_two(value: float, low: int, high: int) -> int:
    """The largest power of two up to `value`, within low..high."""
    size = low
    while size * 2 <= min(value, high):
        size *= 2
    return size


def _lanes(nest: Nest, num_sms: int) -> tuple[int, int]:
    """Points per block, and threads that share the reductions of each point."""
    points, length = _num_points(nest.dims), _reduced(nest)
    wanted = num_sms * 512
    if nest.is_vector:  # neighbouring points are contiguous: 32 of them side by side
        lanes = _power_of_two(min(length / 4, wanted / points), 1, 32)
        if lanes == 1:
            return MAP_THREADS, 1
        return 32, lanes
    if points * 32 >= wanted or length < 256:
        lanes = 32 if length >= 24 else _power_of_two(length, 1, 32)
        return REDUCE_THREADS // lanes, lanes
    lanes = _power_of_two(min(length / 4, wanted / points), 32, 512)
    return max(1, 128 // lanes), lanes


def _reduce_part(nest: Nest, num_threads: int, num_sms: int) -> _Part:
    kind = _index_type(nest)
    points, lanes = _lanes(nest, num_sms)
    points = num_threads // lanes  # another nest may have asked for more threads
    total = _num_points(nest.dims)
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
        *_unravel("unit", nest.dims, kind, "  "),
        "  (void)share;",
    ]
    printer = CudaPrinter(kind)
    shape = _Shape(num_threads, points, lanes, not nest.is_vector)
    for stage in nest.stages:
        lines += _reduce_stage(printer, stage, shape, kind)
    return _Part(lines, -(-total // points))


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
            inner = _emit(printer, stage, "    ")
            return ["  if (is_live && share == 0) {", *inner, "  }"]
        case Emit():

            def body(indent: str) -> list[str]:
                return _emit(printer, stage, indent)

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
    total = _num_points(variables)
    head = f"{indent}for ({kind} item = share; item < {total}; item += {shape.lanes}) {{"
    inner = indent + "  "
    lines = [f'{indent}_Pragma("unroll 4")', head, f"{inner}{kind} part = item;"]
    lines += _unravel("part", variables, kind, inner) or [f"{inner}(void)part;"]
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


# --- statements ----------------------------------------------------------------------------------


def _units_part(section: Section, num_threads: int) -> _Part:
    total = section.num_units
    lines = [
        f"  int unit = block * {num_threads} + threadIdx.x;",
        f"  if (unit >= {total}) return;",
        *_unravel("unit", section.unit_vars, "int", "  "),
    ]
    printer = CudaPrinter("int")
    for statement in section.body:
        lines += printer.statement(statement, "  ")
    return _Part(lines, -(-total // num_threads))


# --- buffers -----------------------------------------------------------------------------------


def _buffers(nest: Nest | Section) -> list[Buffer]:
    found: list[Buffer] = []
    if isinstance(nest, Nest):
        for stage in nest.stages:
            found += [buffer for buffer, _ in accesses(stage)]
    else:
        for statement in nest.body:
            _statement_buffers(statement, found)
    return found


def _statement_buffers(statement: Statement, found: list[Buffer]) -> None:
    match statement:
        case Assign(value=value):
            _value_buffers(value, found)
        case Store(buffer=buffer, offset=offset, value=value):
            found.append(buffer)
            _index_buffers(offset, found)
            _value_buffers(value, found)
        case Loop(body=body):
            for inner in body:
                _statement_buffers(inner, found)
        case If(body=body, otherwise=otherwise):
            for inner in (*body, *otherwise):
                _statement_buffers(inner, found)
        case _:
            return


def _value_buffers(value: Value, found: list[Buffer]) -> None:
    for part in values_in(value):
        if isinstance(part, Load):
            found.append(part.buffer)
            _index_buffers(part.offset, found)


def _index_buffers(index: Index, found: list[Buffer]) -> None:
    for atom, _ in index.terms:
        match atom:
            case Dynamic(value=value):
                _value_buffers(value, found)
            case FloorDiv(x=x) | Modulo(x=x):
                _index_buffers(x, found)
            case Minimum(a=a, b=b):
                _index_buffers(a, found)
                _index_buffers(b, found)
            case Var():
                continue
