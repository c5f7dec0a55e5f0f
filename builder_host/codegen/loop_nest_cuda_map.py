"""Nests without reductions on the threads of a GPU.

One thread per element, or per 16 bytes where memory allows that; copies that change which dimension
is contiguous go as square tiles through shared memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from builder_host.codegen.indices import Index, Var, as_index
from builder_host.codegen.loop_nest import (
    Apply,
    Buffer,
    Convert,
    FromIndex,
    Guarded,
    Load,
    Value,
    values_in,
)
from builder_host.codegen.loop_nest_cuda import (
    CUDA_TYPES,
    CudaPrinter,
    loads_in,
)
from builder_host.codegen.loop_nest_cuda_parts import (
    Part,
    nest_index_type,
    num_points,
    print_emit,
    unravel,
)
from builder_host.codegen.nest import Emit, Nest

MAP_THREADS = 128
TILE = 32  # side of a transposed tile
TILE_THREADS = 256
_MIN_TILE_EXTENT = 8
_PACK_BYTES = 16
_MIN_THREADS_PER_SM = 256  # fewer threads than this: give each of them less to do


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
        or num_points(nest.dims) // size < wanted // 2
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


def map_part(nest: Nest, num_threads: int, num_sms: int) -> Part:
    kind = nest_index_type(nest)
    size = _pack_size(nest, num_sms)
    dims = list(nest.dims)
    total = num_points(dims) // size
    lines = [
        f"  {kind} unit = static_cast<{kind}>(block) * {num_threads} + threadIdx.x;",
        f"  if (unit >= {total}) return;",
    ]
    if size == 1:
        lines += unravel("unit", dims, kind, "  ")
        printer = CudaPrinter(kind)
        for stage in nest.stages:
            assert isinstance(stage, Emit)
            lines += print_emit(printer, stage, "  ")
        return Part(lines, -(-total // num_threads))
    last = dims[-1]
    chunk = Var(f"{last.name}p", last.extent // size)
    lines += unravel("unit", [*dims[:-1], chunk], kind, "  ")
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
    return Part(lines, -(-total // num_threads), tuple(packed))


# --- transposing copies ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tile:
    along: Var  # contiguous in the target
    across: Var  # contiguous in the source
    load: Load


def find_tile(nest: Nest) -> _Tile | None:
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


def tile_part(nest: Nest, tile: _Tile, num_threads: int) -> Part:
    """Read along the source, write along the target; rows are one element longer than the tile."""
    kind = nest_index_type(nest)
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
        *unravel("unit", [*others, rows, columns], kind, "  "),
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
    return Part(lines, num_points([*others, rows, columns]))
