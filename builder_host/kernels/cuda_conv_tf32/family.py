"""Convolution of float32 tensors with products in tf32: where the build allows it, sm_80 and later.

Any kernel, stride, padding, dilation, batch and group of NHWC tensors whose channels come in fours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
_TILE_K = 32
_PITCH = _TILE_K + 4
_STAGES = 3
_MAX_GRID = 65535
_MAX_DECONVOLUTION_STRIDE = 2
# pixels, filters, warps over pixels, warps over filters
_SHAPES = ((128, 64, 4, 1), (64, 64, 2, 2), (64, 32, 4, 1), (32, 64, 2, 2), (32, 32, 2, 2))
_BASE_CLOCKS = 2800.0
_STEP_CLOCKS = 500.0  # latency of one pass through the k loop of a lonely block
_PRODUCTS_PER_CLOCK = 512.0  # of one SM, a guess at half of an A100's rate


@dataclass(frozen=True, slots=True)
class _Tile:
    pixels: int
    filters: int
    warps_m: int
    warps_n: int

    @property
    def threads(self) -> int:
        return self.warps_m * self.warps_n * 32

    @property
    def shared_bytes(self) -> int:
        return _STAGES * 4 * _PITCH * (self.pixels + self.filters)

    def padded_filters(self, conv: Convolution) -> int:
        return -(-conv.group_filters // self.filters) * self.filters

    def grid(self, conv: Convolution) -> tuple[int, int, int]:
        tiles = conv.groups * self.padded_filters(conv) // self.filters
        return (1, tiles, -(-conv.pixels // self.pixels))


class CudaConvTf32:
    """Family `cuda_conv_tf32`; tactic parameters are the tile of a block and its warps."""

    name = "cuda_conv_tf32"
    device_kind = "cuda"
    template_hash = template_hash(_TEMPLATE, CONVOLUTION_SOURCE, Path(__file__).read_text())

    def applies(self, problem: Problem, target: Any) -> bool:
        """Where the layer may use tf32: floats in NHWC, groups of whole vectors of channels."""
        conv = convolution_of(problem, target)
        return conv is not None and _fits(conv, target)

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """The best tile's estimate."""
        conv = _require(problem, target)
        return min(_tile_us(tile, conv, target) for tile in _tiles(conv, target))

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Tiles by the estimate."""
        conv = _require(problem, target)
        return [
            Tactic(
                self.name,
                (
                    ("filters", tile.filters),
                    ("pixels", tile.pixels),
                    ("warps_m", tile.warps_m),
                    ("warps_n", tile.warps_n),
                ),
            )
            for tile in sorted(_tiles(conv, target), key=lambda t: _tile_us(t, conv, target))
        ]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch."""
        conv, tile = _require(problem, target), _tile(tactic)
        symbol = symbol_for(
            f"conv_tf32_{tile.pixels}x{tile.filters}x{_TILE_K}_sm{target.sm}",
            *(self.template_hash, problem.text(), tactic.text),
        )
        parameters: dict[str, int | str] = {
            **conv.parameters_of(_TEMPLATE),
            **epilogue_parameters(conv),
            "SYMBOL": symbol,
            "TILE_PIXELS": tile.pixels,
            "TILE_FILTERS": tile.filters,
            "WARPS_M": tile.warps_m,
            "WARPS_N": tile.warps_n,
            "STAGES": _STAGES,
        }
        launch = GridLaunch(
            symbol,
            tile.grid(conv),
            (tile.threads, 1, 1),
            shared_memory_bytes=tile.shared_bytes,
            is_dependent=target.has_dependent_launch,
        )
        return Program(fill(with_convolution(_TEMPLATE), parameters), (launch,))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Weights as [group, filter tile, step][filter][32 of k]; channel vectors as floats."""
        conv, tile = _require(problem, target), _tile(tactic)
        weights = constants[1]
        if weights is None:
            raise ValueError(f"{self.name}: the weights of {problem.text()} are not given")
        grouped = grouped_weights(problem, conv, weights)
        padded = tile.padded_filters(conv)
        depth = conv.num_taps * conv.group_channels
        steps = -(-depth // _TILE_K)
        whole = np.zeros((conv.groups, padded, steps * _TILE_K), np.float32)
        whole[:, : conv.group_filters, :depth] = grouped.reshape(
            conv.groups, conv.group_filters, -1
        )
        tiles = whole.reshape(conv.groups, padded // tile.filters, tile.filters, steps, _TILE_K)
        ordered = np.ascontiguousarray(tiles.transpose(0, 1, 3, 2, 4)).reshape(-1)
        return [None, ordered, *pack_operands(conv, constants, padded)]


def _fits(conv: Convolution, target: CudaTarget) -> bool:
    if conv.problem.math != "tf32" or not target.has_mma_k16:
        return False
    if conv.x_dtype is not DataType.FLOAT32 or conv.y_dtype is not DataType.FLOAT32:
        return False
    if conv.x_strides[1] != 1 or conv.x_vector != 4 or conv.group_channels % 4:
        return False
    if conv.groups > 1 and min(conv.group_channels, conv.group_filters) < 8:
        return False
    if conv.is_transposed and max(conv.stride_h, conv.stride_w) > _MAX_DECONVOLUTION_STRIDE:
        return False
    return bool(_tiles(conv, target))


def _require(problem: Problem, target: Any) -> Convolution:
    conv = convolution_of(problem, target)
    if conv is None or not _fits(conv, target):
        raise ValueError(f"cuda_conv_tf32 does not apply to {problem.text()}")
    return conv


def _tile(tactic: Tactic) -> _Tile:
    names = ("pixels", "filters", "warps_m", "warps_n")
    return _Tile(*(int(tactic.values[name]) for name in names))


def _tiles(conv: Convolution, target: CudaTarget) -> list[_Tile]:
    """Tiles that the target can launch."""
    return [
        tile
        for tile in (_Tile(*shape) for shape in _SHAPES)
        if max(tile.grid(conv)) <= _MAX_GRID and tile.shared_bytes <= target.shared_per_block_bytes
    ]


def _tile_us(tile: _Tile, conv: Convolution, target: CudaTarget) -> float:
    """Blocks over SMs: their products, or the latency of their steps."""
    _, y, z = tile.grid(conv)
    per_sm = -(-y * z // target.num_sms)
    steps = -(-conv.num_taps * conv.group_channels // _TILE_K)
    products = tile.pixels * tile.filters * _TILE_K / _PRODUCTS_PER_CLOCK
    step = max(products, _STEP_CLOCKS / min(per_sm, 4))
    clocks = _BASE_CLOCKS + per_sm * steps * step
    return max(clocks_us(clocks, target), stream_us(conv.moved_bytes, target))


FAMILY = CudaConvTf32()
