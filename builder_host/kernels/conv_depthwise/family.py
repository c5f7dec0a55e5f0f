"""Depthwise convolution: one filter per channel, on blocked tensors of floats, bfloat16 or 8 bits.

8-bit values are multiplied and added as floats, which is exact: sums stay below 2^24.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from builder_host.codegen.template import fill
from builder_host.kernels.conv_bf16.problem import bf16_convolution_of
from builder_host.kernels.conv_direct.epilogue import (
    LOADS,
    STORES,
    load_parameters,
    pack_rest,
)
from builder_host.kernels.conv_direct.geometry import Convolution, convolution_of, row_tiles
from builder_host.kernels.conv_int8.problem import integer_convolution_of
from builder_host.kernels.family import (
    Array,
    Launch,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.kernels.traffic import traffic_us
from planformat.datatypes import DataType

_TEMPLATE = Path(__file__).with_name("kernel.c").read_text()
_GENERATOR = Path(__file__).read_text()

_TILES_32 = ((1, 14), (2, 7), (1, 7), (2, 9), (1, 20))
_TILES_16 = ((1, 8), (2, 3), (1, 4), (1, 11))
_TILES_NEON = ((1, 14), (1, 7), (1, 10))
_MAX_SHARED_TAPS = 25
_MAX_SHARED_COLUMNS = 48
_UNITS_PER_WORKER = 4
_MAX_EXACT_TAPS = 2**24 // (255 * 128)  # sums of 8-bit products that float32 holds exactly


class ConvDepthwise:
    """Family `conv_depthwise`. Tactic parameters: rows, pixels: register tile."""

    name = "conv_depthwise"
    device_kind = "cpu"
    template_hash = template_hash(_TEMPLATE, _GENERATOR)

    def applies(self, problem: Problem, target: Any) -> bool:
        """Blocked x and y, as many groups as input channels and as output channels."""
        return _depthwise_of(problem, target) is not None

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Work including padded lanes at 90 % of peak, or traffic, whichever is longer.

        Measured on Zen 4 (17 layers of MobileNet-v2): 80 to 120 % of the nominal peak.
        """
        _, conv = _require(problem, target)
        padded = conv.out_blocks * conv.lanes
        compute_us = conv.flops * padded / conv.filters / (0.9e3 * target.fma_gflops_per_core)
        return float(max(compute_us, traffic_us(problem, target))) + 1.0

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Tiles that fit the registers, without those that the row or the kernel forbids."""
        _, conv = _require(problem, target)
        sizes = {"avx512": _TILES_32, "avx2": _TILES_16, "neon": _TILES_NEON}[target.isa]
        tiles: dict[tuple[int, int], None] = {}
        for rows, pixels in sizes:
            if rows == 1 or (_shares_columns(conv, pixels) and conv.num_taps <= 9):
                tiles[(min(rows, conv.out_h), min(pixels, conv.out_w))] = None
        return [Tactic(self.name, (("pixels", pixels), ("rows", rows))) for rows, pixels in tiles]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch; a unit is one image, one channel block and a chunk of rows."""
        canonical, conv = _require(problem, target)
        values = tactic.values
        pixels, rows = int(values["pixels"]), int(values["rows"])
        tiles, _ = row_tiles(conv, pixels)
        wanted = problem.num_workers * _UNITS_PER_WORKER if problem.num_workers > 1 else 1
        chunks = min(conv.out_h, -(-wanted // (conv.batch * conv.out_blocks)))
        rows_of_chunk = -(-conv.out_h // chunks)
        rows_per_unit = -(-rows_of_chunk // rows) * rows
        x, y = problem.inputs[0], problem.outputs[0]
        stem = (
            f"conv_depthwise_{x.dtype.text}_{conv.kernel_h}x{conv.kernel_w}s{conv.stride_h}"
            f"_{rows}x{pixels}_{target.isa}"
        )
        symbol = symbol_for(stem, _TEMPLATE, problem.text(), tactic.text, repr(target))
        parameters: dict[str, int | str] = {
            **conv.parameters_of(_TEMPLATE),
            **load_parameters(canonical, conv.operand_strides),
            "SYMBOL": symbol,
            "X_TYPE": LOADS[x.dtype][0],
            "LOAD_X": LOADS[x.dtype][1],
            "Y_TYPE": LOADS[y.dtype][0],
            "STORE_Y": STORES[y.dtype],
            "BLOCKS": conv.out_blocks,
            "ROWS_PER_UNIT": rows_per_unit,
            "TILE_ROWS": rows,
            "TILE_PIXELS": pixels,
            "ROW_TILES": tiles,
            "SHARE_COLUMNS": int(_shares_columns(conv, pixels) and "CLIPPED" not in tiles),
        }
        source = fill(_TEMPLATE, parameters)
        units = conv.batch * conv.out_blocks * -(-conv.out_h // rows_per_unit)
        return Program(source, (Launch(symbol, units),))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Weights [block][kh][kw][lane]; bias and epilogue constants padded to whole blocks."""
        del tactic
        _, conv = _require(problem, target)
        weights = constants[1]
        if weights is None:
            raise ValueError(f"{self.name}: the weights of {problem.text()} are not given")
        padded = np.zeros((conv.out_blocks * conv.lanes, conv.num_taps), np.float32)
        padded[: conv.filters] = weights.reshape(conv.filters, conv.num_taps)
        blocked = padded.reshape(conv.out_blocks, conv.lanes, conv.num_taps).transpose(0, 2, 1)
        return [None, np.ascontiguousarray(blocked), *pack_rest(problem, conv, constants)]


def _require(problem: Problem, target: Any) -> tuple[Problem, Convolution]:
    found = _depthwise_of(problem, target)
    if found is None:
        raise ValueError(f"conv_depthwise does not apply to {problem.text()}")
    return found


def _depthwise_of(problem: Problem, target: Any) -> tuple[Problem, Convolution] | None:
    """The problem as the kernel sees it, a bfloat16 bias as an operand, and its geometry."""
    found: tuple[Problem, Convolution] | None = None
    conv = convolution_of(problem, target)
    if conv is not None:
        found = (problem, conv)
    elif problem.inputs[0].dtype is DataType.BFLOAT16:
        found = bf16_convolution_of(problem, target)
    else:
        integer = integer_convolution_of(problem, target)
        if integer is not None and integer.conv.num_taps <= _MAX_EXACT_TAPS:
            found = (problem, integer.conv)
    if found is None or not found[1].x_is_blocked:
        return None
    return found if found[1].groups == found[1].channels == found[1].filters else None


def _shares_columns(conv: Convolution, pixels: int) -> bool:
    """Whether a row of input is short enough to be loaded once for all taps."""
    columns = (pixels - 1) * conv.stride_w + (conv.kernel_w - 1) * conv.dilation_w + 1
    rows = (conv.kernel_h - 1) * conv.dilation_h + 1
    return conv.num_taps <= _MAX_SHARED_TAPS and columns <= _MAX_SHARED_COLUMNS and rows <= 7


FAMILY = ConvDepthwise()
