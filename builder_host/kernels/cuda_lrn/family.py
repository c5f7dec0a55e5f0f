"""Local response normalisation across channels on CUDA, channels last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder_host.codegen import cuda_expression
from builder_host.codegen.template import fill
from builder_host.kernels.cuda_gemm.product import CUDA_TYPES
from builder_host.kernels.cuda_loop_nest.cost import (
    LAUNCH_US,
    bytes_us,
    operations_us,
    tensors_bytes,
)
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
from planformat.datatypes import TensorFormat

_TEMPLATE = Path(__file__).with_name("kernel.cu").read_text()
_HEADERS = Path(cuda_expression.__file__).parent / "cuda_include"
_MAX_SIZE = 15  # values of a window and its packs stay in registers
_THREADS = 128
_OPERATIONS_PER_ELEMENT = 16


class CudaLrnFamily:
    """Kernel family `cuda_lrn`."""

    name = "cuda_lrn"
    device_kind = "cuda"
    template_hash = template_hash(
        _TEMPLATE,
        Path(__file__).read_text(),
        *(path.read_text() for path in sorted(_HEADERS.glob("*.cuh"))),
    )

    def applies(self, problem: Problem, target: Any) -> bool:
        """Across channels, NHWC on both sides, an even number of channels, no operands."""
        if problem.kind != "lrn" or not isinstance(target, CudaTarget):
            return False
        x, y, params = problem.inputs[0], problem.outputs[0], problem.params
        if len(problem.inputs) != 1 or problem.is_constant[0] or 0 in x.shape:
            return False
        if params.region != "across" or params.size > _MAX_SIZE or params.k <= 0:
            return False
        if x.dtype not in CUDA_TYPES or y.dtype not in CUDA_TYPES:
            return False
        if any(a.format is not TensorFormat.NHWC or a.strides[1] != 1 for a in (x, y)):
            return False
        return bool(_packs(problem)) and math.prod(y.shape) < 2**31

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Launch, and the larger of memory traffic and arithmetic."""
        count = math.prod(problem.outputs[0].shape) * _OPERATIONS_PER_ELEMENT
        compute = operations_us(count, target, num_threads=1e9)
        return LAUNCH_US + max(bytes_us(tensors_bytes(problem), target), compute)

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Channels per thread; those that fill the chip first."""
        outputs = math.prod(problem.outputs[0].shape)
        wanted = target.num_sms * 512
        packs = sorted(_packs(problem), key=lambda p: (abs(math.log2(outputs / p / wanted)), -p))
        return [Tactic(self.name, (("pack", pack),)) for pack in packs]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One kernel; a thread has some neighbouring channels of a pixel."""
        params, x, y = problem.params, problem.inputs[0], problem.outputs[0]
        pack = int(tactic.values["pack"])
        symbol = symbol_for(
            f"cuda_lrn_{x.dtype.text}_{params.size}_p{pack}",
            *(self.template_hash, problem.text(), tactic.text, target.sm),
        )
        expr = problem.epilogue.expr if problem.epilogue else None
        literal = cuda_expression.cuda_float_literal
        source = fill(
            _TEMPLATE,
            {
                "KERNEL": symbol,
                "X_TYPE": CUDA_TYPES[x.dtype],
                "Y_TYPE": CUDA_TYPES[y.dtype],
                "NUM_IMAGES": x.shape[0],
                "CHANNELS": x.shape[1],
                "HEIGHT": x.shape[2],
                "WIDTH": x.shape[3],
                "X_N": x.strides[0],
                "X_H": x.strides[2],
                "X_W": x.strides[3],
                "Y_N": y.strides[0],
                "Y_H": y.strides[2],
                "Y_W": y.strides[3],
                "SIZE": params.size,
                "SCALE": literal(params.alpha / params.size),
                "BIAS": literal(params.k),
                "BETA": literal(params.beta),
                "IS_THREE_QUARTERS": int(params.beta == 0.75),
                "PACK": pack,
                "NUM_THREADS": _THREADS,
                "EPILOGUE": cuda_expression.print_cuda(expr, ["x0"]) if expr else "x0",
            },
        )
        blocks = -(-(math.prod(y.shape) // pack) // _THREADS)
        launch = GridLaunch(
            symbol, (blocks, 1, 1), (_THREADS, 1, 1), is_dependent=target.has_dependent_launch
        )
        return Program(source, (launch,))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """There are no constants."""
        del tactic, target, constants
        return [None] * len(problem.inputs)


def _packs(problem: Problem) -> list[int]:
    """Channels per thread: all pixels start at multiples of it."""
    x, y = problem.inputs[0], problem.outputs[0]
    most = 16 // min(x.dtype.size_bytes, y.dtype.size_bytes)
    return [
        p for p in (8, 4, 2) if p <= most and x.shape[1] % p == 0 and _fits(x, p) and _fits(y, p)
    ]


def _fits(layout: Layout, pack: int) -> bool:
    pairs = zip(layout.shape, layout.strides, strict=True)
    return all(s % pack == 0 or e == 1 for dim, (e, s) in enumerate(pairs) if dim != 1)


FAMILY: KernelFamily = CudaLrnFamily()
