"""Fully connected layers and products with a constant matrix, 8 bits, through `conv_int8`'s kernel.

Sums and epilogue are those of `conv_int8`. One row is bound by memory: the weights are packed in
order of use and streamed once, several vectors of columns at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder_host.kernels.conv_direct.geometry import Convolution
from builder_host.kernels.conv_int8.direct import (
    direct_program,
    dot_product,
    num_steps,
    packed_set_sizes,
    product_tactics,
)
from builder_host.kernels.conv_int8.family import FAMILY as CONV_INT8
from builder_host.kernels.conv_int8.weights import packed_weights
from builder_host.kernels.family import (
    Array,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.kernels.gemm_int8.product import integer_product_of, weights_of
from builder_host.kernels.store_epilogue import pack_operands
from builder_host.kernels.traffic import traffic_us, vector_operations_us
from planformat.datatypes import DataType

_HERE = Path(__file__).parent


class GemmInt8:
    """Family `gemm_int8`. Tactic parameters as `conv_int8`; pixels are rows of the result."""

    name = "gemm_int8"
    device_kind = "cpu"
    template_hash = template_hash(
        CONV_INT8.template_hash, *(path.read_text() for path in sorted(_HERE.glob("*.py")))
    )

    def applies(self, problem: Problem, target: Any) -> bool:
        """What `integer_product_of` accepts."""
        return integer_product_of(problem, target) is not None

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """The larger of dot products at 80 % of their peak and all sides once through memory."""
        conv = _require(problem, target)
        dot = dot_product(target, problem.inputs[0].dtype)
        vectors = conv.batch * conv.out_w * conv.out_blocks
        operations = vectors * num_steps(conv, dot) * conv.num_taps * dot.operations
        compute_us = vector_operations_us(operations / 0.8, target)
        return float(max(compute_us, traffic_us(problem, target))) + 0.1

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """One row: many vectors of columns; more rows: the tiles of the convolution."""
        conv = _require(problem, target)
        dot = dot_product(target, problem.inputs[0].dtype)
        return product_tactics(self.name, conv, target, dot, problem.num_workers)

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch; a unit is a set of column vectors of one image."""
        conv = _require(problem, target)
        types = (problem.inputs[0].dtype, problem.outputs[0].dtype)
        symbol = symbol_for(
            f"gemm_int8_{tactic.values['pixels']}x{tactic.values['oc_blocks']}_{target.int8_dot}",
            self.template_hash,
            problem.text(),
            tactic.text,
            repr(target),
        )
        last_lanes = conv.filters - (conv.out_blocks - 1) * conv.lanes
        return direct_program(symbol, problem, conv, tactic, target, types, last_lanes=last_lanes)

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """The right side in order of use with its corrections; channel vectors padded."""
        conv = _require(problem, target)
        values = constants[1]
        if values is None:
            raise ValueError(f"{self.name}: the weights of {problem.text()} are not given")
        weights = weights_of(problem, conv, values)
        is_signed = problem.inputs[0].dtype is DataType.INT8
        packed = packed_weights(weights, 1, packed_set_sizes(conv, tactic), target, is_signed)
        axis = len(problem.outputs[0].shape) - 1
        return [None, packed, *pack_operands(problem, axis, constants, target.vector_elems)]


def _require(problem: Problem, target: Any) -> Convolution:
    conv = integer_product_of(problem, target)
    if conv is None:
        raise ValueError(f"gemm_int8 does not apply to {problem.text()}; ask applies() first")
    return conv


FAMILY = GemmInt8()
