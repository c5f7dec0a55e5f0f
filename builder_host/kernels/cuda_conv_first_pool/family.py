"""First layer and 2x2 maximum in one kernel on tensor cores: at most four channels, fp16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from builder_host.codegen.template import fill
from builder_host.kernels.cuda_conv_first.family import MAX_CHANNELS
from builder_host.kernels.cuda_conv_igemm.family import SUMS_SOURCE, with_sums
from builder_host.kernels.cuda_conv_igemm.tiles import Tile
from builder_host.kernels.cuda_conv_igemm.weights import fragment_weights
from builder_host.kernels.cuda_conv_pool.family import (
    GEOMETRY_SOURCE,
    WINDOWS_SOURCE,
    with_windows,
)
from builder_host.kernels.cuda_conv_pool.geometry import PooledConvolution, pooled_convolution_of
from builder_host.kernels.cuda_conv_simt.epilogue import (
    CONVOLUTION_SOURCE,
    epilogue_parameters,
    grouped_weights,
    pack_operands,
    with_convolution,
)
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
_MAX_UNROLLED_STEPS = 64
_MAX_SHARED_BYTES = 100 << 10
_NAMES = ("rows", "columns", "filters", "warps_m", "warps_n")

# (rows, columns, filters, warps over pixels, warps over filters)
_SHAPES = (
    (8, 16, 64, 4, 2),
    (4, 32, 64, 4, 2),
    (4, 16, 64, 2, 2),
    (8, 16, 32, 4, 1),
    (4, 16, 32, 4, 1),
    (4, 8, 32, 2, 1),
    (8, 8, 64, 4, 2),
    (16, 16, 32, 8, 1),
    (16, 16, 64, 8, 1),
)
# As in the family without pooling, whose fits they are.
_BASE_CLOCKS = 1800.0  # start, patch latency, drain
_PIXEL_CLOCKS = 0.35  # address and conversion of one patch pixel, shared by the block's threads


@dataclass(frozen=True, slots=True)
class _Shape:
    rows: int
    columns: int
    filters: int
    warps_m: int
    warps_n: int

    @property
    def tile(self) -> Tile:
        """As the weights' order goes by it."""
        pixels = self.rows * self.columns
        return Tile(pixels, self.filters, self.warps_m, self.warps_n, 1, 16, 1, 1, False)

    def grid(self, conv: PooledConvolution) -> tuple[int, int, int]:
        tiles = -(-conv.out_h // self.rows) * -(-conv.out_w // self.columns)
        return (conv.batch * tiles, -(-conv.filters // self.filters), 1)

    def patch_pixels(self, conv: PooledConvolution) -> int:
        height = (self.rows - 1) * conv.stride_h + (conv.kernel_h - 1) * conv.dilation_h + 1
        width = ((self.columns - 1) * conv.stride_w + 4 * _tap_quads(conv) + 2) // 2 * 2
        return height * width

    def shared_bytes(self, conv: PooledConvolution) -> int:
        copies = 2 if conv.stride_w % 2 else 1
        copy = -(-self.patch_pixels(conv) * 4 // 64) * 64 + 32
        return 2 * (_num_steps(conv) * 16 * self.filters + copies * copy)


class CudaConvFirstPool:
    """Family `cuda_conv_first_pool`.

    Tactic parameters: rows, columns: rectangle of the convolution's pixels of a block. filters: of
    a block. warps_m, warps_n: its warps over pixels and over filters.
    """

    name = "cuda_conv_first_pool"
    device_kind = "cuda"
    template_hash = template_hash(
        _TEMPLATE,
        WINDOWS_SOURCE,
        SUMS_SOURCE,
        CONVOLUTION_SOURCE,
        Path(__file__).read_text(),
        GEOMETRY_SOURCE,
    )

    def applies(self, problem: Problem, target: Any) -> bool:
        """At most four input channels, half weights and y, one group, no gaps between taps."""
        conv = pooled_convolution_of(problem, target, converts_x=True)
        return conv is not None and _fits(conv, target)

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """The best tile's estimate."""
        return _ranked(_require(problem, target), target)[0][0]

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Tiles by the estimate."""
        shapes = [shape for _, shape in _ranked(_require(problem, target), target)]
        return [
            Tactic(self.name, tuple(sorted((name, getattr(shape, name)) for name in _NAMES)))
            for shape in shapes[:_MOST_TACTICS]
        ]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch."""
        conv = _require(problem, target)
        shape = _shape(tactic)
        symbol = symbol_for(
            f"conv_first_pool_f16_{conv.kernel_h}x{conv.kernel_w}s{conv.stride_h}"
            f"_{shape.rows}x{shape.columns}x{shape.filters}_sm{target.sm}",
            self.template_hash, problem.text(), tactic.text,
        )  # fmt: skip
        parameters: dict[str, int | str] = {
            **conv.parameters_of(_TEMPLATE),
            **epilogue_parameters(conv),
            "SYMBOL": symbol,
            "TILE_PIXELS": shape.rows * shape.columns,
            "TILE_H": shape.rows,
            "TILE_W": shape.columns,
            "TILE_FILTERS": shape.filters,
            "WARPS_M": shape.warps_m,
            "WARPS_N": shape.warps_n,
        }
        launch = GridLaunch(
            symbol,
            shape.grid(conv),
            (shape.tile.threads, 1, 1),
            shared_memory_bytes=shape.shared_bytes(conv),
            is_dependent=target.has_dependent_launch,
        )
        source = with_windows(with_sums(with_convolution(_TEMPLATE)))
        return Program(fill(source, parameters), (launch,))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Weights as fragments with four channels per tap and whole quads of taps."""
        conv = _require(problem, target)
        weights = constants[1]
        if weights is None:
            raise ValueError(f"{self.name}: the weights of {problem.text()} are not given")
        tile = _shape(tactic).tile
        padded = tile.padded_filters(conv)
        by_tap = grouped_weights(problem, conv, weights).reshape(
            conv.filters, conv.kernel_h, conv.kernel_w, conv.channels
        )
        rows = np.zeros((1, conv.filters, conv.kernel_h, 4 * _tap_quads(conv), 4), np.float16)
        rows[0, :, :, : conv.kernel_w, : conv.channels] = by_tap
        flat = rows.reshape(1, conv.filters, conv.kernel_h, -1)
        fragments = fragment_weights(flat, tile, padded)
        return [None, fragments, *pack_operands(conv, constants, padded)]


def _tap_quads(conv: PooledConvolution) -> int:
    return -(-conv.kernel_w // 4)


def _num_steps(conv: PooledConvolution) -> int:
    return conv.kernel_h * _tap_quads(conv)


def _fits(conv: PooledConvolution, target: CudaTarget) -> bool:
    if not target.has_mma_f16 or conv.groups != 1:
        return False
    if conv.w_dtype is not DataType.FLOAT16 or conv.y_dtype is not DataType.FLOAT16:
        return False
    if conv.channels > MAX_CHANNELS or conv.dilation_w != 1:
        return False
    return _num_steps(conv) <= _MAX_UNROLLED_STEPS and bool(_ranked(conv, target))


def _require(problem: Problem, target: Any) -> PooledConvolution:
    conv = pooled_convolution_of(problem, target, converts_x=True)
    if conv is None or not _fits(conv, target):
        raise ValueError(f"cuda_conv_first_pool does not apply to {problem.text()}")
    return conv


def _shape(tactic: Tactic) -> _Shape:
    return _Shape(*(int(tactic.values[name]) for name in _NAMES))


def _ranked(conv: PooledConvolution, target: CudaTarget) -> list[tuple[float, _Shape]]:
    """Tiles that fit, with their estimates in microseconds, best first."""
    found = []
    for values in _SHAPES:
        shape = _Shape(*values)
        if shape.shared_bytes(conv) <= min(target.shared_per_block_bytes, _MAX_SHARED_BYTES):
            found.append((_cost_us(shape, conv, target), shape))
    return sorted(found, key=lambda item: item[0])


def _cost_us(shape: _Shape, conv: PooledConvolution, target: CudaTarget) -> float:
    """Blocks over SMs: products and patch pixels of a block, and fixed parts."""
    tiles, sets, _ = shape.grid(conv)
    per_sm = -(-tiles * sets // target.num_sms)
    rate = 1024.0 if target.has_mma_k16 else 512.0
    products = shape.rows * shape.columns * shape.filters * 16 * _num_steps(conv) / rate
    products *= max(1.0, 8.0 / (shape.tile.threads // 32 * min(per_sm, 4)))
    clocks = _BASE_CLOCKS + per_sm * (products + _PIXEL_CLOCKS * shape.patch_pixels(conv))
    return max(clocks_us(clocks, target), stream_us(conv.moved_bytes, target))


FAMILY = CudaConvFirstPool()
