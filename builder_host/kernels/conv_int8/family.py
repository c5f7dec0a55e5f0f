"""Direct convolution of 8-bit tensors on blocked formats, with exact int32 sums.

Input(0) of the epilogue is the sum, rounded to the nearest float32; the epilogue is computed in
float32 exactly as written, operation by operation. An 8-bit result is the epilogue's value, which
must be clipped to the range of its type; a NaN gives 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder_host.codegen.template import fill
from builder_host.expressions import num_operations
from builder_host.kernels.conv_direct.epilogue import load_parameters, pack_channels
from builder_host.kernels.conv_direct.geometry import Convolution, balanced, row_tiles
from builder_host.kernels.conv_direct.tiling import is_mixed, merged, tile_cost, unit_extents
from builder_host.kernels.conv_direct.weights import mixed_rows
from builder_host.kernels.conv_int8.problem import (
    DOT_KINDS,
    IntegerConvolution,
    integer_convolution_of,
)
from builder_host.kernels.conv_int8.weights import packed_weights
from builder_host.kernels.family import (
    Array,
    Launch,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.kernels.traffic import vector_operations_us
from builder_host.target import CpuTarget

_HERE = Path(__file__).parent
_TEMPLATE = (_HERE / "kernel.c").read_text()
_GENERATOR = "".join(path.read_text() for path in sorted(_HERE.glob("*.py")))

# (rows, pixels, output blocks) by instruction set and kind of dot product. Registers: sums, weights
# of each block (twice as many when wide), activations, and the constant that flips them.
_TILES = {
    ("avx512", "vnni"): ((1, 14, 2), (1, 6, 4), (1, 9, 3), (1, 28, 1), (2, 7, 2), (1, 7, 4)),
    ("avx512", "wide"): ((1, 12, 2), (1, 7, 3), (2, 6, 2), (1, 24, 1)),
    ("avx2", "vnni"): ((1, 6, 2), (1, 4, 3), (2, 3, 2), (1, 12, 1)),
    ("avx2", "wide"): ((1, 6, 2), (1, 5, 2), (2, 3, 2), (1, 12, 1)),
    ("neon", "sdot"): ((1, 14, 2), (1, 8, 3), (1, 6, 4), (2, 7, 2), (1, 28, 1)),
    ("neon", "wide"): ((1, 10, 2), (1, 8, 2), (1, 7, 2), (1, 20, 1)),
}
_PREFETCH_BYTES = 2048
_STORE_OPERATIONS = 4  # conversions of sum and result, beside the epilogue's own operations


class ConvInt8:
    """Family `conv_int8`. Tactic parameters as `conv_direct`."""

    name = "conv_int8"
    device_kind = "cpu"
    template_hash = template_hash(_TEMPLATE, _GENERATOR)

    def applies(self, problem: Problem, target: Any) -> bool:
        """Any two-dimensional convolution that `integer_convolution_of` accepts."""
        return integer_convolution_of(problem, target) is not None

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Dot products and epilogue one after the other, or memory traffic, what is longer.

        Share of the dot products' peak (Zen 4, VNNI): 80 %.
        """
        conv = _require(problem, target).conv
        quads = _padded_channels(conv) / 4
        vectors = conv.batch * conv.out_h * conv.out_w * conv.out_blocks
        per_instruction = 1 if target.int8_dot != "wide" else 4
        dots = vectors * quads * conv.num_taps * per_instruction
        operations = num_operations(problem.epilogue.expr) if problem.epilogue else 0
        stores = vectors * (operations + _STORE_OPERATIONS)
        compute_us = vector_operations_us(dots / 0.8 + stores, target)
        weights = conv.out_blocks * conv.lanes * quads * 4 * conv.num_taps
        image = conv.batch * conv.channels * conv.in_h * conv.in_w
        own = problem.num_own_inputs
        tensors = (*problem.outputs, *problem.inputs[own:])
        moved = weights + image + sum(layout.stored_bytes for layout in tensors)
        return float(max(compute_us, moved / (1e3 * target.memory_gbps))) + 1.0

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Tiles that fit the registers and the image, each in the order that suits its size."""
        conv = _require(problem, target).conv
        blocks = _blocks(conv)
        block_bytes = conv.group_channels * conv.num_taps * conv.lanes
        order = "rows" if block_bytes * blocks <= target.l2_bytes // 2 else "sets"
        other = "sets" if order == "rows" else "rows"
        found: dict[Tactic, None] = {}
        for number, (rows, pixels, oc_blocks) in enumerate(direct_tiles(conv, target)):
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
        integer = _require(problem, target)
        rows = int(tactic.values["rows"])
        conv = integer.conv
        image = merged(conv, int(tactic.values["pixels"])) if rows == 1 else conv
        symbol = symbol_for(
            f"conv_int8_{conv.kernel_h}x{conv.kernel_w}s{conv.stride_h}"
            f"_{rows}x{tactic.values['pixels']}x{tactic.values['oc_blocks']}_{target.int8_dot}",
            _TEMPLATE,
            problem.text(),
            tactic.text,
            repr(target),
        )
        parameters, num_units = direct_parameters(
            image, tactic, target, symbol, num_workers=problem.num_workers
        )
        parameters |= {
            **load_parameters(problem, image.operand_strides),
            "X_IS_SIGNED": int(integer.x_is_signed),
            "Y_BYTES": integer.y_dtype.size_bytes,
            "LAST_LANES": conv.lanes,  # padded lanes of a blocked output may be written
        }
        return Program(fill(_TEMPLATE, parameters), (Launch(symbol, num_units),))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Weights in order of use with their corrections; constants padded to whole blocks."""
        integer = _require(problem, target)
        conv = integer.conv
        weights = constants[1]
        if weights is None:
            raise ValueError(f"{self.name}: the weights of {problem.text()} are not given")
        sets = _sets(conv, int(tactic.values["oc_blocks"])) * conv.groups
        packed = packed_weights(
            weights, conv.groups, [] if is_mixed(conv) else sets, target, integer.x_is_signed
        )
        padded = conv.out_blocks * conv.lanes
        rest = [
            None if values is None else pack_channels(values, conv.filters, padded)
            for values in constants[2:]
        ]
        return [None, packed, *rest]


def template_text() -> str:
    """The kernel's template, for families that compute products as convolutions."""
    return _TEMPLATE


def direct_tiles(conv: Convolution, target: CpuTarget) -> list[tuple[int, int, int]]:
    """Up to four register tiles (rows, pixels, output blocks), the expected best first."""
    blocks = _blocks(conv)
    sizes = _TILES[target.isa, target.int8_dot]
    tiles: dict[tuple[int, int, int], None] = {}
    for rows, pixels, oc_blocks in sorted(sizes, key=lambda t: tile_cost(conv, blocks, t)):
        widest = min(pixels, merged(conv, pixels).out_w)
        if rows <= max(conv.out_h // 2, 1) and (rows == 1 or widest * rows >= pixels):
            tiles[(rows, widest, min(oc_blocks, blocks))] = None
    return list(tiles)[:4]


def direct_parameters(
    image: Convolution, tactic: Tactic, target: CpuTarget, symbol: str, *, num_workers: int
) -> tuple[dict[str, int | str], int]:
    """Parameters of the template that follow from extents and tactic, and the number of units."""
    values = tactic.values
    pixels, rows = int(values["pixels"]), int(values["rows"])
    mixed = is_mixed(image)
    groups = 1 if mixed else image.groups
    quads = image.lanes // 4
    in_blocks = -(-image.group_channels // image.lanes)
    tail = -(-(image.group_channels - (in_blocks - 1) * image.lanes) // 4)
    sets = _sets(image, int(values["oc_blocks"]))
    sets_per_unit, rows_per_unit = unit_extents(
        image, groups * len(sets), str(values["order"]), rows, num_workers, target, elem_bytes=1
    )
    tiles, columns = row_tiles(image, pixels)
    table = mixed_rows(image.filters, image.channels, image.groups, image.lanes) if mixed else []
    quad_rows = [(begin // 4, -(-end // 4), before) for begin, end, before in table]
    parameters: dict[str, int | str] = {
        **image.parameters_of(_TEMPLATE),
        "SYMBOL": symbol,
        "DOT": DOT_KINDS[target.int8_dot],
        "GROUPS": groups,
        "IN_BLOCKS": in_blocks,
        "IN_QUADS": tail,
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
        "QUADS_UNROLLED": 1 if mixed else math.gcd(quads, tail),
        "PREFETCH_BYTES": values["prefetch"],
        "MIXED_GROUPS": int(mixed),
        "MIXED_TABLE": ", ".join(f"{{{a}, {b}, {c}}}" for a, b, c in quad_rows) or "{0, 0, 0}",
    }
    set_chunks = -(-groups * len(sets) // sets_per_unit)
    return parameters, set_chunks * image.batch * -(-image.out_h // rows_per_unit)


def _blocks(conv: Convolution) -> int:
    """Output blocks that one tile may cover."""
    return 1 if is_mixed(conv) else -(-conv.group_filters // conv.lanes)


def _sets(conv: Convolution, largest: int) -> list[int]:
    """Output blocks of each set of one group; of the whole tensor when groups share blocks."""
    if is_mixed(conv):
        return [1] * conv.out_blocks
    return balanced(_blocks(conv), largest)


def _padded_channels(conv: Convolution) -> float:
    """Input channels that an output block is computed from, in whole quads."""
    if not is_mixed(conv):
        return -(-conv.group_channels // 4) * 4.0
    rows = mixed_rows(conv.filters, conv.channels, conv.groups, conv.lanes)
    return sum(-(-end // 4) * 4.0 - begin // 4 * 4 for begin, end, _ in rows) / len(rows)


def _require(problem: Problem, target: Any) -> IntegerConvolution:
    integer = integer_convolution_of(problem, target)
    if integer is None:
        raise ValueError(f"conv_int8 does not apply to {problem.text()}")
    return integer


FAMILY = ConvInt8()
