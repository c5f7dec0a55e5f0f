"""Max and average pooling: blocked input; blocked output, or linear when it is one pixel.

Bounded by memory: inner columns share loads between overlapping windows (kernel.c).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder_host.codegen.template import fill
from builder_host.kernels.conv_direct.epilogue import LOADS, STORES
from builder_host.kernels.family import (
    Array,
    Launch,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.kernels.store_epilogue import (
    epilogue_parameters,
    operands_apply,
    pack_operands,
    pixel_offset,
    stride_parameters,
)
from builder_host.kernels.traffic import traffic_us, vector_operations_us
from builder_host.layouts import Layout
from builder_host.targets.target import CpuTarget
from planformat.datatypes import DataType, TensorFormat

_HERE = Path(__file__).parent
_TEMPLATE = (_HERE / "kernel.c").read_text()

_TYPES = (DataType.FLOAT32, DataType.BFLOAT16)
# Vectors of columns that a tile keeps beside its temporaries.
_MAX_COLUMNS = {32: 24, 16: 12}


class PoolingFamily:
    """Kernel family `pooling` (CPU)."""

    name = "pooling"
    device_kind = "cpu"
    template_hash = template_hash(_TEMPLATE, Path(__file__).read_text())

    def applies(self, problem: Problem, target: Any) -> bool:
        """Float32 or bfloat16, rank 4, the target's blocked format, no negative pads."""
        if problem.kind != "pooling" or not isinstance(target, CpuTarget):
            return False
        x, y = problem.inputs[0], problem.outputs[0]
        if len(x.shape) != 4 or x.dtype not in _TYPES or y.dtype not in _TYPES:
            return False
        if 0 in y.shape or 0 in x.shape or problem.is_constant[0]:
            return False
        if x.format is not target.blocked_format:
            return False
        blocked = y.format is target.blocked_format
        pixel = y.format is TensorFormat.LINEAR and y.shape[2:] == (1, 1) and y.strides[1] == 1
        params = problem.params
        return (
            (blocked or pixel)
            and min(*params.pads_begin, *params.pads_end) >= 0
            and operands_apply(problem, 1)
        )

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Three operations per input cell that is new to an output, or memory traffic."""
        window_h, window_w = problem.params.window
        cells = window_h * min(window_w, problem.params.strides[1])
        vectors = problem.outputs[0].type.num_elems / target.vector_elems
        compute_us = vector_operations_us(3 * cells * vectors, target)
        return max(compute_us, traffic_us(problem, target)) + 0.1

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Tiles of as many columns as registers allow, and half of that."""
        columns = _MAX_COLUMNS[target.num_vector_registers]
        span = (problem.params.window[1] - 1) * problem.params.dilations[1] + 1
        widest = (columns - span) // problem.params.strides[1] + 1 if span <= columns else 0
        begin, end = _inner_columns(problem)
        widest = max(0, min(widest, end - begin))
        tiles = sorted({widest, (widest + 1) // 2, min(widest, 4)}, reverse=True)
        rows = _rows_per_unit(problem)
        return [
            Tactic(self.name, (("rows", rows), ("tile", tile)))
            for tile in (tiles if widest else [0])
        ]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch; a unit is a group of output rows of one channel block."""
        params, x, y = problem.params, problem.inputs[0], problem.outputs[0]
        symbol = symbol_for(
            f"pool_{params.mode}_{x.dtype.text}_{params.window[0]}x{params.window[1]}_{target.isa}",
            self.template_hash, problem.text(), tactic.text, target.isa,
        )  # fmt: skip
        begin, end = _inner_columns(problem)
        rows, tile = int(tactic.values["rows"]), int(tactic.values["tile"])
        pads_end = params.pads_end if params.count_include_pad else (0, 0)
        pads_begin = params.pads_begin if params.count_include_pad else (0, 0)
        blocked = y.format is not TensorFormat.LINEAR
        parameters: dict[str, int | str] = {
            "KERNEL": symbol,
            "IS_MAX": int(params.mode == "max"),
            "X_TYPE": LOADS[x.dtype][0],
            "LOAD_X": LOADS[x.dtype][1],
            "Y_TYPE": LOADS[y.dtype][0],
            "STORE_Y": STORES[y.dtype],
            "STORE_Y_N": f"{STORES[y.dtype]}_n",
            "CHANNELS": x.shape[1],
            "NUM_BLOCKS": x.num_channel_blocks,
            "INPUT_H": x.shape[2],
            "INPUT_W": x.shape[3],
            "OUTPUT_H": y.shape[2],
            "OUTPUT_W": y.shape[3],
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
            "INNER_BEGIN": begin if tile else 0,
            "INNER_END": end if tile else 0,
            "TILE": tile,
            "ROWS_PER_UNIT": rows,
            **stride_parameters("INPUT", x),
            **stride_parameters("OUTPUT", y),
            "OUTPUT_IS_BLOCKED": int(blocked),
            "OUTPUT_ARG": len(problem.inputs),
            **epilogue_parameters(
                problem,
                1,
                channel="cb * EP_VL",
                full_offset=pixel_offset if blocked else _vector_offset,
                count=None if blocked else "CHANNELS - cb * EP_VL",
            ),
        }
        units = x.shape[0] * x.num_channel_blocks * -(-y.shape[2] // rows)
        return Program(fill(_TEMPLATE, parameters), (Launch(symbol, units),))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Only epilogue operands are packed."""
        del tactic
        return [None, *pack_operands(problem, 1, constants, target.vector_elems)]


FAMILY = PoolingFamily()


def _vector_offset(layout: Layout) -> str:
    return f"n * {layout.strides[0]} + cb * EP_VL"


def _inner_columns(problem: Problem) -> tuple[int, int]:
    """Output columns [begin, end) whose windows lie inside the input's columns."""
    params = problem.params
    stride, pad = params.strides[1], params.pads_begin[1]
    span = (params.window[1] - 1) * params.dilations[1] + 1
    width, outputs = problem.inputs[0].shape[3], problem.outputs[0].shape[3]
    begin = min(-(-pad // stride), outputs)
    end = min((width + pad - span) // stride + 1, outputs)
    return (begin, end) if end > begin else (0, 0)


def _rows_per_unit(problem: Problem) -> int:
    """Rows of about 16 KiB of output; fewer when that leaves under eight units a worker."""
    y = problem.outputs[0]
    blocks = y.shape[0] * problem.inputs[0].num_channel_blocks
    rows = max(1, min(y.shape[2], 256 // y.shape[3]))
    wanted = 8 * problem.num_workers
    while rows > 1 and blocks * -(-y.shape[2] // rows) < wanted:
        rows = (rows + 1) // 2
    return rows
