"""Max and average pooling on CUDA: channels-last input; output too, or linear when one pixel.

Float16, float32, and 8 bits: their maximum and sum are exact in float32, and the epilogue of an
8-bit image is computed operation by operation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder_host.codegen import cuda_expression
from builder_host.codegen.template import fill
from builder_host.codegen.value_range import fits
from builder_host.kernels.cuda_conv_simt.geometry import c_type
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
from builder_host.network.layers.pooling import divisors
from builder_host.network.rules import EIGHT_BITS
from builder_host.targets.cuda import CudaTarget
from planformat.datatypes import TensorFormat

_HERE = Path(__file__).parent
_TEMPLATE = (_HERE / "kernel.cu").read_text()
_HEADERS = Path(cuda_expression.__file__).parent / "cuda_include"
_THREADS = 128
_MAX_EXACT_SUM = 2**24  # of a float32
_MIN_CELLS_SHARED = 16  # smaller windows are walked by one thread


class CudaPoolingFamily:
    """Kernel family `cuda_pooling`."""

    name = "cuda_pooling"
    device_kind = "cuda"
    template_hash = template_hash(
        _TEMPLATE,
        Path(__file__).read_text(),
        *(path.read_text() for path in sorted(_HEADERS.glob("*.cuh"))),
    )

    def applies(self, problem: Problem, target: Any) -> bool:
        """Rank 4, contiguous channels, an epilogue without operands."""
        if problem.kind != "pooling" or not isinstance(target, CudaTarget):
            return False
        x, y = problem.inputs[0], problem.outputs[0]
        if len(problem.inputs) != 1 or problem.is_constant[0] or len(x.shape) != 4:
            return False
        if not _types_apply(problem) or 0 in (*x.shape, *y.shape):
            return False
        if x.format is not TensorFormat.NHWC or x.strides[1] != 1:
            return False
        is_pixel = y.format is TensorFormat.LINEAR and y.shape[2:] == (1, 1)
        if not (y.format is TensorFormat.NHWC or is_pixel) or (y.strides[1] != 1 < y.shape[1]):
            return False
        return max(math.prod(y.shape), x.stored_elems // x.shape[0]) < 2**31

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Launch, and the larger of memory traffic and the cells of all windows."""
        cells = math.prod(problem.params.window) * math.prod(problem.outputs[0].shape)
        compute = operations_us(cells, target, num_threads=1e9)
        return LAUNCH_US + max(bytes_us(tensors_bytes(problem), target), compute)

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Channels per thread, and threads per window; those that fill the chip first."""
        cells = math.prod(problem.params.window)
        outputs = math.prod(problem.outputs[0].shape)
        wanted = target.num_sms * 512
        found = []
        for pack in _packs(problem):
            for lanes in (1, 4, 8, 16):
                if lanes > 1 and cells < max(_MIN_CELLS_SHARED, 2 * lanes):
                    continue
                distance = abs(math.log2(outputs / pack * lanes / wanted))
                found.append((distance, -pack, lanes))
        found.sort()
        return [
            Tactic(self.name, (("lanes", lanes), ("pack", -pack))) for _, pack, lanes in found[:8]
        ]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One kernel; a block is some neighbouring chunks of channels."""
        params, x, y = problem.params, problem.inputs[0], problem.outputs[0]
        pack, lanes = int(tactic.values["pack"]), int(tactic.values["lanes"])
        points = _THREADS if lanes == 1 else 32
        window = f"{params.window[0]}x{params.window[1]}"
        symbol = symbol_for(
            f"cuda_pooling_{params.mode}_{x.dtype.text}_{window}_p{pack}_l{lanes}",
            *(self.template_hash, problem.text(), tactic.text, target.sm),
        )
        counts = divisors(params, x.shape[2:])
        first = float(counts.reshape(-1)[0])
        is_padded = params.count_include_pad
        pads_begin = params.pads_begin if is_padded else (0, 0)
        pads_end = params.pads_end if is_padded else (0, 0)
        source = fill(
            _TEMPLATE,
            {
                "KERNEL": symbol,
                "X_TYPE": c_type(x.dtype),
                "Y_TYPE": c_type(y.dtype),
                "IS_MAX": int(params.mode == "max"),
                "NUM_IMAGES": x.shape[0],
                "CHANNELS": x.shape[1],
                "IN_H": x.shape[2],
                "IN_W": x.shape[3],
                "OUT_H": y.shape[2],
                "OUT_W": y.shape[3],
                "X_N": x.strides[0],
                "X_H": x.strides[2],
                "X_W": x.strides[3],
                "Y_N": y.strides[0],
                "Y_H": y.strides[2],
                "Y_W": y.strides[3],
                "WINDOW_H": params.window[0],
                "WINDOW_W": params.window[1],
                "STRIDE_H": params.strides[0],
                "STRIDE_W": params.strides[1],
                "PAD_TOP": params.pads_begin[0],
                "PAD_LEFT": params.pads_begin[1],
                "DILATION_H": params.dilations[0],
                "DILATION_W": params.dilations[1],
                "DIVISOR": f"{first}f" if (counts == first).all() else "0.0f",
                "COUNT_TOP": -pads_begin[0],
                "COUNT_BOTTOM": x.shape[2] + pads_end[0],
                "COUNT_LEFT": -pads_begin[1],
                "COUNT_RIGHT": x.shape[3] + pads_end[1],
                "PACK": pack,
                "POINTS": points,
                "LANES": lanes,
                "EPILOGUE": _printed(problem),
            },
        )
        total = math.prod(y.shape) // pack
        launch = GridLaunch(
            symbol,
            (-(-total // points), 1, 1),
            (points * lanes, 1, 1),
            is_dependent=target.has_dependent_launch,
        )
        return Program(source, (launch,))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """There are no constants."""
        del tactic, target, constants
        return [None] * len(problem.inputs)


def _types_apply(problem: Problem) -> bool:
    """Floats on both sides; or 8 bits in, and the maximum, a float or what is clipped to 8 bits."""
    x, y = problem.inputs[0].dtype, problem.outputs[0].dtype
    if x not in EIGHT_BITS:
        return x in CUDA_TYPES and y in CUDA_TYPES
    if math.prod(problem.params.window) * 255 > _MAX_EXACT_SUM:
        return False
    if y in CUDA_TYPES:
        return True
    if problem.epilogue is None:
        return problem.params.mode == "max" and x is y
    return fits(problem.epilogue.expr, y)


def _printed(problem: Problem) -> str:
    if problem.epilogue is None:
        return "x0"
    is_exact = problem.inputs[0].dtype in EIGHT_BITS
    return cuda_expression.print_cuda(problem.epilogue.expr, ["x0"], is_exact=is_exact)


def _packs(problem: Problem) -> list[int]:
    """Channels per thread, largest first: all pixels start at multiples of it."""
    x, y = problem.inputs[0], problem.outputs[0]
    most = 16 // min(x.dtype.size_bytes, y.dtype.size_bytes)
    found = [p for p in (16, 8, 4, 2) if p <= most and x.shape[1] % p == 0 and _fits(x, p)]
    return [p for p in found if _fits(y, p)] or [1]


def _fits(layout: Layout, pack: int) -> bool:
    pairs = zip(layout.shape, layout.strides, strict=True)
    return all(
        stride % pack == 0 or extent == 1 for dim, (extent, stride) in enumerate(pairs) if dim != 1
    )


FAMILY: KernelFamily = CudaPoolingFamily()
