"""The loop-nest family: every generated kernel. Lowerings are found by scanning this folder."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.codegen import nest as nest_module
from builder_host.codegen.loop_nest import Kernel, Section
from builder_host.codegen.loop_nest_c import print_kernel
from builder_host.codegen.loop_schedule import schedule
from builder_host.expressions import BOOLEAN_OPS, Binary, Expr, Unary, children
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
from builder_host.kernels.traffic import traffic_us
from builder_host.network.layers import definition
from builder_host.registry import RegistryError, collect_definitions
from builder_host.targets.target import CpuTarget

Array = npt.NDArray[Any]

# Nanoseconds per inner operation of one worker with 16 float lanes, in LINEAR and in blocked form
# (measured on Zen 4). Memory traffic is a second bound. Hot kinds rank behind their own families.
_NS_PER_OPERATION = {
    "convolution": (0.8, 1.5),
    "deconvolution": (2.0, 2.0),
    "pooling": (0.5, 0.1),
    "fully_connected": (0.1, 0.5),
    "matrix_multiply": (0.1, 0.5),
    "top_k": (0.5, 0.5),
    "arg_reduce": (0.4, 0.4),
    "gather": (0.4, 0.4),
    "pad": (0.2, 0.1),
    "resize": (0.7, 0.07),
    "lrn": (0.09, 0.4),
    "softmax": (0.25, 0.5),
}
_NS_DEFAULT = (0.05, 0.05)
_NS_FUNCTION = 0.15  # a transcendental function or a quotient, per element
_CHEAP_OPS = frozenset({"add", "sub", "mul", "max", "min", "neg", "abs", "sqrt", *BOOLEAN_OPS})
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
    device_kind = "cpu"

    def __init__(self) -> None:
        """Hash the generator: this folder and the loop-nest modules of codegen."""
        here = Path(__file__).parent
        codegen = Path(nest_module.__file__).parent
        files = [*sorted(here.glob("*.py")), *sorted(codegen.glob("*nest*.py"))]
        files += [codegen / name for name in ("indices.py", "loop_schedule.py", "c_expression.py")]
        files += [codegen / name for name in ("c_integer_expression.py", "value_range.py")]
        self.template_hash = template_hash(*(path.read_text() for path in files))

    def applies(self, problem: Problem, target: Any) -> bool:
        """Whether the kind has a lowering that takes these types and formats."""
        if not isinstance(target, CpuTarget):
            return False
        try:
            _lowered(problem)
        except NotLowerableError:
            return False
        return True

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """The larger of a rate per inner operation and the memory traffic."""
        operations: int = 0
        for lowered in _lowered(problem):
            operations += lowered.num_operations
        is_blocked = problem.outputs[0].format.channel_block > 1
        own = _NS_PER_OPERATION.get(problem.kind, _NS_DEFAULT)[is_blocked]
        lanes: float = max(0.25, min(1.0, target.vector_elems / 16))
        functions = _num_functions(problem) * math.prod(problem.outputs[0].shape)
        compute_us = (operations * own + functions * _NS_FUNCTION) / lanes * 1e-3
        return float(_STEP_US + max(compute_us, traffic_us(problem, target)))

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """One: the schedule is fixed by rule."""
        del problem, target
        return [Tactic(self.name)]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch for all nests of the problem."""
        sections = _sections(problem, target.vector_elems)
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


def _num_functions(problem: Problem) -> int:
    """Costly operations per element in the problem's own expression and its epilogue."""

    def count(expr: Expr) -> int:
        own = isinstance(expr, Unary | Binary) and expr.op not in _CHEAP_OPS
        return int(own) + sum(count(child) for child in children(expr))

    total = count(problem.epilogue.expr) if problem.epilogue is not None else 0
    expression = getattr(definition(problem.kind), "expression", None)
    if expression is not None:
        total += count(expression(problem.params, problem.num_own_inputs))
    return total


def _lowered(problem: Problem) -> Sequence[nest_module.Nest | Section]:
    lowering = lowerings().get(problem.kind)
    if lowering is None:
        raise NotLowerableError(f"no lowering for {problem.kind}")
    return lowering(problem)


def _sections(problem: Problem, vector_elems: int) -> tuple[Section, ...]:
    found: list[Section] = []
    for lowered in _lowered(problem):
        if isinstance(lowered, Section):
            found.append(lowered)
        else:
            found.extend(schedule(lowered, vector_elems))
    return tuple(found)


FAMILY: KernelFamily = LoopNestFamily()
