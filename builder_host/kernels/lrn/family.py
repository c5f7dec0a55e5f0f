"""Local response normalisation across channels (CPU, float32), blocked or linear.

x / t^beta is computed by square roots and one division for beta 0.75, 0.5 and 1 (at most 3
roundings; AVX-512 has refined reciprocal roots for 0.75, at most 6 ulp), else by a power function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder_host.codegen.c_expression import float_literal
from builder_host.codegen.template import fill
from builder_host.kernels.family import (
    Array,
    Launch,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.kernels.store_epilogue import epilogue_parameters, stride_parameters
from builder_host.kernels.traffic import traffic_us, vector_operations_us
from builder_host.layouts import Layout
from builder_host.targets.target import CpuTarget
from planformat.datatypes import DataType, TensorFormat

_HERE = Path(__file__).parent
_BLOCKED = (_HERE / "kernel_blocked.c").read_text()
_LINEAR = (_HERE / "kernel_linear.c").read_text()
_BETA_KINDS = {0.75: "BETA_THREE_QUARTERS", 0.5: "BETA_HALF", 1.0: "BETA_ONE"}

# Squares of a tile of pixels fill at most half of a 32 KiB L1.
_SCRATCH_BYTES = 16 << 10


class LrnFamily:
    """Kernel family `lrn` (CPU)."""

    name = "lrn"
    device_kind = "cpu"
    template_hash = template_hash(_BLOCKED, _LINEAR, Path(__file__).read_text())

    def applies(self, problem: Problem, target: Any) -> bool:
        """Float32, across channels; both sides blocked, or both linear with dense images."""
        if problem.kind != "lrn" or not isinstance(target, CpuTarget):
            return False
        if problem.params.region != "across" or problem.is_constant[0]:
            return False
        if problem.epilogue is not None and problem.epilogue.num_operands:
            return False
        x, y = problem.inputs[0], problem.outputs[0]
        if x.dtype is not DataType.FLOAT32 or y.dtype is not DataType.FLOAT32 or 0 in x.shape:
            return False
        if x.format is target.blocked_format:
            return y.format is x.format
        linear = x.format is TensorFormat.LINEAR and y.format is TensorFormat.LINEAR
        return linear and _has_dense_images(x) and _has_dense_images(y)

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """About 14 + size operations per vector (200 more for a power), or memory traffic."""
        vectors = problem.inputs[0].type.num_elems / target.vector_elems
        operations = 14 + problem.params.size
        operations += 0 if problem.params.beta in _BETA_KINDS else 200
        compute_us = vector_operations_us(operations * vectors, target)
        return max(compute_us, traffic_us(problem, target)) + 0.1

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Tiles of pixels for blocked tensors; one tactic for linear ones."""
        x = problem.inputs[0]
        if x.format is TensorFormat.LINEAR:
            return [Tactic(self.name, (("form", "linear"),))]
        pixel_bytes = 4 * _pixel_elems(problem, target)
        widest = max(1, min(8, x.shape[3], _SCRATCH_BYTES // pixel_bytes))
        return [
            Tactic(self.name, (("form", "blocked"), ("tile", tile)))
            for tile in dict.fromkeys((widest, (widest + 1) // 2))
        ]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch; a unit is some image rows, or some vectors of positions of one image."""
        form = str(tactic.values["form"])
        symbol = symbol_for(
            f"lrn_{form}_f32_{target.isa}",
            self.template_hash, problem.text(), tactic.text, target.isa,
        )  # fmt: skip
        params, x, y = problem.params, problem.inputs[0], problem.outputs[0]
        epilogue = epilogue_parameters(problem, 1, channel="0", full_offset=lambda _: "0")
        parameters: dict[str, int | str] = {
            "KERNEL": symbol,
            "CHANNELS": x.shape[1],
            "SIZE": params.size,
            "ALPHA_OVER_SIZE": float_literal(params.alpha / params.size),
            "BETA": float_literal(params.beta),
            "BETA_KIND": _BETA_KINDS.get(params.beta, "BETA_ANY"),
            "K": float_literal(params.k),
            "T_IS_NORMAL": int(params.k >= 1e-30 and params.alpha >= 0),
            "OUTPUT_ARG": 1,
            "EPILOGUE_EXPR": epilogue["EPILOGUE_EXPR"],
        }
        if form == "linear":
            return self._linear(problem, symbol, parameters, target)
        n, _, h, w = x.shape
        rows = max(1, min(h, 1024 // w))
        while rows > 1 and n * -(-h // rows) < 8 * problem.num_workers:
            rows = (rows + 1) // 2
        tile = int(tactic.values["tile"])
        parameters |= {
            "HEIGHT": h,
            "WIDTH": w,
            "TILE": tile,
            "ROWS_PER_UNIT": rows,
            **stride_parameters("INPUT", x),
            **stride_parameters("OUTPUT", y),
        }
        scratch_bytes = 4 * tile * _pixel_elems(problem, target)
        launch = Launch(symbol, n * -(-h // rows), scratch_bytes)
        return Program(fill(_BLOCKED, parameters), (launch,))

    def _linear(
        self, problem: Problem, symbol: str, parameters: dict[str, int | str], target: CpuTarget
    ) -> Program:
        x, y = problem.inputs[0], problem.outputs[0]
        inner = math.prod(x.shape[2:])
        vectors = -(-inner // target.vector_elems)
        per_unit = min(vectors, 16)
        while per_unit > 4 and x.shape[0] * -(-vectors // per_unit) < 8 * problem.num_workers:
            per_unit //= 2
        parameters |= {
            "INNER": inner,
            "VECTORS_PER_UNIT": per_unit,
            "INPUT_STRIDE_N": x.strides[0],
            "INPUT_STRIDE_C": x.strides[1],
            "OUTPUT_STRIDE_N": y.strides[0],
            "OUTPUT_STRIDE_C": y.strides[1],
        }
        units = x.shape[0] * -(-vectors // per_unit)
        return Program(fill(_LINEAR, parameters), (Launch(symbol, units),))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Nothing to pack."""
        del tactic, target, constants
        return [None] * len(problem.inputs)


FAMILY = LrnFamily()


def _has_dense_images(layout: Layout) -> bool:
    """Whether the positions of one channel lie one after another."""
    run = 1
    for extent, stride in zip(
        reversed(layout.shape[2:]), reversed(layout.strides[2:]), strict=True
    ):
        if extent > 1 and stride != run:
            return False
        run *= extent
    return True


def _pixel_elems(problem: Problem, target: CpuTarget) -> int:
    """Scratch of one pixel, as PIXEL of kernel_blocked.c: its channels and two margins."""
    lanes = target.vector_elems
    size: int = problem.params.size
    margin = -(-size // lanes) * lanes
    return problem.inputs[0].num_channel_blocks * lanes + 2 * margin
