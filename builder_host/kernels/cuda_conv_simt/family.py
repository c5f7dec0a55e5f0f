"""Convolution and deconvolution with float multiply-adds: every architecture, exact fp32.

The family that always applies: fp16 or fp32 storage, NHWC or row-major tensors on either side, any
kernel, stride, padding, dilation and grouping.
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

_HERE = Path(__file__).parent
_TILED = (_HERE / "kernel.cu").read_text()
_DIRECT = (_HERE / "kernel_direct.cu").read_text()

# (pixels, filters, pixels of a thread, filters of a thread)
_SHAPES = (
    (128, 64, 8, 4),
    (64, 64, 4, 4),
    (64, 32, 4, 4),
    (32, 64, 4, 4),
    (32, 32, 2, 4),
    (16, 32, 2, 4),
)
_TILE_K = 16
_SPLITS = (1, 2, 4, 8, 16)
_MOST_TACTICS = 12
_MAX_GRID = 65535
_MAX_WORKSPACE_BYTES = 64 << 20
_DIRECT_THREADS = (128, 256)
_SUM_THREADS = 128
# Groups with fewer filters than this leave most of the smallest tile empty.
_FEW_FILTERS = 12

# Clocks: start and drain of a kernel, as in the tensor-core family, so that the two compare;
# latency of one pass through the k loop of a lonely block.
_BASE_CLOCKS = 2800.0
_SECOND_KERNEL_CLOCKS = 1800.0
_STEP_CLOCKS = 350.0
_DIRECT_CLOCKS = 30.0  # per product of one thread's filters where nothing hides the loads
# Neighbouring threads take neighbouring channels: where those lie apart (row-major tensors), each
# of their loads is a memory transaction of its own.
_SCATTERED = 3.0


@dataclass(frozen=True, slots=True)
class _Tile:
    pixels: int
    filters: int
    thread_pixels: int
    thread_filters: int
    splits: int

    @property
    def threads(self) -> int:
        return self.pixels // self.thread_pixels * (self.filters // self.thread_filters)

    @property
    def shared_bytes(self) -> int:
        return 2 * 4 * _TILE_K * (self.pixels + 4 + self.filters)

    def steps(self, conv: Convolution) -> int:
        return -(-conv.num_taps * conv.group_channels // _TILE_K)

    def padded_filters(self, conv: Convolution) -> int:
        return -(-conv.group_filters // self.filters) * self.filters

    def grid(self, conv: Convolution) -> tuple[int, int, int]:
        tiles = conv.groups * self.padded_filters(conv) // self.filters
        return (self.splits, tiles, -(-conv.pixels // self.pixels))

    def workspace_bytes(self, conv: Convolution) -> int:
        if self.splits == 1:
            return 0
        return 4 * self.splits * conv.pixels * conv.groups * self.padded_filters(conv)


class CudaConvSimt:
    """Family `cuda_conv_simt`.

    Tactic parameters: `mode=tile` with pixels, filters, thread_pixels, thread_filters and splits
    (blocks that share the k range of a tile, added through a workspace), or `mode=direct` with
    filters of a thread and threads of a block.
    """

    name = "cuda_conv_simt"
    device_kind = "cuda"
    template_hash = template_hash(
        _TILED,
        _DIRECT,
        CONVOLUTION_SOURCE,
        *((_HERE / name).read_text() for name in ("family.py", "geometry.py", "epilogue.py")),
    )

    def applies(self, problem: Problem, target: Any) -> bool:
        """Any two-dimensional convolution or deconvolution with constant weights."""
        return convolution_of(problem, target) is not None

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """The best tactic's estimate."""
        conv = _require(problem, target)
        ranked = _ranked_tiles(conv, target)
        best = min([cost for cost, _ in ranked], default=float("inf"))
        return min(best, _direct_us(conv, target, _direct_filters(conv)))

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Tiles by the estimate, and one thread per pixel where groups are narrow."""
        conv = _require(problem, target)
        ranked = [(cost, self._tile_tactic(tile)) for cost, tile in _ranked_tiles(conv, target)]
        filters = _direct_filters(conv)
        if not ranked or conv.group_filters <= _FEW_FILTERS:
            for threads in _DIRECT_THREADS:
                values = (("filters", filters), ("mode", "direct"), ("threads", threads))
                ranked.append((_direct_us(conv, target, filters), Tactic(self.name, values)))
        ranked.sort(key=lambda item: item[0])
        return [tactic for _, tactic in ranked[:_MOST_TACTICS]]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch, or two where splits are added through a workspace."""
        conv = _require(problem, target)
        values = tactic.values
        kernel = "deconv" if conv.is_transposed else "conv"
        key = (self.template_hash, problem.text(), tactic.text)
        stem = f"{kernel}_{values['mode']}_{conv.x_dtype.text}"
        if values["mode"] == "direct":
            return self._direct(conv, tactic, symbol_for(f"{stem}_sm{target.sm}", *key), target)
        tile = _tile(tactic)
        stem = f"{stem}_{tile.pixels}x{tile.filters}x{_TILE_K}_sm{target.sm}"
        symbol = symbol_for(stem, *key)
        parameters: dict[str, int | str] = {
            **conv.parameters_of(_TILED),
            **epilogue_parameters(conv),
            "SYMBOL": symbol,
            "TILE_PIXELS": tile.pixels,
            "TILE_FILTERS": tile.filters,
            "THREAD_PIXELS": tile.thread_pixels,
            "THREAD_FILTERS": tile.thread_filters,
            "TILE_K": _TILE_K,
            "SPLITS": tile.splits,
        }
        is_dependent = target.has_dependent_launch
        launches = [
            GridLaunch(
                symbol,
                tile.grid(conv),
                (tile.threads, 1, 1),
                shared_memory_bytes=tile.shared_bytes,
                is_dependent=is_dependent,
            )
        ]
        if tile.splits > 1:
            runs = conv.pixels * conv.groups * tile.padded_filters(conv) // 4
            blocks = -(-runs // _SUM_THREADS)
            launches.append(
                GridLaunch(
                    f"{symbol}_sum",
                    (blocks, 1, 1),
                    (_SUM_THREADS, 1, 1),
                    is_dependent=is_dependent,
                )
            )
        source = fill(with_convolution(_TILED), parameters)
        return Program(source, tuple(launches), tile.workspace_bytes(conv))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Weights in order of use, channel vectors as floats padded to whole tiles."""
        conv = _require(problem, target)
        weights = constants[1]
        if weights is None:
            raise ValueError(f"{self.name}: the weights of {problem.text()} are not given")
        grouped = grouped_weights(problem, conv, weights)
        if tactic.values["mode"] == "direct":
            width = int(tactic.values["filters"])
            padded = -(-conv.group_filters // width) * width
            packed = _padded(grouped, padded, conv.num_taps * conv.group_channels)
            packed = packed.reshape(conv.groups, padded // width, width, -1)
        else:
            tile = _tile(tactic)
            padded = tile.padded_filters(conv)
            steps = tile.steps(conv)
            packed = _padded(grouped, padded, steps * _TILE_K)
            packed = packed.reshape(conv.groups, padded // tile.filters, tile.filters, -1)
        ordered = np.ascontiguousarray(packed.transpose(0, 1, 3, 2)).reshape(-1)
        return [None, ordered, *pack_operands(conv, constants, padded)]

    def _tile_tactic(self, tile: _Tile) -> Tactic:
        return Tactic(
            self.name,
            (
                ("filters", tile.filters),
                ("mode", "tile"),
                ("pixels", tile.pixels),
                ("splits", tile.splits),
                ("thread_filters", tile.thread_filters),
                ("thread_pixels", tile.thread_pixels),
            ),
        )

    def _direct(
        self, conv: Convolution, tactic: Tactic, symbol: str, target: CudaTarget
    ) -> Program:
        width, threads = int(tactic.values["filters"]), int(tactic.values["threads"])
        items = conv.pixels * conv.groups * -(-conv.group_filters // width)
        parameters: dict[str, int | str] = {
            **conv.parameters_of(_DIRECT),
            **epilogue_parameters(conv),
            "SYMBOL": symbol,
            "FILTERS_AT_ONCE": width,
            "THREADS": threads,
        }
        launch = GridLaunch(
            symbol,
            (-(-items // threads), 1, 1),
            (threads, 1, 1),
            is_dependent=target.has_dependent_launch,
        )
        return Program(fill(with_convolution(_DIRECT), parameters), (launch,))


def _require(problem: Problem, target: Any) -> Convolution:
    conv = convolution_of(problem, target)
    if conv is None:
        raise ValueError(f"cuda_conv_simt does not apply to {problem.text()}")
    return conv


def _tile(tactic: Tactic) -> _Tile:
    names = ("pixels", "filters", "thread_pixels", "thread_filters", "splits")
    return _Tile(*(int(tactic.values[name]) for name in names))


def _padded(grouped: Array, filters: int, terms: int) -> Array:
    """`[groups, filters, terms]` with zeros past the end of the last two."""
    groups, own, taps, channels = grouped.shape
    padded = np.zeros((groups, filters, terms), grouped.dtype)
    padded[:, :own, : taps * channels] = grouped.reshape(groups, own, -1)
    return padded


def _direct_filters(conv: Convolution) -> int:
    """Filters of one thread: a power of two up to four; padded lanes cost as much as others."""
    return 4 if conv.group_filters >= 3 else conv.group_filters


def _ranked_tiles(conv: Convolution, target: CudaTarget) -> list[tuple[float, _Tile]]:
    """Tiles that fit, with their estimates in microseconds, best first."""
    found: list[tuple[float, _Tile]] = []
    for shape in _SHAPES:
        for splits in _SPLITS:
            tile = _Tile(*shape, splits)
            steps = tile.steps(conv)
            share = -(-steps // splits)
            if splits > 1 and (share < 4 or (splits - 1) * share >= steps):
                continue
            _, y, z = tile.grid(conv)
            if max(y, z) > _MAX_GRID or tile.workspace_bytes(conv) > _MAX_WORKSPACE_BYTES:
                continue
            found.append((_tile_us(tile, conv, target), tile))
    return sorted(found, key=lambda item: item[0])


def _tile_us(tile: _Tile, conv: Convolution, target: CudaTarget) -> float:
    """Blocks over SMs; a block's products at 70 % of peak, or the latency of its steps."""
    splits, y, z = tile.grid(conv)
    per_sm = -(-splits * y * z // target.num_sms)
    steps = -(-tile.steps(conv) // splits)
    products = tile.pixels * tile.filters * _TILE_K / (0.7 * 128)
    resident = min(per_sm, max(1, min(target.max_threads_per_sm // tile.threads, 6)))
    step = max(products, _STEP_CLOCKS / resident) * _scatter(conv)
    clocks = _BASE_CLOCKS + per_sm * steps * step
    if splits > 1:
        clocks += _SECOND_KERNEL_CLOCKS
    moved = conv.moved_bytes + 2.0 * tile.workspace_bytes(conv)
    return max(clocks_us(clocks, target), stream_us(moved, target))


def _scatter(conv: Convolution) -> float:
    return _SCATTERED if conv.x_strides[1] != 1 < conv.channels else 1.0


def _direct_us(conv: Convolution, target: CudaTarget, width: int) -> float:
    """Products of all threads at a quarter of peak, or the latency of one thread's loads."""
    items = conv.pixels * conv.groups * -(-conv.group_filters // width)
    terms = conv.num_taps * conv.group_channels
    waves = max(1.0, items / (target.num_sms * 1024.0))
    clocks = _BASE_CLOCKS + waves * max(
        terms * _DIRECT_CLOCKS, terms * width * 1024.0 / (0.25 * 128) * _scatter(conv)
    )
    return max(clocks_us(clocks, target), stream_us(conv.moved_bytes, target))


FAMILY = CudaConvSimt()
