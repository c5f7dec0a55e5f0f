"""Fully connected layers and products with a constant matrix, 8 bits, through `conv_int8`'s kernel.

Sums and epilogue are those of `conv_int8`. One row is bound by memory: the weights are packed in
order of use and streamed once, several vectors of columns at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder_host.codegen.template import fill
from builder_host.kernels.conv_direct.epilogue import load_parameters
from builder_host.kernels.conv_direct.geometry import Convolution, balanced
from builder_host.kernels.conv_int8.family import FAMILY as CONV_INT8
from builder_host.kernels.conv_int8.family import direct_parameters, direct_tiles, template_text
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
from builder_host.kernels.gemm_int8.product import product_of, weights_of
from builder_host.kernels.store_epilogue import pack_operands
from builder_host.kernels.traffic import traffic_us, vector_operations_us
from planformat.datatypes import DataType

_HERE = Path(__file__).parent
_PREFETCH_BYTES = 2048


class GemmInt8:
    """Family `gemm_int8`. Tactic parameters as `conv_int8`; pixels are rows of the result."""

    name = "gemm_int8"
    device_kind = "cpu"
    template_hash = template_hash(
        CONV_INT8.template_hash, *(path.read_text() for path in sorted(_HERE.glob("*.py")))
    )

    def applies(self, problem: Problem, target: Any) -> bool:
        """What `product_of` accepts."""
        return product_of(problem, target) is not None

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """The larger of dot products at 80 % of their peak and all sides once through memory."""
        conv = _require(problem, target)
        per_instruction = 1 if target.int8_dot != "wide" else 4
        vectors = conv.batch * conv.out_w * conv.out_blocks
        dots = vectors * conv.channels / 4 * conv.num_taps * per_instruction
        compute_us = vector_operations_us(dots / 0.8, target)
        return float(max(compute_us, traffic_us(problem, target))) + 0.1

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """One row: many vectors of columns; more rows: the tiles of the convolution."""
        conv = _require(problem, target)
        if conv.out_w == 1:
            widths = (8, 4, 12) if target.num_vector_registers == 32 else (4, 6, 2)
            enough = max(1, conv.out_blocks // (2 * problem.num_workers))
            tiles = [(1, 1, min(width, enough)) for width in widths]
        else:
            tiles = direct_tiles(conv, target)
        found: dict[Tactic, None] = {}
        for rows, pixels, oc_blocks in tiles:
            for prefetch in (0, _PREFETCH_BYTES) if conv.out_w <= 16 else (0,):
                values: dict[str, int | str] = {
                    "oc_blocks": oc_blocks,
                    "order": "sets",
                    "pixels": pixels,
                    "prefetch": prefetch,
                    "rows": rows,
                }
                found[Tactic(self.name, tuple(sorted(values.items())))] = None
        return list(found)

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch; a unit is a set of column vectors of one image."""
        conv = _require(problem, target)
        symbol = symbol_for(
            f"gemm_int8_{tactic.values['pixels']}x{tactic.values['oc_blocks']}_{target.int8_dot}",
            self.template_hash,
            problem.text(),
            tactic.text,
            repr(target),
        )
        parameters, num_units = direct_parameters(
            conv, tactic, target, symbol, num_workers=problem.num_workers
        )
        parameters |= {
            **load_parameters(problem, conv.operand_strides),
            "X_IS_SIGNED": int(_is_signed(problem)),
            "Y_BYTES": problem.outputs[0].dtype.size_bytes,
            "LAST_LANES": conv.filters - (conv.out_blocks - 1) * conv.lanes,
        }
        return Program(fill(template_text(), parameters), (Launch(symbol, num_units),))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """The right side in order of use with its corrections; channel vectors padded."""
        conv = _require(problem, target)
        values = constants[1]
        if values is None:
            raise ValueError(f"{self.name}: the weights of {problem.text()} are not given")
        sets = balanced(conv.out_blocks, int(tactic.values["oc_blocks"]))
        weights = weights_of(problem, conv, values)
        packed = packed_weights(weights, 1, sets, target, _is_signed(problem))
        axis = len(problem.outputs[0].shape) - 1
        return [None, packed, *pack_operands(problem, axis, constants, target.vector_elems)]


def _is_signed(problem: Problem) -> bool:
    return problem.inputs[0].dtype is DataType.INT8


def _require(problem: Problem, target: Any) -> Convolution:
    conv = product_of(problem, target)
    if conv is None:
        raise ValueError(f"gemm_int8 does not apply to {problem.text()}; ask applies() first")
    return conv


FAMILY = GemmInt8()
