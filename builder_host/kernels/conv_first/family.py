"""Convolution of a row-major tensor with few channels, as a network's first layer has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
from builder_host.kernels.family import (
    Array,
    Launch,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)

MAX_CHANNELS = 8

_TEMPLATE = with_headers(Path(__file__).with_name("kernel.c").read_text())
_GENERATOR = Path(__file__).read_text()

_TILES_32 = ((14, 2), (9, 3), (6, 4), (28, 1))
_TILES_16 = ((6, 2), (5, 2), (13, 1))
# Two rows each, as many columns as windows of two have.
_POOLED_TILES_32 = ((6, 2), (4, 3), (14, 1), (2, 4))
_POOLED_TILES_16 = ((2, 3), (6, 1), (2, 2))
_UNITS_PER_WORKER = 4


class ConvFirst:
    """Family `conv_first`.

    Tactic parameters: pixels, oc_blocks: register tile, pixels of one of its rows. rows: output
    rows computed from one copy of the input.
    """

    name = "conv_first"
    device_kind = "cpu"
    template_hash = template_hash(_TEMPLATE, _GENERATOR)

    def applies(self, problem: Problem, target: Any) -> bool:
        """Row-major x with at most 8 channels, one group, blocked y."""
        conv = convolution_of(problem, target, pools=True)
        return conv is not None and _fits(conv)

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Work including padded lanes at 88 % of peak, or memory traffic, whichever is longer."""
        conv = _require(problem, target)
        flops = conv.flops * conv.out_blocks * conv.lanes / conv.filters
        moved = 4.0 * conv.batch * conv.channels * conv.in_h * conv.in_w
        outputs = conv.out_blocks * conv.lanes * conv.out_h * conv.out_w
        moved += 4.0 * conv.batch * outputs / conv.pool**2
        compute_us = flops / (0.88e3 * target.fma_gflops_per_core)
        return float(max(compute_us, moved / (1e3 * target.memory_gbps))) + 1.0

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Every tile that fits the registers, with few and with more rows per copy."""
        conv = _require(problem, target)
        tiles: dict[tuple[int, int], None] = {}
        has_16 = target.num_vector_registers == 16
        if conv.pool == 2:
            shapes = _POOLED_TILES_16 if has_16 else _POOLED_TILES_32
        else:
            shapes = _TILES_16 if has_16 else _TILES_32
        for pixels, oc_blocks in shapes:
            tiles[(min(pixels, conv.out_w), min(oc_blocks, conv.out_blocks))] = None
        ranked = sorted(tiles, key=lambda tile: _tile_cost(conv, *tile))
        chunks = dict.fromkeys(_rows(conv, rows, problem.num_workers) for rows in (4, 8))
        return [
            Tactic(self.name, (("oc_blocks", oc_blocks), ("pixels", pixels), ("rows", rows)))
            for pixels, oc_blocks in ranked[:4]
            for rows in chunks
        ]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch; a unit is one image and a chunk of rows."""
        conv = _require(problem, target)
        values = tactic.values
        pixels, rows = int(values["pixels"]), int(values["rows"])
        sets = balanced(conv.out_blocks, int(values["oc_blocks"]))
        copy_rows = (rows - 1) * conv.stride_h + (conv.kernel_h - 1) * conv.dilation_h + 1
        copy_columns = (conv.out_w - 1) * conv.stride_w + (conv.kernel_w - 1) * conv.dilation_w + 1
        stem = (
            f"conv_first_f32_{conv.kernel_h}x{conv.kernel_w}s{conv.stride_h}"
            f"_{pixels}x{sets[0]}{'_pool2' if conv.pool == 2 else ''}_{target.isa}"
        )
        symbol = symbol_for(stem, _TEMPLATE, problem.text(), tactic.text, repr(target))
        parameters: dict[str, int | str] = {
            **conv.parameters_of(_TEMPLATE),
            **epilogue_parameters(problem, conv),
            "SYMBOL": symbol,
            "CHANNELS": conv.channels,
            "SET_BLOCKS": sets[0],
            "WIDE_SETS": sets.count(sets[0]),
            "NARROW_SETS": len(sets) - sets.count(sets[0]),
            "ROWS_PER_UNIT": rows,
            "COPY_ROWS": copy_rows,
            "COPY_COLUMNS": copy_columns,
            "TILE_PIXELS": pixels,
            "ROW_TILES": " ".join(inner_tiles(0, _widths(conv, pixels))),
        }
        source = fill(_TEMPLATE, parameters)
        units = conv.batch * -(-conv.out_h // rows)
        scratch_bytes = 4 * conv.channels * copy_rows * copy_columns
        return Program(source, (Launch(symbol, units, -(-scratch_bytes // 64) * 64),))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Weights in order of use; bias and epilogue constants padded to whole blocks."""
        conv = _require(problem, target)
        weights = constants[1]
        if weights is None:
            raise ValueError(f"{self.name}: the weights of {problem.text()} are not given")
        padded = np.zeros((conv.out_blocks * conv.lanes, *weights.shape[1:]), np.float32)
        padded[: conv.filters] = weights
        blocked = padded.reshape(conv.out_blocks, conv.lanes, conv.channels, -1)
        parts, first = [], 0
        for size in balanced(conv.out_blocks, int(tactic.values["oc_blocks"])):
            part = blocked[first : first + size].transpose(2, 3, 0, 1)
            parts.append(np.ascontiguousarray(part).reshape(-1))
            first += size
        return [None, np.concatenate(parts), *pack_rest(problem, conv, constants)]


def _require(problem: Problem, target: Any) -> Convolution:
    conv = convolution_of(problem, target, pools=True)
    if conv is None or not _fits(conv):
        raise ValueError(f"conv_first does not apply to {problem.text()}")
    return conv


def _fits(conv: Convolution) -> bool:
    return not conv.x_is_blocked and conv.groups == 1 and conv.channels <= MAX_CHANNELS


def _rows(conv: Convolution, wanted: int, workers: int) -> int:
    """Rows of one unit: `wanted`, fewer when workers would stay without work."""
    if workers > 1:
        wanted = min(wanted, max(1, conv.out_h * conv.batch // (workers * _UNITS_PER_WORKER)))
    return -(-min(wanted, conv.out_h) // conv.pool) * conv.pool


def _widths(conv: Convolution, pixels: int) -> list[int]:
    """Columns of the tiles of a row, whole windows each."""
    windows = balanced(conv.out_w // conv.pool, pixels // conv.pool)
    return [conv.pool * width for width in windows]


def _tile_cost(conv: Convolution, pixels: int, oc_blocks: int) -> float:
    """Multiplications (10 at least, for their latency) and half the loads, per useful product."""
    cost = 0.0
    for width in _widths(conv, pixels):
        for size in balanced(conv.out_blocks, oc_blocks):
            rows = conv.pool * width
            cost += max(rows * size, 10) + 0.5 * (rows + size)
    return cost


FAMILY = ConvFirst()
