"""Max and average pooling of 8-bit tensors: blocked input; blocked output, or linear for one pixel.

A maximum is exact; without an epilogue it stays in bytes. Input(0) of an average's epilogue is the
exact sum, as float32, divided once by the number of cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder_host.codegen.template import fill
from builder_host.kernels.conv_direct.epilogue import load_parameters
from builder_host.kernels.conv_direct.geometry import Strides
from builder_host.kernels.conv_int8.problem import (
    EIGHT_BITS,
    RESULTS,
    operand_types_apply,
    result_fits,
)
from builder_host.kernels.family import (
    Array,
    Launch,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.kernels.store_epilogue import operand_kind, pack_operands
from builder_host.kernels.traffic import traffic_us, vector_operations_us
from builder_host.layouts import Layout
from builder_host.targets.target import CpuTarget
from planformat.datatypes import DataType, TensorFormat

_HERE = Path(__file__).parent
_TEMPLATE = (_HERE / "kernel.c").read_text()
_MAX_UNROLLED_COLUMNS = 16


class PoolingInt8:
    """Kernel family `pooling_int8` (CPU). Tactic parameter: rows of output per work unit."""

    name = "pooling_int8"
    device_kind = "cpu"
    template_hash = template_hash(_TEMPLATE, Path(__file__).read_text())

    def applies(self, problem: Problem, target: Any) -> bool:
        """8 bits in, 8 bits or float32 out, rank 4, the target's blocked format."""
        if problem.kind != "pooling" or not isinstance(target, CpuTarget):
            return False
        x, y = problem.inputs[0], problem.outputs[0]
        if len(x.shape) != 4 or x.dtype not in EIGHT_BITS or y.dtype not in RESULTS:
            return False
        if 0 in y.shape or 0 in x.shape or problem.is_constant[0]:
            return False
        if x.format is not target.blocked_format or x.strides[3] != target.vector_elems:
            return False
        params = problem.params
        if min(*params.pads_begin, *params.pads_end) < 0:
            return False
        if params.window[1] > _MAX_UNROLLED_COLUMNS and y.shape[3] > 1:
            return False
        if params.mode == "max" and problem.epilogue is None:
            return y.dtype is x.dtype and _output_applies(problem, target)
        return (
            _output_applies(problem, target)
            and operand_types_apply(problem)
            and result_fits(problem, y.dtype)
        )

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Folding of columns, one vector operation per cell, or memory traffic."""
        x, y = problem.inputs[0], problem.outputs[0]
        folded = x.type.num_elems / target.vector_elems / 2
        cells = y.type.num_elems / target.vector_elems * (problem.params.window[1] + 4)
        return max(vector_operations_us(folded + cells, target), traffic_us(problem, target)) + 0.1

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Whole planes where there are enough of them for the workers, else fewer rows."""
        del target
        y, x = problem.outputs[0], problem.inputs[0]
        planes = y.shape[0] * x.num_channel_blocks
        rows = y.shape[2]
        while rows > 1 and planes * -(-y.shape[2] // rows) < 8 * problem.num_workers:
            rows = (rows + 1) // 2
        return [Tactic(self.name, (("rows", rows),))]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch; a unit is a group of output rows of one channel block."""
        params, x, y = problem.params, problem.inputs[0], problem.outputs[0]
        symbol = symbol_for(
            f"pool_{params.mode}_{x.dtype.text}_{params.window[0]}x{params.window[1]}_{target.isa}",
            self.template_hash, problem.text(), tactic.text, target.isa,
        )  # fmt: skip
        is_max = params.mode == "max"
        rows = int(tactic.values["rows"])
        pads_end = params.pads_end if params.count_include_pad else (0, 0)
        pads_begin = params.pads_begin if params.count_include_pad else (0, 0)
        blocked = y.format is target.blocked_format
        lanes = target.vector_elems
        last = lanes if blocked else x.shape[1] - (x.num_channel_blocks - 1) * lanes
        operands = zip(problem.inputs[1:], problem.is_constant[1:], strict=True)
        strides = [_operand_strides(layout, constant, lanes) for layout, constant in operands]
        epilogue = load_parameters(problem, strides)
        parameters: dict[str, int | str] = {
            "SYMBOL": symbol,
            "IS_MAX": int(is_max),
            "X_IS_SIGNED": int(x.dtype is DataType.INT8),
            "BLOCKS": x.num_channel_blocks,
            "IN_H": x.shape[2],
            "IN_W": x.shape[3],
            "OUT_H": y.shape[2],
            "OUT_W": y.shape[3],
            "WINDOW_H": params.window[0],
            "WINDOW_W": params.window[1],
            "STRIDE_H": params.strides[0],
            "STRIDE_W": params.strides[1],
            "PAD_TOP": params.pads_begin[0],
            "PAD_LEFT": params.pads_begin[1],
            "DILATION_H": params.dilations[0],
            "DILATION_W": params.dilations[1],
            "COUNT_TOP": -pads_begin[0],
            "COUNT_BOTTOM": x.shape[2] + pads_end[0],
            "COUNT_LEFT": -pads_begin[1],
            "COUNT_RIGHT": x.shape[3] + pads_end[1],
            "ROWS_PER_UNIT": rows,
            **dict(zip(("X_N", "X_C", "X_H"), x.strides[:3], strict=True)),
            "Y_N": y.strides[0],
            "Y_C": y.strides[1] if blocked else lanes,
            "Y_H": y.strides[2],
            "Y_W": y.strides[3],
            "Y_BYTES": y.dtype.size_bytes,
            "LAST_LANES": last,
            "HAS_EPILOGUE": int(problem.epilogue is not None or y.dtype is not x.dtype),
            "OUTPUT": len(problem.inputs),
            "EPILOGUE_LOADS": epilogue["EPILOGUE_LOADS"],
            "EPILOGUE": epilogue["EPILOGUE"],
        }
        units = x.shape[0] * x.num_channel_blocks * -(-y.shape[2] // rows)
        scratch = x.shape[3] * lanes * (1 if is_max else 4)
        return Program(fill(_TEMPLATE, parameters), (Launch(symbol, units, scratch),))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Only epilogue operands are packed."""
        del tactic
        return [None, *pack_operands(problem, 1, constants, target.vector_elems)]


def _output_applies(problem: Problem, target: CpuTarget) -> bool:
    """A blocked output with any operands, or one linear pixel with channel vectors only."""
    y = problem.outputs[0]
    blocked = y.format is target.blocked_format
    pixel = y.format is TensorFormat.LINEAR and y.shape[2:] == (1, 1) and y.strides[1] == 1
    if not blocked and not pixel:
        return False
    for layout, constant in zip(problem.inputs[1:], problem.is_constant[1:], strict=True):
        if constant:
            if operand_kind(layout, True, y, 1) != "channel":
                return False
        elif not blocked or layout.shape != y.shape or layout.format is not y.format:
            return False
    return True


def _operand_strides(layout: Layout, constant: bool, lanes: int) -> Strides:
    if constant:
        return (0, lanes, 0, 0)
    n, block, h, w = layout.strides
    return (n, block, h, w)


FAMILY = PoolingInt8()
