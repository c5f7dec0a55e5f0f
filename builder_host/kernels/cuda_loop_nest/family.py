"""The loop-nest family on CUDA: the lowerings of `kernels/loop_nest`, printed for GPUs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.codegen import loop_nest_cuda
from builder_host.codegen.loop_nest import Section
from builder_host.codegen.loop_nest_cuda_kernels import Argument, print_cuda_kernel
from builder_host.codegen.nest import Nest, Reduce
from builder_host.kernels import loop_nest as lowering_package
from builder_host.kernels.cuda_loop_nest.cost import (
    LAUNCH_US,
    bytes_us,
    operations_us,
    tensors_bytes,
)
from builder_host.kernels.family import (
    GridLaunch,
    KernelFamily,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.kernels.loop_nest.family import lowerings
from builder_host.kernels.loop_nest.operands import CONSTANT_SLACK, NotLowerableError, Operands
from builder_host.targets.cuda import CudaTarget

Array = npt.NDArray[Any]

_SHARE = 1.1


class CudaLoopNestFamily:
    """Generated code for any kind with a lowering, on LINEAR and NHWC tensors."""

    name = "cuda_loop_nest"
    device_kind = "cuda"

    def __init__(self) -> None:
        """Hash the generator: the lowerings, the printers and the headers."""
        codegen = Path(loop_nest_cuda.__file__).parent
        files = [Path(__file__), *sorted(Path(lowering_package.__path__[0]).glob("*.py"))]
        names = ["nest", "nest_shape", "loop_nest", "indices"]
        names += ["cuda_expression", "c_integer_expression", "value_range"]
        names += [path.stem for path in codegen.glob("loop_nest_cuda*.py")]
        files += [codegen / f"{name}.py" for name in sorted(names)]
        files += sorted((codegen / "cuda_include").glob("*.cuh"))
        self.template_hash = template_hash(*(path.read_text() for path in files))

    def applies(self, problem: Problem, target: Any) -> bool:
        """Whether the kind has a lowering that takes these types; no blocked formats."""
        if not isinstance(target, CudaTarget):
            return False
        layouts = (*problem.inputs, *problem.outputs)
        if any(layout.format.channel_block > 1 for layout in layouts):
            return False
        try:
            _lowered(problem)
        except NotLowerableError:
            return False
        return True

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Launch, and the larger of memory traffic and operations of the threads there are.

        A little more than that, so that a hand-made kernel goes first where memory bounds both.
        """
        operations = threads = 0
        for nest in _lowered(problem):
            operations += nest.num_operations * _clocks_of_operation(nest)
            if isinstance(nest, Section):
                threads += nest.num_units
            else:
                threads += math.prod(v.extent for v in nest.dims) * (1 if nest.is_vector else 32)
        compute = operations_us(operations, target, num_threads=threads)
        return LAUNCH_US + _SHARE * max(compute, bytes_us(tensors_bytes(problem), target))

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """One: the mapping to threads is fixed by rule."""
        del problem, target
        return [Tactic(self.name)]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One kernel for all nests of the problem; none when nothing is to be computed."""
        symbol = symbol_for(
            f"cuda_loop_nest_{problem.kind}",
            problem.text(),
            tactic.text,
            self.template_hash,
            f"{target.num_sms} {target.has_dependent_launch}",
        )
        operands = Operands(problem)
        arguments = [Argument(b.name, b.dtype, False) for b in operands.inputs]
        arguments += [Argument(b.name, b.dtype, True) for b in operands.outputs]
        head = '#include "ep_cuda.cuh"\n\n'
        printed = print_cuda_kernel(symbol, arguments, _lowered(problem), target.num_sms)
        if printed is None:
            return Program(head, ())
        launch = GridLaunch(
            symbol,
            (printed.num_blocks, 1, 1),
            (printed.num_threads, 1, 1),
            is_dependent=target.has_dependent_launch,
        )
        return Program(head + printed.source, (launch,))

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
            view = np.lib.stride_tricks.as_strided(flat, layout.shape, strides)
            view[...] = values.reshape(layout.shape)
            packed.append(flat)
        return packed


def _clocks_of_operation(nest: Nest | Section) -> int:
    """Sums of integers take 64 bits: a multiply-add and conversions in four instructions."""
    if isinstance(nest, Section):
        return 1
    sums = [stage for stage in nest.stages if isinstance(stage, Reduce)]
    return 4 if any(not stage.dtype.is_float for stage in sums) else 1


def _lowered(problem: Problem) -> tuple[Nest | Section, ...]:
    lowering = lowerings().get(problem.kind)
    if lowering is None:
        raise NotLowerableError(f"no lowering for {problem.kind}")
    return tuple(lowering(problem))


FAMILY: KernelFamily = CudaLoopNestFamily()
