"""Fully connected layers and products with a constant matrix in bfloat16, float32 sums.

Through the template of `conv_int8`, as `gemm_int8`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder_host.kernels.conv_bf16.family import FAMILY as CONV_BF16
from builder_host.kernels.conv_bf16.problem import bf16_product_of
from builder_host.kernels.conv_bf16.weights import packed_pairs
from builder_host.kernels.conv_direct.geometry import Convolution
from builder_host.kernels.conv_int8.direct import (
    direct_program,
    dot_product,
    num_steps,
    packed_set_sizes,
    product_tactics,
)
from builder_host.kernels.family import (
    Array,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.kernels.gemm_int8.family import FAMILY as GEMM_INT8
from builder_host.kernels.gemm_int8.product import weights_of
from builder_host.kernels.store_epilogue import pack_operands
from builder_host.kernels.traffic import traffic_us, vector_operations_us
from planformat.datatypes import DataType


class GemmBf16:
    """Family `gemm_bf16`. Tactic parameters as `conv_direct`; pixels are rows of the result."""

    name = "gemm_bf16"
    device_kind = "cpu"
    template_hash = template_hash(
        CONV_BF16.template_hash, GEMM_INT8.template_hash, Path(__file__).read_text()
    )

    def applies(self, problem: Problem, target: Any) -> bool:
        """What `bf16_product_of` accepts."""
        return bf16_product_of(problem, target) is not None

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """The larger of dot products at 80 % of their peak and all sides once through memory."""
        _, conv = _require(problem, target)
        steps = num_steps(conv, dot_product(target, DataType.BFLOAT16)) * conv.num_taps
        operations = conv.batch * conv.out_w * conv.out_blocks * steps
        compute_us = vector_operations_us(operations / 0.8, target)
        return float(max(compute_us, traffic_us(problem, target))) + 0.1

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """One row: many vectors of columns; more rows: the tiles of the convolution."""
        _, conv = _require(problem, target)
        dot = dot_product(target, DataType.BFLOAT16)
        return product_tactics(self.name, conv, target, dot, problem.num_workers)

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch; a unit is a set of column vectors of one image."""
        canonical, conv = _require(problem, target)
        types = (DataType.BFLOAT16, problem.outputs[0].dtype)
        symbol = symbol_for(
            f"gemm_bf16_{tactic.values['pixels']}x{tactic.values['oc_blocks']}",
            self.template_hash,
            problem.text(),
            tactic.text,
            repr(target),
        )
        last_lanes = conv.filters - (conv.out_blocks - 1) * conv.lanes
        return direct_program(symbol, canonical, conv, tactic, target, types, last_lanes=last_lanes)

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """The right side in order of use; bias and channel vectors as padded float32."""
        canonical, conv = _require(problem, target)
        values = constants[1]
        if values is None:
            raise ValueError(f"{self.name}: the weights of {problem.text()} are not given")
        weights = weights_of(problem, conv, values)
        packed = packed_pairs(weights, 1, packed_set_sizes(conv, tactic), conv.lanes)
        axis = len(problem.outputs[0].shape) - 1
        return [None, packed, *pack_operands(canonical, axis, constants, target.vector_elems)]


def _require(problem: Problem, target: Any) -> tuple[Problem, Convolution]:
    found = bf16_product_of(problem, target)
    if found is None:
        raise ValueError(f"gemm_bf16 does not apply to {problem.text()}; ask applies() first")
    return found


FAMILY = GemmBf16()
