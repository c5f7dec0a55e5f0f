"""Winograd convolution with stride 1 on blocked tensors: F(2x2, 3x3), F(4x4, 3x3), F(2x2, 5x5).

Relative error against float64 (largest error over root mean square of the result, normal data):
direct 2e-6, F(2x2, 3x3) 3e-6, F(4x4, 3x3) and F(2x2, 5x5) up to 1e-4 at 512 channels; root mean
square 5e-7 and 5e-6. They need 4/9, 1/4 and 9/25 of the multiplications of a direct convolution.
Source: Lavin, Gray: Fast Algorithms for Convolutional Neural Networks (2015).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder_host.codegen.template import fill
from builder_host.kernels.conv_direct.epilogue import (
    epilogue_parameters,
    pack_rest,
)
from builder_host.kernels.conv_direct.geometry import (
    Convolution,
    balanced,
    convolution_of,
    inner_tiles,
)
from builder_host.kernels.conv_direct.headers import with_headers
from builder_host.kernels.conv_direct.weights import blocked_weights, packed_sets
from builder_host.kernels.conv_winograd.transforms import transformed_weights
from builder_host.kernels.family import (
    Array,
    Launch,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.targets.target import CpuTarget

_TEMPLATE = with_headers(Path(__file__).with_name("kernel.c").read_text())
_GENERATOR = Path(__file__).read_text()

_PARTS_32 = ((14, 2), (6, 4), (9, 3))
_PARTS_16 = ((6, 2), (5, 2))
_PARTS_NEON = ((10, 2), (8, 2), (14, 1))
_PREFETCH_BYTES = 2048
_CHUNK_SIZES = (8, 14, 28, 56, 112)
_HOPELESS = 1.3  # times the expected time of the best variant
_L3_SPEED = 2.0  # times memory bandwidth; a guess on the low side
_MIN_CHANNELS = 8
_OUT_TILES = {3: (2, 4), 5: (2,)}
# (input tile, output tile) -> vector instructions per tile and block of the input and output
# transforms, counted in kernel.c.
_TRANSFORM_COST = {(4, 2): (90, 60), (6, 4): (260, 190), (6, 2): (260, 130)}


class ConvWinograd:
    """Family `conv_winograd`.

    Tactic parameters: out_tile: m of F(m x m). tiles: output tiles whose transforms are alive
    together. pixels, oc_blocks: register tile of the products. split: 1 when transforms and
    products are two launches, for maps with too few tiles to share among the workers.
    """

    name = "conv_winograd"
    device_kind = "cpu"
    template_hash = template_hash(_TEMPLATE, _GENERATOR)

    def applies(self, problem: Problem, target: Any) -> bool:
        """3x3 or 5x5, stride 1, no dilation, one group, at least 8 channels on both sides."""
        conv = convolution_of(problem, target, pools=True)
        return conv is not None and _fits(conv)

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Of the most promising variant."""
        conv = _require(problem, target)
        return min(cost for cost, _ in _ranked(conv, target, 1))

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """The most promising variants of each tile size.

        Left out are those that must be slow for their weights alone: these come from memory once
        per inference, though they may be in the cache while the tactic is timed by itself.
        """
        conv = _require(problem, target)
        found: dict[Tactic, None] = {}
        taken = {2: 0, 4: 0}
        ranked = _ranked(conv, target, problem.num_workers)
        best = ranked[0][1].out_tile
        for cost, plan in ranked:
            if cost > _HOPELESS * ranked[0][0]:
                break
            if taken[plan.out_tile] == (5 if plan.out_tile == best else 2):
                continue
            taken[plan.out_tile] += 1
            split = _needs_split(conv, plan, problem.num_workers)
            values = {
                "oc_blocks": plan.oc_blocks,
                "out_tile": plan.out_tile,
                "pixels": plan.pixels,
                "split": int(split),
                "tiles": plan.tiles,
            }
            found[Tactic(self.name, tuple(sorted(values.items())))] = None
        return list(found)

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch over chunks of tiles, or two: transforms, then sets times chunks."""
        conv = _require(problem, target)
        values = tactic.values
        out_tile, tiles, split = (int(values[k]) for k in ("out_tile", "tiles", "split"))
        pixels = int(values["pixels"])
        sets = balanced(conv.out_blocks, int(values["oc_blocks"]))
        in_blocks = -(-conv.channels // conv.lanes)
        tail = conv.channels - (in_blocks - 1) * conv.lanes
        kernel = conv.kernel_h
        pooled = "_pool2" if conv.pool == 2 else ""
        stem = (
            f"conv_winograd_f32_{kernel}x{kernel}m{out_tile}_{pixels}x{sets[0]}{pooled}"
            f"_{target.isa}"
        )
        symbol = symbol_for(stem, _TEMPLATE, problem.text(), tactic.text, repr(target))
        parameters: dict[str, int | str] = {
            **conv.parameters_of(_TEMPLATE),
            **epilogue_parameters(problem, conv),
            "SYMBOL": symbol,
            "TRANSFORM_SYMBOL": f"{symbol}_input",
            "KERNEL_SIZE": conv.kernel_h,
            "OUT_TILE": out_tile,
            "IN_BLOCKS": in_blocks,
            "IN_TAIL": tail,
            "SET_BLOCKS": sets[0],
            "WIDE_SETS": sets.count(sets[0]),
            "NARROW_SETS": len(sets) - sets.count(sets[0]),
            "TILES": tiles,
            "TILE_PIXELS": pixels,
            "TILE_PARTS": " ".join(inner_tiles(0, balanced(tiles, pixels))),
            "LANES_UNROLLED": math.gcd(4, tail),
            "VECTOR_LANES": int(target.isa == "neon" and tail == conv.lanes),
            "PREFETCH_BYTES": _PREFETCH_BYTES,
            "SPLIT": split,
        }
        source = fill(_TEMPLATE, parameters)
        chunks = -(-_num_tiles(conv, out_tile) // tiles)
        frequencies = (out_tile + kernel - 1) ** 2
        v_bytes = 4 * frequencies * (in_blocks * tiles * conv.lanes + 16)
        m_bytes = 4 * frequencies * (tiles * sets[0] * conv.lanes + 16)
        if not split:
            return Program(source, (Launch(symbol, chunks, v_bytes + m_bytes),))
        launches = (
            Launch(f"{symbol}_input", chunks * in_blocks),
            Launch(symbol, chunks * len(sets), m_bytes),
        )
        return Program(source, launches, workspace_bytes=chunks * v_bytes)

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Transformed weights in order of use; bias and epilogue constants padded."""
        conv = _require(problem, target)
        weights = constants[1]
        if weights is None:
            raise ValueError(f"{self.name}: the weights of {problem.text()} are not given")
        out_tile = int(tactic.values["out_tile"])
        blocked = blocked_weights(transformed_weights(weights, out_tile), 1, conv.lanes)
        # [output block, input block, row, column, ...] -> frequency before input block
        shape = (*blocked.shape[:2], 1, blocked.shape[2] * blocked.shape[3], *blocked.shape[4:])
        by_frequency = blocked.reshape(shape).transpose(0, 3, 2, 1, 4, 5)
        sets = balanced(conv.out_blocks, int(tactic.values["oc_blocks"]))
        return [None, packed_sets(by_frequency, sets), *pack_rest(problem, conv, constants)]


def _require(problem: Problem, target: Any) -> Convolution:
    conv = convolution_of(problem, target, pools=True)
    if conv is None or not _fits(conv):
        raise ValueError(f"conv_winograd does not apply to {problem.text()}")
    return conv


def _fits(conv: Convolution) -> bool:
    return (
        conv.x_is_blocked
        and conv.groups == 1
        and conv.kernel_h == conv.kernel_w
        and conv.kernel_h in _OUT_TILES
        and (conv.stride_h, conv.stride_w, conv.dilation_h, conv.dilation_w) == (1, 1, 1, 1)
        and min(conv.channels, conv.filters) >= _MIN_CHANNELS
    )


def _num_tiles(conv: Convolution, out_tile: int) -> int:
    return conv.batch * -(-conv.out_h // out_tile) * -(-conv.out_w // out_tile)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Sizes of one variant: see the tactic parameters of `ConvWinograd`."""

    out_tile: int
    tiles: int
    pixels: int
    oc_blocks: int


def _needs_split(conv: Convolution, plan: _Plan, workers: int) -> bool:
    return workers > 1 and _num_tiles(conv, plan.out_tile) < 3 * workers * plan.tiles


def _idle_factor(conv: Convolution, plan: _Plan, workers: int) -> float:
    """How much longer the work takes because units do not come out even for the workers."""
    units = -(-_num_tiles(conv, plan.out_tile) // plan.tiles)
    if _needs_split(conv, plan, workers):
        units *= len(balanced(conv.out_blocks, plan.oc_blocks))
    return -(-units // workers) * workers / units


def _ranked(conv: Convolution, target: CpuTarget, workers: int) -> list[tuple[float, _Plan]]:
    """Expected microseconds (one worker) and sizes of all variants, best for `workers` first."""
    parts = {"avx512": _PARTS_32, "avx2": _PARTS_16, "neon": _PARTS_NEON}[target.isa]
    plans: dict[_Plan, None] = {}
    for out_tile in _OUT_TILES[conv.kernel_h]:
        total = _num_tiles(conv, out_tile)
        for wanted in _CHUNK_SIZES:
            tiles = balanced(total, min(wanted, total))[0]
            for pixels, oc_blocks in parts:
                size = min(oc_blocks, conv.out_blocks)
                plans[_Plan(out_tile, tiles, min(pixels, tiles), size)] = None
    costs = (
        (_estimate_us(conv, plan, target) * _idle_factor(conv, plan, workers), plan)
        for plan in plans
    )
    return sorted(costs, key=lambda item: (item[0], repr(item[1])))


def _estimate_us(conv: Convolution, plan: _Plan, target: CpuTarget) -> float:
    """Products with their loads, transforms by instruction count, traffic beyond the L2 cache.

    All weights come from memory once; when they do not stay in the L2 cache, each further chunk
    reads them again, and each set reads V again when that does not stay there.
    """
    total = _num_tiles(conv, plan.out_tile)
    chunks = -(-total // plan.tiles)
    in_blocks = -(-conv.channels // conv.lanes)
    sets = balanced(conv.out_blocks, plan.oc_blocks)
    in_tile = plan.out_tile + conv.kernel_h - 1
    frequencies = in_tile**2
    into, back = _TRANSFORM_COST[in_tile, plan.out_tile]
    steps = sum(  # of one input channel, one frequency, one chunk
        max(width * size, 10) + 0.1 * (width + size)
        for width in balanced(plan.tiles, plan.pixels)
        for size in sets
    )
    instructions = chunks * frequencies * conv.channels * steps / 0.95
    instructions += total * (into * in_blocks + back * conv.out_blocks)
    compute_us = 2.0 * conv.lanes * instructions / (1e3 * target.fma_gflops_per_core)
    weight_bytes = 4.0 * frequencies * in_blocks * conv.out_blocks * conv.lanes**2
    v_bytes = 4.0 * frequencies * in_blocks * plan.tiles * conv.lanes
    memory_us = weight_bytes / (1e3 * target.memory_gbps)
    again = (chunks - 1) * weight_bytes if weight_bytes > target.l2_bytes // 2 else 0.0
    in_l3 = weight_bytes <= target.l3_bytes // 2
    cache_us = again / (1e3 * target.memory_gbps * (_L3_SPEED if in_l3 else 1.0))
    if v_bytes > target.l2_bytes // 2:
        cache_us += chunks * len(sets) * v_bytes / (1e3 * target.memory_gbps * _L3_SPEED)
    return float(max(compute_us, memory_us)) + 0.5 * cache_us + 2.0


FAMILY = ConvWinograd()
