"""How convolutions are cut into register tiles and work units; shared by the direct kernels."""

from __future__ import annotations

from builder_host.kernels.conv_direct.geometry import Convolution, balanced, divisors
from builder_host.targets.target import CpuTarget

_UNITS_PER_WORKER = 4


def is_mixed(conv: Convolution) -> bool:
    """Whether blocks hold channels of more than one group."""
    whole = conv.group_channels % conv.lanes == 0 and conv.group_filters % conv.lanes == 0
    return conv.groups > 1 and not whole


def merged(conv: Convolution, pixels: int) -> Convolution:
    """Rows of a small pointwise image joined until they cut well into tiles of `pixels`."""
    if not conv.can_merge_rows or conv.out_w % pixels == 0:
        return conv

    def waste(rows: int) -> tuple[float, int]:
        width = conv.out_w * rows
        return (round(-(-width // pixels) * pixels / width, 3), rows)

    return conv.merged_rows(min(divisors(conv.out_h), key=waste))


def tile_cost(conv: Convolution, blocks: int, tile: tuple[int, int, int]) -> float:
    """Loads and multiplications per useful multiplication, with tiles that do not come out even."""
    rows, pixels, oc_blocks = tile
    image = merged(conv, pixels) if rows == 1 else conv
    widths = balanced(image.out_w, pixels)
    cost = 0.0
    for width in widths:
        for size in balanced(blocks, oc_blocks):
            sums = rows * width * size
            cost += max(sums, 10) + 0.5 * (rows * width + size)
    return cost / (rows * sum(widths) * blocks)


def unit_extents(
    image: Convolution,
    num_sets: int,
    order: str,
    rows: int,
    workers: int,
    target: CpuTarget,
    elem_bytes: int = 4,
) -> tuple[int, int]:
    """Sets of output blocks and rows of one work unit.

    Args:
        image: the convolution, its rows merged as the kernel sees them.
        num_sets: sets of all groups.
        order: `sets` (one set per unit, all rows that workers leave) or `rows` (rows that stay in
            the level-2 cache while the sets pass).
        rows: rows of a register tile; a unit's rows are a multiple of it.
        workers: threads that share the units.
        target: for the size of the level-2 cache.
        elem_bytes: size of one element of x.
    """
    wanted = workers * _UNITS_PER_WORKER if workers > 1 else 1
    if order == "sets":
        chunks = -(-wanted // (num_sets * image.batch))
        per_unit = -(-image.out_h // chunks)
        return 1, max(rows, -(-per_unit // rows) * rows)
    row_bytes = elem_bytes * image.channels * image.in_w * image.stride_h
    fitting = max(1, (target.l2_bytes // 4) // row_bytes)
    chunks = max(-(-image.out_h // fitting), -(-wanted // image.batch))
    per_unit = -(-image.out_h // min(chunks, image.out_h))
    rows_per_unit = max(rows, -(-per_unit // rows) * rows)
    row_units = -(-image.out_h // rows_per_unit) * image.batch
    return -(-num_sets // min(num_sets, -(-wanted // row_units))), rows_per_unit
