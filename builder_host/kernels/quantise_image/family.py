"""Row-major images of up to four channels to blocked 8-bit tensors: the step before a first layer.

A generated loop nest stores such pixels byte by byte.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from builder_host.codegen.c_expression import print_c
from builder_host.codegen.template import fill
from builder_host.codegen.value_range import fits
from builder_host.kernels.conv_direct.epilogue import LOADS
from builder_host.kernels.conv_direct.geometry import is_channel_shape
from builder_host.kernels.family import (
    Array,
    Launch,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.kernels.traffic import traffic_us, vector_operations_us
from builder_host.layouts import dense_layout
from builder_host.targets.target import CpuTarget
from planformat.datatypes import DataType, TensorFormat

_TEMPLATE = Path(__file__).with_name("kernel.c").read_text()
_UNITS_PER_WORKER = 4
_MAX_CHANNELS = 4  # bytes of one 32-bit lane


class QuantiseImage:
    """Kernel family `quantise_image` (CPU). No tactic parameters."""

    name = "quantise_image"
    device_kind = "cpu"
    template_hash = template_hash(_TEMPLATE, Path(__file__).read_text())

    def applies(self, problem: Problem, target: Any) -> bool:
        """A pointwise layer on one dense image and constants per channel, clipped to 8 bits."""
        if problem.kind != "pointwise" or not isinstance(target, CpuTarget) or problem.epilogue:
            return False
        x, y = problem.inputs[0], problem.outputs[0]
        if len(y.shape) != 4 or x.shape != y.shape or not 1 <= y.shape[1] <= _MAX_CHANNELS:
            return False
        if 0 in y.shape or problem.is_constant[0] or x.dtype not in LOADS:
            return False
        if x.format is not TensorFormat.LINEAR or x.strides[3] != 1 or x.strides[2] != x.shape[3]:
            return False
        dense = dense_layout(y.type, target.blocked_format)
        if y.format is not target.blocked_format or y.strides[2:] != dense.strides[2:]:
            return False
        for layout, constant in zip(problem.inputs[1:], problem.is_constant[1:], strict=True):
            is_channel = constant and is_channel_shape(layout.shape, y.shape[1])
            if not is_channel or layout.dtype is not DataType.FLOAT32:
                return False
        return fits(problem.params.expr, y.dtype)

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """A dozen operations per vector of one channel, or memory traffic."""
        vectors = problem.inputs[0].type.num_elems / target.vector_elems
        return max(vector_operations_us(12 * vectors, target), traffic_us(problem, target)) + 0.1

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """One."""
        del problem, target
        return [Tactic(self.name)]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch; a unit is a run of pixels of one image."""
        x, y = problem.inputs[0], problem.outputs[0]
        symbol = symbol_for(
            f"quantise_image_{x.dtype.text}_{y.dtype.text}_{target.isa}",
            self.template_hash, problem.text(), tactic.text, target.isa,
        )  # fmt: skip
        pixels = math.prod(y.shape[2:])
        wanted = problem.num_workers * _UNITS_PER_WORKER if problem.num_workers > 1 else 1
        lanes = target.vector_elems
        per_unit = -(-pixels // max(1, -(-wanted // y.shape[0])))
        per_unit = -(-per_unit // lanes) * lanes
        constants = len(problem.inputs) - 1
        loads = [
            f"const vf x{i + 1} = ep_splat(((const float *)constants[{i}])[c])"
            for i in range(constants)
        ]
        names = [f"x{i}" for i in range(constants + 1)]
        parameters: dict[str, int | str] = {
            "SYMBOL": symbol,
            "CHANNELS": x.shape[1],
            "PIXELS": pixels,
            "PIXELS_PER_UNIT": per_unit,
            "X_TYPE": LOADS[x.dtype][0],
            "LOAD_X": LOADS[x.dtype][1],
            "X_N": x.strides[0],
            "X_C": x.strides[1],
            "Y_N": y.strides[0],
            "NUM_CONSTANTS": constants,
            "CONSTANT_LOADS": ";\n".join(loads) or "(void)0",
            "EXPRESSION": print_c(problem.params.expr, names, vector=True),
        }
        units = y.shape[0] * -(-pixels // per_unit)
        return Program(fill(_TEMPLATE, parameters), (Launch(symbol, units),))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Constants as one float per channel."""
        del tactic, target
        channels = problem.outputs[0].shape[1]
        packed: list[Array | None] = [None]
        for values in constants[1:]:
            if values is None:
                raise ValueError(f"{self.name}: a constant of {problem.text()} is not given")
            flat = np.asarray(values, np.float32).reshape(-1)
            packed.append(np.ascontiguousarray(np.broadcast_to(flat, (channels,))))
        return packed


FAMILY = QuantiseImage()
