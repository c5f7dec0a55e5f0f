"""What the parts of a generated CUDA kernel share: bodies, running numbers, plain stores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from builder_host.codegen.indices import Var
from builder_host.codegen.loop_nest import (
    If,
    Statement,
    Store,
)
from builder_host.codegen.loop_nest_cuda import (
    CudaPrinter,
    index_type,
)
from builder_host.codegen.nest import Emit, Nest, Reduce, accesses


@dataclass(frozen=True, slots=True)
class Part:
    """A device function body that covers `num_blocks` blocks.

    `packed`: buffers accessed several elements at a time, with the size in bytes; the body is then
    a template over `is_aligned`.
    """

    lines: list[str]
    num_blocks: int
    packed: tuple[tuple[str, int], ...] = ()


def has_state(nest: Nest) -> bool:
    return any(not isinstance(s, Emit) or s.variables for s in nest.stages)


def num_points(variables: Sequence[Var]) -> int:
    return math.prod(var.extent for var in variables)


def nest_index_type(nest: Nest) -> str:
    offsets = [offset for stage in nest.stages for _, offset in accesses(stage)]
    sizes = [num_points(nest.dims)]
    for stage in nest.stages:
        if isinstance(stage, Reduce | Emit):
            sizes.append(num_points(stage.variables))
    return index_type(offsets, max(sizes))


def unravel(name: str, variables: Sequence[Var], kind: str, indent: str) -> list[str]:
    """Declare variables from a running number; the last varies fastest. Consumes `name`."""
    lines = []
    for number, var in reversed(list(enumerate(variables))):
        if number == 0:
            lines.append(f"{indent}const {kind} {var.name} = {name};")
        else:
            lines.append(f"{indent}const {kind} {var.name} = {name} % {var.extent};")
            lines.append(f"{indent}{name} /= {var.extent};")
    return lines


def print_emit(printer: CudaPrinter, stage: Emit, indent: str) -> list[str]:
    stores = tuple(Store(s.buffer, s.offset, s.value) for s in stage.stores)
    conditions = tuple(c for c in stage.conditions if not c.is_always_true)
    statements: tuple[Statement, ...] = (If(conditions, stores),) if conditions else stores
    return [line for s in statements for line in printer.statement(s, indent)]
