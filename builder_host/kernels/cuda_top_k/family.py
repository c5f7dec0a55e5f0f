"""The k best of each row on CUDA: one block per row, one pass per rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder_host.codegen import cuda_expression
from builder_host.codegen.loop_nest_cuda import CUDA_TYPES, conversion, literal
from builder_host.codegen.template import fill
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
from planformat.datatypes import DataType

_TEMPLATE = Path(__file__).with_name("kernel.cu").read_text()
_HEADERS = Path(cuda_expression.__file__).parent / "cuda_include"
_PASS_US = 0.8  # a pass of one block over a short row (H200)


class CudaTopKFamily:
    """Kernel family `cuda_top_k`."""

    name = "cuda_top_k"
    device_kind = "cuda"
    template_hash = template_hash(
        _TEMPLATE,
        Path(__file__).read_text(),
        *(path.read_text() for path in sorted(_HEADERS.glob("*.cuh"))),
    )

    def applies(self, problem: Problem, target: Any) -> bool:
        """Any element type but float64, no blocked formats, no epilogue."""
        if problem.kind != "top_k" or not isinstance(target, CudaTarget):
            return False
        layouts = (*problem.inputs, *problem.outputs)
        if problem.epilogue is not None or any(problem.is_constant):
            return False
        if any(a.format.channel_block > 1 or 0 in a.shape for a in layouts):
            return False
        x, y, at = problem.inputs[0], problem.outputs[0], problem.outputs[1]
        if x.dtype in (DataType.FLOAT64, DataType.UINT64) or y.dtype is not x.dtype:
            return False
        return at.dtype is DataType.INT64 and _num_rows(problem) < 2**31

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Passes over rows, as many blocks at once as there are SMs."""
        waves = -(-_num_rows(problem) // (target.num_sms * 4))
        length = problem.inputs[0].shape[problem.params.axis]
        per_pass = _PASS_US * (1 + length / 8192)
        passes = problem.params.k * waves * per_pass
        return float(LAUNCH_US + max(bytes_us(tensors_bytes(problem), target), passes))

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Threads per row."""
        del target
        length = problem.inputs[0].shape[problem.params.axis]
        sizes = [n for n in (64, 256, 1024) if n == 64 or n <= length]
        sizes.sort(key=lambda n: abs(math.log2(length / n / 8)))
        return [Tactic(self.name, (("threads", n),)) for n in sizes]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One kernel; a block has a row."""
        params, x = problem.params, problem.inputs[0]
        compute = DataType.FLOAT32 if x.dtype.is_float else DataType.INT64
        threads = int(tactic.values["threads"])
        symbol = symbol_for(
            f"cuda_top_k_{x.dtype.text}_{params.k}of{x.shape[params.axis]}",
            *(self.template_hash, problem.text(), tactic.text, target.sm),
        )
        low, high = (-math.inf, math.inf) if x.dtype.is_float else (-(2**63), 2**63 - 1)
        layouts = (x, *problem.outputs)
        offsets = [_row_offset(layout, params.axis, x.shape) for layout in layouts]
        steps = [layout.strides[params.axis] for layout in layouts]
        source = fill(
            _TEMPLATE,
            {
                "KERNEL": symbol,
                "X_TYPE": CUDA_TYPES[x.dtype],
                "VALUE_TYPE": CUDA_TYPES[compute],
                "LOADED": conversion("element", x.dtype, compute),
                "STORED": conversion("best", compute, x.dtype),
                "LOWEST": literal(low, compute),
                "HIGHEST": literal(high, compute),
                "LENGTH": x.shape[params.axis],
                "K": params.k,
                "IS_LARGEST": int(params.largest),
                "X_STEP": steps[0],
                "Y_STEP": steps[1],
                "AT_STEP": steps[2],
                "ROW_OFFSETS": " ".join(
                    f"const ep_i64 {name} = {text};"
                    for name, text in zip(("x_row", "y_row", "at_row"), offsets, strict=True)
                ),
                "NUM_THREADS": threads,
            },
        )
        launch = GridLaunch(
            symbol,
            (_num_rows(problem), 1, 1),
            (threads, 1, 1),
            is_dependent=target.has_dependent_launch,
        )
        return Program(source, (launch,))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """There are no constants."""
        del tactic, target, constants
        return [None] * len(problem.inputs)


def _num_rows(problem: Problem) -> int:
    x = problem.inputs[0]
    return math.prod(e for d, e in enumerate(x.shape) if d != problem.params.axis)


def _row_offset(layout: Layout, axis: int, shape: tuple[int, ...]) -> str:
    """Offset of row number `row` in elements; the last dimension varies fastest."""
    terms, inner = [], 1
    for dim in reversed(range(len(shape))):
        if dim == axis or shape[dim] == 1:
            continue
        terms.append(f"row / {inner} % {shape[dim]} * {layout.strides[dim]}")
        inner *= shape[dim]
    return " + ".join(terms) or "0"


FAMILY: KernelFamily = CudaTopKFamily()
