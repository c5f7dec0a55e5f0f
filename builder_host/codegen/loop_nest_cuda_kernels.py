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

from collections.abc import Sequence
from dataclasses import dataclass, replace

from builder_host.codegen.indices import Dynamic, FloorDiv, Index, Minimum, Modulo, Var
from builder_host.codegen.loop_nest import (
    Assign,
    Buffer,
    If,
    Load,
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
    print_table,
)
from builder_host.codegen.loop_nest_cuda_map import (
    MAP_THREADS,
    TILE_THREADS,
    find_tile,
    map_part,
    tile_part,
)
from builder_host.codegen.loop_nest_cuda_parts import (
    Part,
    has_state,
    unravel,
)
from builder_host.codegen.loop_nest_cuda_reduce import reduce_part, share_of_lanes
from builder_host.codegen.nest import Nest, accesses
from builder_host.codegen.nest_shape import merged
from planformat.datatypes import DataType


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
    # A lowering may read an argument as another type of the same size.
    used = {buffer.name: buffer.dtype for n in ready for buffer in _buffers(n)}
    arguments = [replace(a, dtype=used.get(a.name, a.dtype)) for a in arguments]
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


def _wanted_threads(nest: Nest | Section, num_sms: int) -> int:
    if isinstance(nest, Section):
        return 32
    if not has_state(nest):
        return TILE_THREADS if find_tile(nest) is not None else MAP_THREADS
    points, lanes = share_of_lanes(nest, num_sms)
    return max(points * lanes, 32)


def _part(nest: Nest | Section, num_threads: int, num_sms: int) -> Part:
    if isinstance(nest, Section):
        return _units_part(nest, num_threads)
    if has_state(nest):
        return reduce_part(nest, num_threads, num_sms)
    tile = find_tile(nest)
    if tile is not None:
        return tile_part(nest, tile, num_threads)
    return map_part(nest, num_threads, num_sms)


# --- statements --------------------------------------------------------------------------------


def _units_part(section: Section, num_threads: int) -> Part:
    total = section.num_units
    lines = [
        f"  int unit = block * {num_threads} + threadIdx.x;",
        f"  if (unit >= {total}) return;",
        *unravel("unit", section.unit_vars, "int", "  "),
    ]
    printer = CudaPrinter("int")
    for statement in section.body:
        lines += printer.statement(statement, "  ")
    return Part(lines, -(-total // num_threads))


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
