"""Direct convolution of bfloat16 tensors on blocked formats, with float32 sums.

Products are added in pairs by the CPU's bfloat16 dot product, which takes denormals as zero.
Weights are constant; bias and epilogue are computed in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder_host.kernels.conv_bf16.problem import bf16_convolution_of
from builder_host.kernels.conv_bf16.weights import packed_pairs
from builder_host.kernels.conv_direct.epilogue import pack_channels
from builder_host.kernels.conv_direct.geometry import Convolution
from builder_host.kernels.conv_direct.tiling import merged
from builder_host.kernels.conv_int8.direct import (
    direct_program,
    direct_tactics,
    dot_product,
    num_steps,
    packed_set_sizes,
)
from builder_host.kernels.conv_int8.family import FAMILY as CONV_INT8
from builder_host.kernels.family import (
    Array,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.kernels.traffic import traffic_us, vector_operations_us
from planformat.datatypes import DataType

_GENERATOR = "".join(path.read_text() for path in sorted(Path(__file__).parent.glob("*.py")))


class ConvBf16:
    """Family `conv_bf16`. Tactic parameters as `conv_direct`."""

    name = "conv_bf16"
    device_kind = "cpu"
    template_hash = template_hash(CONV_INT8.template_hash, _GENERATOR)

    def applies(self, problem: Problem, target: Any) -> bool:
        """Any two-dimensional convolution that `bf16_convolution_of` accepts."""
        return bf16_convolution_of(problem, target) is not None

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Dot products at 80 % of their peak, or memory traffic, what is longer."""
        _, conv = _require(problem, target)
        steps = num_steps(conv, dot_product(target, DataType.BFLOAT16)) * conv.num_taps
        vectors = conv.batch * conv.out_h * conv.out_w * conv.out_blocks
        compute_us = vector_operations_us(vectors * steps / 0.8, target)
        return float(max(compute_us, traffic_us(problem, target))) + 1.0

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Tiles that fit the registers and the image, each in the order that suits its size."""
        _, conv = _require(problem, target)
        return direct_tactics(self.name, conv, target, dot_product(target, DataType.BFLOAT16))

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch; a unit is a chunk of output sets, one image, a chunk of rows."""
        canonical, conv = _require(problem, target)
        rows, pixels = tactic.values["rows"], int(tactic.values["pixels"])
        image = merged(conv, pixels) if rows == 1 else conv
        types = (DataType.BFLOAT16, problem.outputs[0].dtype)
        symbol = symbol_for(
            f"conv_bf16_{conv.kernel_h}x{conv.kernel_w}s{conv.stride_h}"
            f"_{rows}x{pixels}x{tactic.values['oc_blocks']}",
            self.template_hash,
            problem.text(),
            tactic.text,
            repr(target),
        )
        # padded lanes of a blocked output may be written
        return direct_program(
            symbol, canonical, image, tactic, target, types, last_lanes=conv.lanes
        )

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Weights in order of use; bias and constants as float32, padded to whole blocks."""
        _, conv = _require(problem, target)
        weights = constants[1]
        if weights is None:
            raise ValueError(f"{self.name}: the weights of {problem.text()} are not given")
        packed = packed_pairs(weights, conv.groups, packed_set_sizes(conv, tactic), conv.lanes)
        padded = conv.out_blocks * conv.lanes
        rest = [
            None if values is None else pack_channels(values, conv.filters, padded)
            for values in constants[2:]
        ]
        return [None, packed, *rest]


def _require(problem: Problem, target: Any) -> tuple[Problem, Convolution]:
    found = bf16_convolution_of(problem, target)
    if found is None:
        raise ValueError(f"conv_bf16 does not apply to {problem.text()}")
    return found


FAMILY = ConvBf16()
