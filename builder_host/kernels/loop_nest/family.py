"""The loop-nest family: every generated kernel. Lowerings are found by scanning this folder."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.codegen import nest as nest_module
from builder_host.codegen.loop_nest import Kernel, Section
from builder_host.codegen.loop_nest_c import print_kernel
from builder_host.codegen.loop_schedule import schedule
from builder_host.expressions import num_operations
from builder_host.kernels import loop_nest as package
from builder_host.kernels.family import (
    KernelFamily,
    Launch,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.kernels.loop_nest.operands import (
    CONSTANT_SLACK,
    Lowering,
    NotLowerableError,
)
from builder_host.registry import RegistryError, collect_definitions
from builder_host.target import CpuTarget

Array = npt.NDArray[Any]

# Nanoseconds per inner operation of one worker at 16 float lanes; measured on Zen 4. Kinds that
# move memory are held against the bandwidth too.
_NS_PER_OPERATION = {
    "convolution": 0.8,
    "deconvolution": 2.0,
    "pooling": 0.5,
    "fully_connected": 0.15,
    "matrix_multiply": 0.15,
    "top_k": 1.5,
    "arg_reduce": 0.5,
    "gather": 0.5,
    "pad": 0.3,
    "transpose": 0.5,
    "reformat": 0.4,
    "resize": 0.4,
    "lrn": 0.3,
}
_NS_DEFAULT = 0.1
_STEP_US = 0.2
_PREFIX = "lower_"


@functools.cache
def lowerings() -> dict[str, Lowering]:
    """Lowering by layer kind. Raises RegistryError when two modules claim one kind."""
    found: dict[str, Lowering] = {}
    for module, table in collect_definitions(package, "LOWERINGS", prefix=_PREFIX).items():
        for kind, lowering in table.items():
            if kind in found:
                raise RegistryError(f"{_PREFIX}{module}.py lowers '{kind}', as another module does")
            found[kind] = lowering
    return found


class LoopNestFamily:
    """Generated code for any kind with a lowering, in any mix of formats."""

    name = "loop_nest"

    def __init__(self) -> None:
        """Hash the generator: this folder and the loop-nest modules of codegen."""
        here = Path(__file__).parent
        codegen = Path(nest_module.__file__).parent
        files = [*sorted(here.glob("*.py")), *sorted(codegen.glob("*nest*.py"))]
        files += [codegen / name for name in ("indices.py", "loop_schedule.py", "c_expression.py")]
        files.append(codegen / "c_integer_expression.py")
        self.template_hash = template_hash(*(path.read_text() for path in files))

    def applies(self, problem: Problem, target: Any) -> bool:
        """Whether the kind has a lowering that takes these types and formats."""
        if not isinstance(target, CpuTarget):
            return False
        try:
            _sections(problem)
        except NotLowerableError:
            return False
        return True

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """The larger of a rate per inner operation and the memory traffic."""
        operations: int = 0
        for lowered in _lowered(problem):
            if isinstance(lowered, Section):
                operations += problem.inputs[0].stored_elems * problem.params.k
            else:
                operations += lowered.num_operations
        own = _NS_PER_OPERATION.get(problem.kind, _NS_DEFAULT)
        if problem.epilogue is not None:
            own += 0.02 * num_operations(problem.epilogue.expr)
        lanes: float = min(1.0, target.vector_elems / 16)
        compute_us = operations * own / max(lanes, 0.25) * 1e-3
        moved = sum(layout.stored_bytes for layout in (*problem.inputs, *problem.outputs))
        return float(_STEP_US + max(compute_us, moved / (target.memory_gbps * 1e3)))

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """One: the schedule is fixed by rule."""
        del problem, target
        return [Tactic(self.name)]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch for all nests of the problem."""
        del target
        sections = _sections(problem)
        symbol = symbol_for(
            f"loop_nest_{problem.kind}", problem.text(), tactic.text, self.template_hash
        )
        kernel = Kernel(symbol, sections)
        source = '#include "ep_vector.h"\n\n' + print_kernel(kernel)
        return Program(source, (Launch(symbol, kernel.num_units),))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Constants in their layout, with slack for whole-vector reads past the end."""
        del tactic, target
        packed: list[Array | None] = []
        for values, layout in zip(constants, problem.inputs, strict=True):
            if values is None:
                packed.append(None)
                continue
            flat = np.zeros(layout.stored_elems + CONSTANT_SLACK, dtype=values.dtype)
            strides = tuple(s * flat.itemsize for s in layout.strides)
            block = layout.format.channel_block
            if block == 1:
                view = np.lib.stride_tricks.as_strided(flat, layout.shape, strides)
                view[...] = values.reshape(layout.shape)
            else:
                n, c, h, w = layout.shape
                shape = (n, layout.num_channel_blocks, h, w, block)
                view = np.lib.stride_tricks.as_strided(flat, shape, (*strides, flat.itemsize))
                for channel in range(c):
                    view[:, channel // block, :, :, channel % block] = values[:, channel]
            packed.append(flat)
        return packed


def _lowered(problem: Problem) -> Sequence[nest_module.Nest | Section]:
    lowering = lowerings().get(problem.kind)
    if lowering is None:
        raise NotLowerableError(f"no lowering for {problem.kind}")
    return lowering(problem)


def _sections(problem: Problem) -> tuple[Section, ...]:
    found = []
    for lowered in _lowered(problem):
        section = lowered if isinstance(lowered, Section) else schedule(lowered)
        if section is not None:
            found.append(section)
    return tuple(found)


FAMILY: KernelFamily = LoopNestFamily()
