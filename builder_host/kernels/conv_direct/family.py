"""Direct convolution on blocked tensors: any kernel, stride, dilation, padding and grouping.

A tile of rows x pixels x output blocks stays in registers; there are no halos and no copies.
Groups whose channels fill whole blocks run like separate convolutions; groups that share blocks
run dense within a block with zero weights between groups (a NaN or infinity in a channel then
reaches the other groups of its block).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    row_tiles,
)
from builder_host.kernels.conv_direct.headers import with_headers
from builder_host.kernels.conv_direct.tiling import is_mixed, merged, tile_cost, unit_extents
from builder_host.kernels.conv_direct.weights import (
    blocked_weights,
    mixed_rows,
    packed_mixed,
    packed_sets,
)
from builder_host.kernels.family import (
    Array,
    Launch,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)

_TEMPLATE = with_headers(Path(__file__).with_name("kernel.c").read_text())
_GENERATOR = Path(__file__).read_text() + Path(__file__).with_name("tiling.py").read_text()

# (rows, pixels, output blocks). Registers: sums, one weight vector per block, one value; with
# lane-wise products (NEON) four weight vectors per block.
_TILES_32 = ((1, 14, 2), (1, 6, 4), (1, 9, 3), (1, 28, 1), (2, 7, 2), (1, 7, 3), (4, 7, 1))
_TILES_16 = ((1, 6, 2), (1, 5, 2), (2, 3, 2), (1, 13, 1), (1, 10, 1))
_TILES_NEON = ((1, 10, 2), (1, 8, 2), (1, 7, 2), (1, 20, 1), (1, 14, 1))
_PREFETCH_BYTES = 2048


class ConvDirect:
    """Family `conv_direct`.

    Tactic parameters: pixels, oc_blocks, rows: register tile. order: `sets` (weights of one set
    stay in the cache while all rows pass) or `rows` (rows stay while all sets pass). prefetch:
    bytes that weights are prefetched ahead, 0 for none.
    """

    name = "conv_direct"
    device_kind = "cpu"
    template_hash = template_hash(_TEMPLATE, _GENERATOR)

    def applies(self, problem: Problem, target: Any) -> bool:
        """Any two-dimensional convolution with blocked x and y and operands it can read."""
        conv = convolution_of(problem, target)
        return conv is not None and conv.x_is_blocked

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Work including padded lanes, or memory traffic, whichever is longer.

        Share of peak (Zen 4): 90 % with whole input blocks, 65 % when the innermost loop over a
        few input channels is short or not unrolled.
        """
        conv = _require(problem, target)
        lanes = conv.lanes
        channels = float(conv.group_channels)
        if is_mixed(conv):
            rows = mixed_rows(conv.filters, conv.channels, conv.groups, lanes)
            channels = sum(end - begin for begin, end, _ in rows) / len(rows)
        pixels = conv.batch * conv.out_h * conv.out_w
        flops = 2.0 * pixels * conv.out_blocks * lanes * channels * conv.num_taps
        weights = 4.0 * conv.out_blocks * lanes * channels * conv.num_taps
        image = 4.0 * conv.batch * conv.channels * conv.in_h * conv.in_w
        moved = weights + image + 4.0 * pixels * conv.filters * (1 + len(conv.operand_strides))
        share = 0.9 if channels >= 8 and channels % 4 == 0 else 0.65
        compute_us = flops / (1e3 * share * target.fma_gflops_per_core)
        return float(max(compute_us, moved / (1e3 * target.memory_gbps))) + 1.0

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Tiles that fit the registers and the image, each in the order that suits its size."""
        conv = _require(problem, target)
        sizes = {"avx512": _TILES_32, "avx2": _TILES_16, "neon": _TILES_NEON}[target.isa]
        blocks = 1 if is_mixed(conv) else -(-conv.group_filters // conv.lanes)
        tiles: dict[tuple[int, int, int], None] = {}
        for rows, pixels, oc_blocks in sorted(sizes, key=lambda t: tile_cost(conv, blocks, t)):
            widest = min(pixels, merged(conv, pixels).out_w)
            if rows <= max(conv.out_h // 2, 1) and (rows == 1 or widest * rows >= pixels):
                tiles[(rows, widest, min(oc_blocks, blocks))] = None
        block_bytes = 4 * conv.group_channels * conv.num_taps * conv.lanes
        order = "rows" if block_bytes * blocks <= target.l2_bytes // 2 else "sets"
        other = "sets" if order == "rows" else "rows"
        found: dict[Tactic, None] = {}
        for number, (rows, pixels, oc_blocks) in enumerate(list(tiles)[:4]):
            variants = [(order, 0)]
            if number == 0 and blocks > oc_blocks:
                variants.append((other, 0))
            if number < 2 and block_bytes * oc_blocks > target.l1d_bytes // 2:
                variants.append((order, _PREFETCH_BYTES))
            for choice, prefetch in variants:
                values: dict[str, int | str] = {
                    "oc_blocks": oc_blocks,
                    "order": choice,
                    "pixels": pixels,
                    "prefetch": prefetch,
                    "rows": rows,
                }
                found[Tactic(self.name, tuple(sorted(values.items())))] = None
        return list(found)

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch; a unit is a chunk of output sets, one image, a chunk of rows."""
        conv = _require(problem, target)
        values = tactic.values
        pixels, rows = int(values["pixels"]), int(values["rows"])
        image = merged(conv, pixels) if rows == 1 else conv
        mixed = is_mixed(conv)
        groups = 1 if mixed else conv.groups
        out_blocks = -(-conv.filters // groups // conv.lanes)
        sets = [1] * out_blocks if mixed else balanced(out_blocks, int(values["oc_blocks"]))
        in_blocks = -(-conv.group_channels // conv.lanes)
        tail = conv.group_channels - (in_blocks - 1) * conv.lanes
        sets_per_unit, rows_per_unit = unit_extents(
            image, groups * len(sets), str(values["order"]), rows, problem.num_workers, target
        )
        tiles, columns = row_tiles(image, pixels)
        table = mixed_rows(conv.filters, conv.channels, conv.groups, conv.lanes) if mixed else []
        parameters: dict[str, int | str] = {
            **image.parameters_of(_TEMPLATE),
            **epilogue_parameters(problem, image),
            "GROUPS": groups,
            "IN_BLOCKS": in_blocks,
            "IN_TAIL": tail,
            "OUT_BLOCKS": out_blocks,
            "SET_BLOCKS": sets[0],
            "WIDE_SETS": sets.count(sets[0]),
            "NARROW_SETS": len(sets) - sets.count(sets[0]),
            "SETS_PER_UNIT": sets_per_unit,
            "ROWS_PER_UNIT": rows_per_unit,
            "TILE_ROWS": rows,
            "TILE_PIXELS": pixels,
            "ROW_TILES": tiles,
            "KERNEL_COLUMNS": columns,
            "LANES_UNROLLED": 1 if mixed else math.gcd(4, tail),
            "VECTOR_LANES": int(target.isa == "neon" and tail == conv.lanes and not mixed),
            "PREFETCH_BYTES": values["prefetch"],
            "MIXED_GROUPS": int(mixed),
            "MIXED_TABLE": ", ".join(f"{{{a}, {b}, {c}}}" for a, b, c in table) or "{0, 0, 0}",
        }
        stem = (
            f"conv_direct_f32_{conv.kernel_h}x{conv.kernel_w}s{conv.stride_h}"
            f"_{rows}x{pixels}x{sets[0]}_{target.isa}"
        )
        symbol = symbol_for(stem, _TEMPLATE, problem.text(), tactic.text, repr(target))
        source = fill(_TEMPLATE, {**parameters, "SYMBOL": symbol})
        set_chunks = -(-groups * len(sets) // sets_per_unit)
        row_chunks = -(-image.out_h // rows_per_unit)
        return Program(source, (Launch(symbol, set_chunks * conv.batch * row_chunks),))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Weights in order of use; bias and epilogue constants padded to whole blocks."""
        conv = _require(problem, target)
        weights = constants[1]
        if weights is None:
            raise ValueError(f"{self.name}: the weights of {problem.text()} are not given")
        if is_mixed(conv):
            packed = packed_mixed(weights, conv.groups, conv.lanes)
        else:
            out_blocks = -(-conv.group_filters // conv.lanes)
            sets = balanced(out_blocks, int(tactic.values["oc_blocks"])) * conv.groups
            packed = packed_sets(blocked_weights(weights, conv.groups, conv.lanes), sets)
        return [None, packed, *pack_rest(problem, conv, constants)]


def _require(problem: Problem, target: Any) -> Convolution:
    conv = convolution_of(problem, target)
    if conv is None:
        raise ValueError(f"conv_direct does not apply to {problem.text()}")
    return conv


FAMILY = ConvDirect()
