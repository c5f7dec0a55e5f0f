"""Softmax on CUDA where the axis is contiguous: one load and one store per element."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder_host.codegen import cuda_expression
from builder_host.codegen.template import fill
from builder_host.kernels.cuda_gemm.product import CUDA_TYPES
from builder_host.kernels.cuda_loop_nest.cost import LAUNCH_US, bytes_us, tensors_bytes
from builder_host.kernels.family import (
    Array,
    GridLaunch,
    KernelFamily,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.layouts import Layout
from builder_host.targets.cuda import CudaTarget

_TEMPLATE = Path(__file__).with_name("kernel.cu").read_text()
_HEADERS = Path(cuda_expression.__file__).parent / "cuda_include"
_MAX_VALUES = 32  # of one row in the registers of one thread
_LANES = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
_BLOCK_THREADS = 128


class CudaSoftmaxFamily:
    """Kernel family `cuda_softmax`."""

    name = "cuda_softmax"
    device_kind = "cuda"
    template_hash = template_hash(
        _TEMPLATE,
        Path(__file__).read_text(),
        *(path.read_text() for path in sorted(_HEADERS.glob("*.cuh"))),
    )

    def applies(self, problem: Problem, target: Any) -> bool:
        """The axis is contiguous on both sides, the others join to rows; no operands."""
        if problem.kind != "softmax" or not isinstance(target, CudaTarget):
            return False
        x, y = problem.inputs[0], problem.outputs[0]
        if len(problem.inputs) != 1 or problem.is_constant[0] or 0 in x.shape:
            return False
        if x.dtype not in CUDA_TYPES or y.dtype not in CUDA_TYPES or x.format is not y.format:
            return False
        if x.format.channel_block > 1 or x.shape[problem.params.axis] > 1024 * _MAX_VALUES:
            return False
        axis = problem.params.axis
        return _row_stride(x, axis) is not None and _row_stride(y, axis) is not None

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Launch, two reductions, memory traffic."""
        return 1.4 * LAUNCH_US + bytes_us(tensors_bytes(problem), target)

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Threads per row: about four elements each, fewer threads where rows are many."""
        length, rows = _extents(problem)
        fits = [n for n in _LANES if n * _MAX_VALUES >= length and (n <= length or n == _LANES[0])]
        wanted = 4.0 if rows < target.num_sms * 4 else 8.0
        fits.sort(key=lambda n: abs(math.log2(length / n / wanted)))
        return [Tactic(self.name, (("lanes", lanes),)) for lanes in fits[:4]]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One kernel; a block has one row or several."""
        x, y, axis = problem.inputs[0], problem.outputs[0], problem.params.axis
        lanes = int(tactic.values["lanes"])
        length, rows = _extents(problem)
        rows_per_block = max(1, _BLOCK_THREADS // lanes)
        symbol = symbol_for(
            f"cuda_softmax_{x.dtype.text}_{length}_l{lanes}",
            *(self.template_hash, problem.text(), tactic.text, target.sm),
        )
        expr = problem.epilogue.expr if problem.epilogue else None
        source = fill(
            _TEMPLATE,
            {
                "KERNEL": symbol,
                "X_TYPE": CUDA_TYPES[x.dtype],
                "Y_TYPE": CUDA_TYPES[y.dtype],
                "NUM_ROWS": rows,
                "LENGTH": length,
                "X_STRIDE": _row_stride(x, axis) or 0,
                "Y_STRIDE": _row_stride(y, axis) or 0,
                "IS_LOG": int(problem.params.log),
                "LANES": lanes,
                "ROWS_PER_BLOCK": rows_per_block,
                "EPILOGUE": cuda_expression.print_cuda(expr, ["x0"]) if expr else "x0",
            },
        )
        launch = GridLaunch(
            symbol,
            (-(-rows // rows_per_block), 1, 1),
            (lanes * rows_per_block, 1, 1),
            is_dependent=target.has_dependent_launch,
        )
        return Program(source, (launch,))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """There are no constants."""
        del tactic, target, constants
        return [None] * len(problem.inputs)


def _extents(problem: Problem) -> tuple[int, int]:
    """Length of a row, and how many there are."""
    shape = problem.inputs[0].shape
    length = shape[problem.params.axis]
    return length, math.prod(shape) // length


def _row_stride(layout: Layout, axis: int) -> int | None:
    """Elements from row to row in the order of memory, None where that is not one stride."""
    if layout.strides[axis] != 1 and layout.shape[axis] != 1:
        return None
    pairs = [
        (stride, extent)
        for dim, (stride, extent) in enumerate(zip(layout.strides, layout.shape, strict=True))
        if dim != axis and extent > 1
    ]
    pairs.sort(reverse=True)
    for (outer, _), (inner, extent) in itertools.pairwise(pairs):
        if outer != inner * extent:
            return None
    return pairs[-1][0] if pairs else layout.shape[axis]


FAMILY: KernelFamily = CudaSoftmaxFamily()
