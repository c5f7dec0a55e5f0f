"""Convolution of 8-bit tensors by dot products of four bytes: every architecture.

For GPUs without int8 tensor cores that the toolkit reaches (sm_61, sm_72), and for narrow groups on
all others. sm_53 and sm_62 lack the instruction and take four products: INT8 brings nothing there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from builder_host.codegen.template import fill
from builder_host.kernels.cuda_conv_igemm.tiles import OUTPUT_CLOCKS, SM_BYTES_PER_CLOCK
from builder_host.kernels.cuda_conv_int8.family import TERMS_SOURCE, with_terms
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

_TEMPLATE = Path(__file__).with_name("kernel.cu").read_text()
_TILE_K = 32
_MAX_GRID = 65535
_MAX_SUMS, _MAX_SUMS_TAKEN_APART = 32, 8  # of a thread
# pixels, filters, pixels of a thread, filters of a thread
_SHAPES = ((64, 64, 4, 4), (128, 32, 8, 4), (64, 32, 4, 4), (32, 64, 4, 4), (32, 32, 2, 4),
           (16, 32, 2, 4))  # fmt: skip
_BASE_CLOCKS = 2800.0  # as the other convolutions
_STEP_CLOCKS = 350.0  # latency of one pass through the k loop of a lonely block, as cuda_conv_simt
# Share of the shorter of arithmetic and memory that is not hidden: where memory bounds this kernel
# and that of the tensor cores alike, theirs leaves more of the SM to the next one.
_NOT_HIDDEN = 0.1
_DOTS_PER_CLOCK = 0.7 * 64.0  # of one SM: half the rate of float multiply-adds


@dataclass(frozen=True, slots=True)
class _Tile:
    pixels: int
    filters: int
    thread_pixels: int
    thread_filters: int

    @property
    def threads(self) -> int:
        return self.pixels // self.thread_pixels * (self.filters // self.thread_filters)

    def padded_filters(self, conv: Convolution) -> int:
        return -(-conv.group_filters // self.filters) * self.filters

    def grid(self, conv: Convolution) -> tuple[int, int, int]:
        tiles = conv.groups * self.padded_filters(conv) // self.filters
        return (1, tiles, -(-conv.pixels // self.pixels))


class CudaConvDp4a:
    """Family `cuda_conv_dp4a`; tactic parameters are the tiles of a block and of a thread."""

    name = "cuda_conv_dp4a"
    device_kind = "cuda"
    template_hash = template_hash(
        _TEMPLATE, TERMS_SOURCE, CONVOLUTION_SOURCE, Path(__file__).read_text()
    )

    def applies(self, problem: Problem, target: Any) -> bool:
        """8-bit x in NHWC."""
        conv = convolution_of(problem, target, integers=True)
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
                    ("thread_filters", tile.thread_filters),
                    ("thread_pixels", tile.thread_pixels),
                ),
            )
            for tile in sorted(_tiles(conv, target), key=lambda t: _tile_us(t, conv, target))
        ]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch."""
        conv, tile = _require(problem, target), _tile(tactic)
        symbol = symbol_for(
            f"conv_dp4a_{tile.pixels}x{tile.filters}x{_TILE_K}_sm{target.sm}",
            *(self.template_hash, problem.text(), tactic.text),
        )
        parameters: dict[str, int | str] = {
            **conv.parameters_of(_TEMPLATE),
            **epilogue_parameters(conv),
            "SYMBOL": symbol,
            "TILE_PIXELS": tile.pixels,
            "TILE_FILTERS": tile.filters,
            "THREAD_PIXELS": tile.thread_pixels,
            "THREAD_FILTERS": tile.thread_filters,
            "TILE_K": _TILE_K,
        }
        launch = GridLaunch(
            symbol,
            tile.grid(conv),
            (tile.threads, 1, 1),
            is_dependent=target.has_dependent_launch,
        )
        return Program(fill(with_terms(with_convolution(_TEMPLATE)), parameters), (launch,))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Weights as [group, filter tile, step, word, filter][four terms]; channel vectors."""
        conv, tile = _require(problem, target), _tile(tactic)
        weights = constants[1]
        if weights is None:
            raise ValueError(f"{self.name}: the weights of {problem.text()} are not given")
        grouped = grouped_weights(problem, conv, weights).reshape(
            conv.groups, conv.group_filters, conv.num_terms
        )
        padded = tile.padded_filters(conv)
        words = -(-conv.num_terms // _TILE_K) * _TILE_K // 4
        whole = np.zeros((conv.groups, padded, words * 4), np.int8)
        whole[:, : conv.group_filters, : conv.num_terms] = grouped
        tiles = whole.reshape(conv.groups, padded // tile.filters, tile.filters, words, 4)
        ordered = np.ascontiguousarray(tiles.transpose(0, 1, 3, 2, 4)).reshape(-1)
        return [None, ordered, *pack_operands(conv, constants, padded)]


def _fits(conv: Convolution, target: CudaTarget) -> bool:
    return (conv.x_strides[1] == 1 or conv.channels == 1) and bool(_tiles(conv, target))


def _require(problem: Problem, target: Any) -> Convolution:
    conv = convolution_of(problem, target, integers=True)
    if conv is None or not _fits(conv, target):
        raise ValueError(f"cuda_conv_dp4a does not apply to {problem.text()}")
    return conv


def _tile(tactic: Tactic) -> _Tile:
    names = ("pixels", "filters", "thread_pixels", "thread_filters")
    return _Tile(*(int(tactic.values[name]) for name in names))


def _tiles(conv: Convolution, target: CudaTarget) -> list[_Tile]:
    """Tiles that the target can launch; bytes that are taken apart need registers of their own."""
    most = _MAX_SUMS if target.has_dp4a else _MAX_SUMS_TAKEN_APART
    return [
        tile
        for tile in (_Tile(*shape) for shape in _SHAPES)
        if max(tile.grid(conv)) <= _MAX_GRID and tile.thread_pixels * tile.thread_filters <= most
    ]


def _tile_us(tile: _Tile, conv: Convolution, target: CudaTarget) -> float:
    """Blocks over SMs: their dot products, copies from L2 or the latency of their steps; results.

    Copies and results cost what they were measured to cost in `cuda_conv_igemm`.
    """
    _, y, z = tile.grid(conv)
    per_sm = -(-y * z // target.num_sms)
    steps = -(-conv.num_terms // _TILE_K)
    dots = tile.pixels * tile.filters * _TILE_K / 4 / _DOTS_PER_CLOCK
    dots *= 1 if target.has_dp4a else 8  # bytes are taken apart first
    resident = min(per_sm, max(1, min(target.max_threads_per_sm // tile.threads, 6)))
    copies = (tile.pixels + tile.filters) * _TILE_K / SM_BYTES_PER_CLOCK
    full = 1 + sum(not operand.is_channel for operand in conv.operands)
    results = tile.pixels * tile.filters * OUTPUT_CLOCKS * full
    step = max(dots, copies, _STEP_CLOCKS / resident)
    clocks = _BASE_CLOCKS + per_sm * (steps * step + results)
    times = (clocks_us(clocks, target), stream_us(conv.moved_bytes, target))
    return max(times) + _NOT_HIDDEN * min(times)


FAMILY = CudaConvDp4a()
