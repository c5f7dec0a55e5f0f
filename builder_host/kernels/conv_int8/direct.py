"""Direct convolution by dot products: register tiles, template parameters, packed weights.

Shared by the families of 8-bit and bfloat16 tensors, convolutions and matrix products alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder_host.codegen.template import fill
from builder_host.kernels.conv_direct.epilogue import STORES, load_parameters
from builder_host.kernels.conv_direct.geometry import Convolution, balanced, row_tiles
from builder_host.kernels.conv_direct.headers import with_headers
from builder_host.kernels.conv_direct.tiling import is_mixed, merged, tile_cost, unit_extents
from builder_host.kernels.conv_direct.weights import mixed_rows
from builder_host.kernels.family import Launch, Problem, Program, Tactic
from builder_host.targets.target import CpuTarget
from planformat.datatypes import DataType

TEMPLATE = with_headers(Path(__file__).with_name("kernel.c").read_text())

_KINDS = {"wide": 0, "vnni": 1, "sdot": 2, "bf16": 3}  # EP_DOT
# (rows, pixels, output blocks) by instruction set and kind of dot product. Registers: sums, weights
# of each block (twice as many when wide), activations, and the constant that flips them.
_TILES = {
    ("avx512", "vnni"): ((1, 14, 2), (1, 6, 4), (1, 9, 3), (1, 28, 1), (2, 7, 2), (1, 7, 3)),
    ("avx512", "bf16"): ((1, 14, 2), (1, 6, 4), (1, 9, 3), (1, 28, 1), (2, 7, 2), (1, 7, 3)),
    ("avx512", "wide"): ((1, 12, 2), (1, 7, 3), (2, 6, 2), (1, 24, 1)),
    ("avx2", "vnni"): ((1, 6, 2), (1, 4, 3), (2, 3, 2), (1, 12, 1)),
    ("avx2", "wide"): ((1, 4, 2), (1, 3, 3), (1, 5, 2), (1, 8, 1)),
    ("neon", "sdot"): ((1, 14, 2), (1, 8, 3), (1, 6, 4), (2, 7, 2), (1, 28, 1)),
    ("neon", "wide"): ((1, 10, 2), (1, 8, 2), (1, 7, 2), (1, 20, 1)),
}
_PREFETCH_BYTES = 2048


@dataclass(frozen=True, slots=True)
class DotProduct:
    """How activations meet weights.

    Attributes:
        kind: `vnni`, `sdot` or `wide` for 8-bit activations (see `CpuTarget.int8_dot`), `bf16`.
        channels: input channels that one lane adds up per step.
    """

    kind: str
    channels: int

    @property
    def operations(self) -> int:
        """Vector operations per step."""
        return 4 if self.kind == "wide" else 1


def dot_product(target: CpuTarget, x: DataType) -> DotProduct:
    """The dot product of a target for activations of INT8, UINT8 or BFLOAT16."""
    if x is DataType.BFLOAT16:
        return DotProduct("bf16", 2)
    return DotProduct(target.int8_dot, 4)


def num_steps(conv: Convolution, dot: DotProduct) -> float:
    """Steps per tap that an output block needs, the mean over blocks where groups share them."""
    if not is_mixed(conv):
        return float(-(-conv.group_channels // dot.channels))
    rows = mixed_rows(conv.filters, conv.channels, conv.groups, conv.lanes)
    steps = [-(-end // dot.channels) - begin // dot.channels for begin, end, _ in rows]
    return sum(steps) / len(steps)


def direct_tiles(
    conv: Convolution, target: CpuTarget, dot: DotProduct
) -> list[tuple[int, int, int]]:
    """Up to four register tiles (rows, pixels, output blocks), the expected best first."""
    blocks = blocks_of_group(conv)
    sizes = _TILES[target.isa, dot.kind]
    tiles: dict[tuple[int, int, int], None] = {}
    for rows, pixels, oc_blocks in sorted(sizes, key=lambda t: tile_cost(conv, blocks, t)):
        widest = min(pixels, merged(conv, pixels).out_w)
        if rows <= max(conv.out_h // 2, 1) and (rows == 1 or widest * rows >= pixels):
            tiles[(rows, widest, min(oc_blocks, blocks))] = None
    return list(tiles)[:4]


def direct_tactics(
    name: str, conv: Convolution, target: CpuTarget, dot: DotProduct
) -> list[Tactic]:
    """The tiles of a convolution, each in the order that suits its size, some with prefetch."""
    blocks = blocks_of_group(conv)
    block_bytes = 4 * math.ceil(num_steps(conv, dot)) * conv.num_taps * conv.lanes
    order = "rows" if block_bytes * blocks <= target.l2_bytes // 2 else "sets"
    other = "sets" if order == "rows" else "rows"
    found: dict[Tactic, None] = {}
    for number, (rows, pixels, oc_blocks) in enumerate(direct_tiles(conv, target, dot)):
        variants = [(order, 0)]
        if number == 0 and blocks > oc_blocks:
            variants.append((other, 0))
        if number < 2 and block_bytes * oc_blocks > target.l1d_bytes // 2:
            variants.append((order, _PREFETCH_BYTES))
        for choice, prefetch in variants:
            found[direct_tactic(name, (rows, pixels, oc_blocks), choice, prefetch)] = None
    return list(found)


def product_tactics(
    name: str, conv: Convolution, target: CpuTarget, dot: DotProduct, num_workers: int
) -> list[Tactic]:
    """For matrix products: many column vectors for one row; else the tiles of a convolution."""
    if conv.out_w == 1:
        widths = (8, 4, 12) if target.num_vector_registers == 32 else (4, 6, 2)
        enough = max(1, conv.out_blocks // (2 * num_workers))
        tiles = [(1, 1, min(width, enough)) for width in widths]
    else:
        tiles = direct_tiles(conv, target, dot)
    distances = (0, _PREFETCH_BYTES) if conv.out_w <= 16 else (0,)
    return list(
        dict.fromkeys(
            direct_tactic(name, tile, "sets", distance) for tile in tiles for distance in distances
        )
    )


def direct_tactic(name: str, tile: tuple[int, int, int], order: str, prefetch: int) -> Tactic:
    """A tactic of the template: tile, order of sets and rows, bytes that are prefetched ahead."""
    rows, pixels, oc_blocks = tile
    values: dict[str, int | str] = {
        "oc_blocks": oc_blocks,
        "order": order,
        "pixels": pixels,
        "prefetch": prefetch,
        "rows": rows,
    }
    return Tactic(name, tuple(sorted(values.items())))


def _parameters(
    image: Convolution,
    tactic: Tactic,
    target: CpuTarget,
    types: tuple[DataType, DataType],
    num_workers: int,
) -> tuple[dict[str, int | str], int]:
    """Parameters of the template but for symbol, epilogue and lanes, and the number of units."""
    x, y = types
    dot = dot_product(target, x)
    values = tactic.values
    pixels, rows = int(values["pixels"]), int(values["rows"])
    mixed = is_mixed(image)
    groups = 1 if mixed else image.groups
    steps = image.lanes // dot.channels
    in_blocks = -(-image.group_channels // image.lanes)
    tail = image.group_channels - (in_blocks - 1) * image.lanes
    tail_steps = -(-tail // dot.channels)
    sets = sets_of_group(image, int(values["oc_blocks"]))
    sets_per_unit, rows_per_unit = unit_extents(
        image,
        groups * len(sets),
        str(values["order"]),
        rows,
        num_workers,
        target,
        elem_bytes=x.size_bytes,
    )
    tiles, columns = row_tiles(image, pixels)
    table = mixed_rows(image.filters, image.channels, image.groups, image.lanes) if mixed else []
    ranges = [
        (begin // dot.channels, -(-end // dot.channels), before) for begin, end, before in table
    ]
    parameters: dict[str, int | str] = {
        **image.parameters_of(TEMPLATE),
        **{
            f"X_{axis}": stride * x.size_bytes
            for axis, stride in zip("NCHW", image.x_strides, strict=True)
        },
        "DOT": _KINDS[dot.kind],
        "X_BYTES": x.size_bytes,
        "X_IS_SIGNED": int(x is not DataType.UINT8),
        "Y_BYTES": y.size_bytes,
        "STORE_Y": STORES[y],
        "STORE_Y_N": f"{STORES[y]}_n",
        "GROUPS": groups,
        "IN_BLOCKS": in_blocks,
        "IN_STEPS": tail_steps,
        "OUT_BLOCKS": -(-image.filters // groups // image.lanes),
        "SET_BLOCKS": sets[0],
        "WIDE_SETS": sets.count(sets[0]),
        "NARROW_SETS": len(sets) - sets.count(sets[0]),
        "SETS_PER_UNIT": sets_per_unit,
        "ROWS_PER_UNIT": rows_per_unit,
        "TILE_ROWS": rows,
        "TILE_PIXELS": pixels,
        "ROW_TILES": tiles,
        "KERNEL_COLUMNS": columns,
        "STEPS_UNROLLED": 1 if mixed else math.gcd(4, steps, tail_steps),
        "ODD_TAIL": int(dot.kind == "bf16" and tail % 2 == 1),
        "PREFETCH_BYTES": values["prefetch"],
        "MIXED_GROUPS": int(mixed),
        "MIXED_TABLE": ", ".join(f"{{{a}, {b}, {c}}}" for a, b, c in ranges) or "{0, 0, 0}",
    }
    set_chunks = -(-groups * len(sets) // sets_per_unit)
    return parameters, set_chunks * image.batch * -(-image.out_h // rows_per_unit)


def direct_program(
    symbol: str,
    problem: Problem,
    image: Convolution,
    tactic: Tactic,
    target: CpuTarget,
    types: tuple[DataType, DataType],
    *,
    last_lanes: int,
) -> Program:
    """The template filled in, as one launch; a unit is a chunk of sets, one image, a chunk of rows.

    Args:
        symbol: name of the kernel.
        problem: whose epilogue is computed, in the form that `load_parameters` takes.
        image: the convolution, its rows merged where the tactic has one row.
        tactic: of `direct_tactic`.
        target: decides the dot product.
        types: of x and y.
        last_lanes: lanes that may be stored in the very last output block.
    """
    parameters, num_units = _parameters(image, tactic, target, types, problem.num_workers)
    parameters |= {
        **load_parameters(problem, image.operand_strides),
        "SYMBOL": symbol,
        "LAST_LANES": last_lanes,
    }
    return Program(fill(TEMPLATE, parameters), (Launch(symbol, num_units),))


def blocks_of_group(conv: Convolution) -> int:
    """Output blocks that one tile may cover."""
    return 1 if is_mixed(conv) else -(-conv.group_filters // conv.lanes)


def sets_of_group(conv: Convolution, largest: int) -> list[int]:
    """Output blocks of each set of one group; of the whole tensor when groups share blocks."""
    if is_mixed(conv):
        return [1] * conv.out_blocks
    return balanced(blocks_of_group(conv), largest)


def packed_set_sizes(conv: Convolution, tactic: Tactic) -> Sequence[int]:
    """Output blocks of each set of the whole tensor; empty when groups share blocks."""
    if is_mixed(conv):
        return []
    return sets_of_group(conv, int(tactic.values["oc_blocks"])) * conv.groups
