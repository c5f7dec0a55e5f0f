"""Direct convolution of 8-bit tensors on blocked formats, with exact int32 sums.

Input(0) of the epilogue is the sum, rounded to the nearest float32; the epilogue is computed in
float32 exactly as written, operation by operation. An 8-bit result is the epilogue's value, which
must be clipped to the range of its type; a NaN gives 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder_host.expressions import num_operations
from builder_host.kernels.conv_direct.epilogue import pack_channels
from builder_host.kernels.conv_direct.tiling import merged
from builder_host.kernels.conv_int8.direct import (
    TEMPLATE,
    direct_program,
    direct_tactics,
    dot_product,
    num_steps,
    packed_set_sizes,
)
from builder_host.kernels.conv_int8.problem import IntegerConvolution, integer_convolution_of
from builder_host.kernels.conv_int8.weights import packed_weights
from builder_host.kernels.family import (
    Array,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.kernels.traffic import vector_operations_us

_GENERATOR = "".join(path.read_text() for path in sorted(Path(__file__).parent.glob("*.py")))
_STORE_OPERATIONS = 4  # conversions of sum and result, beside the epilogue's own operations


class ConvInt8:
    """Family `conv_int8`. Tactic parameters as `conv_direct`."""

    name = "conv_int8"
    device_kind = "cpu"
    template_hash = template_hash(TEMPLATE, _GENERATOR)

    def applies(self, problem: Problem, target: Any) -> bool:
        """Any two-dimensional convolution that `integer_convolution_of` accepts."""
        return integer_convolution_of(problem, target) is not None

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Dot products and epilogue one after the other, or memory traffic, what is longer.

        Share of the dot products' peak (Zen 4, VNNI): 80 %.
        """
        integer = _require(problem, target)
        conv, dot = integer.conv, dot_product(target, integer.x_dtype)
        steps = num_steps(conv, dot) * conv.num_taps
        vectors = conv.batch * conv.out_h * conv.out_w * conv.out_blocks
        operations = num_operations(problem.epilogue.expr) if problem.epilogue else 0
        stores = vectors * (operations + _STORE_OPERATIONS)
        compute_us = vector_operations_us(vectors * steps * dot.operations / 0.8 + stores, target)
        weights = conv.out_blocks * conv.lanes * steps * dot.channels
        image = conv.batch * conv.channels * conv.in_h * conv.in_w
        own = problem.num_own_inputs
        tensors = (*problem.outputs, *problem.inputs[own:])
        moved = weights + image + sum(layout.stored_bytes for layout in tensors)
        return float(max(compute_us, moved / (1e3 * target.memory_gbps))) + 1.0

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Tiles that fit the registers and the image, each in the order that suits its size."""
        integer = _require(problem, target)
        dot = dot_product(target, integer.x_dtype)
        return direct_tactics(self.name, integer.conv, target, dot)

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch; a unit is a chunk of output sets, one image, a chunk of rows."""
        integer = _require(problem, target)
        conv, rows, pixels = integer.conv, tactic.values["rows"], int(tactic.values["pixels"])
        image = merged(conv, pixels) if rows == 1 else conv
        symbol = symbol_for(
            f"conv_int8_{conv.kernel_h}x{conv.kernel_w}s{conv.stride_h}"
            f"_{rows}x{pixels}x{tactic.values['oc_blocks']}_{target.int8_dot}",
            TEMPLATE,
            problem.text(),
            tactic.text,
            repr(target),
        )
        types = (integer.x_dtype, integer.y_dtype)
        # padded lanes of a blocked output may be written
        return direct_program(symbol, problem, image, tactic, target, types, last_lanes=conv.lanes)

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Weights in order of use with their corrections; constants padded to whole blocks."""
        integer = _require(problem, target)
        conv, weights = integer.conv, constants[1]
        if weights is None:
            raise ValueError(f"{self.name}: the weights of {problem.text()} are not given")
        sets = packed_set_sizes(conv, tactic)
        packed = packed_weights(weights, conv.groups, sets, target, integer.x_is_signed)
        padded = conv.out_blocks * conv.lanes
        rest = [
            None if values is None else pack_channels(values, conv.filters, padded)
            for values in constants[2:]
        ]
        return [None, packed, *rest]


def _require(problem: Problem, target: Any) -> IntegerConvolution:
    integer = integer_convolution_of(problem, target)
    if integer is None:
        raise ValueError(f"conv_int8 does not apply to {problem.text()}")
    return integer


FAMILY = ConvInt8()
