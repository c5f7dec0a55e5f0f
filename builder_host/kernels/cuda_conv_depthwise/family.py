"""Depthwise convolution in NHWC with vector loads: fp16, fp32 or INT8 storage, float sums.

Sums of INT8 products are exact in float32 as long as they stay below 2^24.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from builder_host.codegen.template import fill
from builder_host.kernels.cuda_conv_simt.epilogue import (
    CONVOLUTION_SOURCE,
    epilogue_parameters,
    grouped_weights,
    pack_operands,
    with_convolution,
)
from builder_host.kernels.cuda_conv_simt.geometry import Convolution, convolution_of
from builder_host.kernels.cuda_loop_nest.cost import clocks_us, stream_us
from builder_host.kernels.family import (
    Array,
    GridLaunch,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.targets.cuda import CudaTarget
from planformat.datatypes import DataType

_TEMPLATE = Path(__file__).with_name("kernel.cu").read_text()
_MOST_TACTICS = 12
_THREADS = (64, 128, 256)
_RUNS = (1, 2, 4, 8)
_VECTORS = (16, 8, 4, 2, 1)
_MAX_UNROLLED = 4096  # multiply-adds in the text of a thread
_MAX_SUMS = 32
_MAX_EXACT_SUM = 2**24  # of a float32

_BASE_CLOCKS = 1500.0
_ROW_CLOCKS = 120.0  # latency of one kernel row's loads, from the second row on


class CudaConvDepthwise:
    """Family `cuda_conv_depthwise`.

    Tactic parameters: vector: channels of a thread. run: its neighbouring pixels. threads: of a
    block.
    """

    name = "cuda_conv_depthwise"
    device_kind = "cuda"
    template_hash = template_hash(_TEMPLATE, CONVOLUTION_SOURCE, Path(__file__).read_text())

    def applies(self, problem: Problem, target: Any) -> bool:
        """One channel and one filter per group, channels innermost in x and y."""
        return _convolution(problem, target) is not None

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """The best tactic's estimate."""
        conv = _require(problem, target)
        return min(_cost_us(conv, target, v, r, t) for v, r, t in _choices(conv))

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Vectors and runs by the estimate."""
        conv = _require(problem, target)
        ranked = sorted(_choices(conv), key=lambda choice: _cost_us(conv, target, *choice))
        return [
            Tactic(self.name, (("run", run), ("threads", threads), ("vector", vector)))
            for vector, run, threads in ranked[:_MOST_TACTICS]
        ]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch."""
        conv = _require(problem, target)
        values = tactic.values
        vector, run, threads = (int(values[name]) for name in ("vector", "run", "threads"))
        symbol = symbol_for(
            f"conv_depthwise_{conv.x_dtype.text}_{conv.kernel_h}x{conv.kernel_w}s{conv.stride_h}"
            f"_{vector}x{run}_sm{target.sm}",
            self.template_hash, problem.text(), tactic.text,
        )  # fmt: skip
        parameters: dict[str, int | str] = {
            **conv.parameters_of(_TEMPLATE),
            **epilogue_parameters(conv),
            "SYMBOL": symbol,
            "VECTOR": vector,
            "RUN": run,
            "THREADS": threads,
        }
        launch = GridLaunch(
            symbol,
            (-(-_num_items(conv, vector, run) // threads), 1, 1),
            (threads, 1, 1),
            is_dependent=target.has_dependent_launch,
        )
        return Program(fill(with_convolution(_TEMPLATE), parameters), (launch,))

    def pack(
        self,
        problem: Problem,
        tactic: Tactic,  # noqa: ARG002
        target: Any,
        constants: Sequence[Array | None],
    ) -> list[Array | None]:
        """Weights tap after tap, channel vectors as floats."""
        conv = _require(problem, target)
        weights = constants[1]
        if weights is None:
            raise ValueError(f"{self.name}: the weights of {problem.text()} are not given")
        by_tap = grouped_weights(problem, conv, weights).reshape(conv.channels, conv.num_taps)
        packed = np.ascontiguousarray(by_tap.T).reshape(-1)
        return [None, packed, *pack_operands(conv, constants, 1)]


def _convolution(problem: Problem, target: Any) -> Convolution | None:
    """The problem where the family applies."""
    is_integer = bool(problem.inputs) and problem.inputs[0].dtype is DataType.INT8
    conv = convolution_of(problem, target, spans_groups=True, integers=is_integer)
    if conv is None or conv.is_transposed or not conv.groups == conv.channels == conv.filters:
        return None
    if conv.channels > 1 and (conv.x_strides[1] != 1 or conv.y_strides[1] != 1):
        return None
    if is_integer and conv.num_terms * 128 * 128 > _MAX_EXACT_SUM:
        return None
    return conv if _choices(conv) else None


def _require(problem: Problem, target: Any) -> Convolution:
    conv = _convolution(problem, target)
    if conv is None:
        raise ValueError(f"cuda_conv_depthwise does not apply to {problem.text()}")
    return conv


def _num_items(conv: Convolution, vector: int, run: int) -> int:
    return conv.batch * conv.out_h * -(-conv.out_w // run) * (conv.channels // vector)


def _choices(conv: Convolution) -> list[tuple[int, int, int]]:
    """(vector, run, threads) that fit registers and text."""
    widest = 16 // conv.x_dtype.size_bytes
    found = []
    for vector in _VECTORS:
        if vector > widest or conv.channels % vector or conv.x_vector % vector:
            continue
        for run in _RUNS:
            if run > 1 and (run * vector > _MAX_SUMS or run > conv.out_w):
                continue
            if run * vector * conv.num_taps > _MAX_UNROLLED:
                continue
            found += [(vector, run, threads) for threads in _THREADS]
    return found


def _cost_us(conv: Convolution, target: CudaTarget, vector: int, run: int, threads: int) -> float:
    """Loads of all threads over the SMs' rate of 64 bytes a clock, latency, and start."""
    items = _num_items(conv, vector, run)
    blocks = -(-items // threads)
    per_sm = -(-blocks // target.num_sms)
    columns = (run - 1) * conv.stride_w + (conv.kernel_w - 1) * conv.dilation_w + 1
    size = conv.x_dtype.size_bytes
    loads = conv.kernel_h * (columns + conv.kernel_w) * max(vector * size, 8) * threads / 64.0
    products = conv.num_taps * run * vector * threads / 128.0
    clocks = _BASE_CLOCKS + _ROW_CLOCKS * (conv.kernel_h - 1) + per_sm * (loads + products)
    return max(clocks_us(clocks, target), stream_us(conv.moved_bytes, target))


FAMILY = CudaConvDepthwise()
