"""Softmax and log-softmax (CPU, float32): by rows (the axis fills vectors) or by columns.

Rows: a linear axis with nothing inside it, or the channel axis of a blocked tensor. Columns: a
linear axis whose inner dimensions are contiguous.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from builder_host.kernels.store_epilogue import epilogue_parameters
from builder_host.kernels.traffic import traffic_us, vector_operations_us
from builder_host.layouts import Layout
from builder_host.targets.target import CpuTarget
from planformat.datatypes import DataType, TensorFormat

_HERE = Path(__file__).parent
_ROWS = (_HERE / "kernel_rows.c").read_text()
_COLUMNS = (_HERE / "kernel_columns.c").read_text()

# About this many elements make a unit worth its dispatch.
_UNIT_ELEMS = 8192


@dataclass(frozen=True, slots=True)
class _Side:
    """One tensor: extents and strides outside the axis, strides along it and inside it."""

    outer: tuple[tuple[int, int], ...]
    axis_stride: int
    inner: int


class SoftmaxFamily:
    """Kernel family `softmax` (CPU)."""

    name = "softmax"
    device_kind = "cpu"
    template_hash = template_hash(_ROWS, _COLUMNS, Path(__file__).read_text())

    def applies(self, problem: Problem, target: Any) -> bool:
        """Float32; linear or blocked over channels; an epilogue may have no operands."""
        if problem.kind != "softmax" or not isinstance(target, CpuTarget):
            return False
        if problem.epilogue is not None and problem.epilogue.num_operands:
            return False
        x, y = problem.inputs[0], problem.outputs[0]
        if x.dtype is not DataType.FLOAT32 or y.dtype is not DataType.FLOAT32 or 0 in x.shape:
            return False
        return _form(problem, target) is not None

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Operations per vector, and per row for sums across lanes, or memory traffic.

        The counts are about half of what was measured: so they rank as measured (2.2 to 2.9 times
        as fast) beside loop_nest, whose estimate leaves out the cost of short rows.
        """
        x = problem.inputs[0]
        extent = x.shape[problem.params.axis]
        rows = x.type.num_elems // extent
        lanes = target.vector_elems
        by_rows = _form(problem, target) == "rows"
        vectors = rows * -(-extent // lanes) if by_rows else x.type.num_elems / lanes
        operations = 15 * vectors + (10 * rows if by_rows else 0)
        return max(vector_operations_us(operations, target), traffic_us(problem, target)) + 0.1

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """One: the form that the layouts allow."""
        form = _form(problem, target)
        return [Tactic(self.name, (("form", str(form)),))]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch; a unit is some rows, or some vectors of columns of one outer index."""
        form = str(tactic.values["form"])
        x, y = problem.inputs[0], problem.outputs[0]
        axis, lanes = problem.params.axis, target.vector_elems
        extent = x.shape[axis]
        symbol = symbol_for(
            f"softmax_{form}_f32_{target.isa}",
            self.template_hash, problem.text(), tactic.text, target.isa,
        )  # fmt: skip
        epilogue = epilogue_parameters(problem, axis, channel="0", full_offset=lambda _: "0")
        source, target_side = _side(x, axis), _side(y, axis)
        parameters: dict[str, int | str] = {
            "KERNEL": symbol,
            "IS_LOG": int(problem.params.log),
            "OUTPUT_ARG": 1,
            "EPILOGUE_EXPR": epilogue["EPILOGUE_EXPR"],
        }
        if form == "rows":
            rows = x.type.num_elems // extent
            per_unit = _per_unit(rows, extent, 1, problem.num_workers)
            blocked = x.format.channel_block > 1
            parameters |= {
                "NUM_ROWS": rows,
                "ROWS_PER_UNIT": per_unit,
                "NUM_VECTORS": -(-extent // lanes),
                "LANES_LAST": (extent - 1) % lanes + 1,
                "INPUT_VECTOR_STRIDE": x.strides[1] if blocked else lanes,
                "OUTPUT_VECTOR_STRIDE": y.strides[1] if y.format.channel_block > 1 else lanes,
                "INPUT_OFFSET": _offset("row", source.outer),
                "OUTPUT_OFFSET": _offset("row", target_side.outer),
            }
            units = -(-rows // per_unit)
            return Program(fill(_ROWS, parameters), (Launch(symbol, units),))
        inner = source.inner
        outer = x.type.num_elems // (extent * inner)
        vectors = -(-inner // lanes)
        per_unit = _per_unit(vectors, extent * lanes, outer, problem.num_workers)
        parameters |= {
            "EXTENT": extent,
            "INNER": inner,
            "VECTORS_PER_UNIT": per_unit,
            "INPUT_STRIDE": source.axis_stride,
            "OUTPUT_STRIDE": target_side.axis_stride,
            "INPUT_OFFSET": _offset("outer", source.outer),
            "OUTPUT_OFFSET": _offset("outer", target_side.outer),
        }
        units = outer * -(-vectors // per_unit)
        return Program(fill(_COLUMNS, parameters), (Launch(symbol, units),))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Nothing to pack."""
        del tactic, target, constants
        return [None] * len(problem.inputs)


FAMILY = SoftmaxFamily()


def _form(problem: Problem, target: CpuTarget) -> str | None:
    """`rows`, `columns`, or None."""
    x, y, axis = problem.inputs[0], problem.outputs[0], problem.params.axis
    if problem.is_constant[0]:
        return None
    blocked = target.blocked_format
    if blocked in (x.format, y.format):
        pixel = x.shape[2:] == (1, 1)
        sides = [
            layout.format is blocked
            or (layout.format is TensorFormat.LINEAR and pixel and layout.strides[1] == 1)
            for layout in (x, y)
        ]
        return "rows" if axis == 1 and all(sides) else None
    if x.format is not TensorFormat.LINEAR or y.format is not TensorFormat.LINEAR:
        return None
    if not (_is_contiguous(x, axis + 1) and _is_contiguous(y, axis + 1)):
        return None
    if math.prod(x.shape[axis + 1 :]) > 1:
        return "columns"
    unit_stride = x.shape[axis] == 1 or (x.strides[axis] == 1 and y.strides[axis] == 1)
    return "rows" if unit_stride else None


def _is_contiguous(layout: Layout, first: int) -> bool:
    """Whether the dimensions from `first` on lie one after another without gaps."""
    run = 1
    for extent, stride in zip(
        reversed(layout.shape[first:]), reversed(layout.strides[first:]), strict=True
    ):
        if extent > 1 and stride != run:
            return False
        run *= extent
    return True


def _side(layout: Layout, axis: int) -> _Side:
    if layout.format.channel_block > 1:
        n, _, h, w = zip(layout.shape, layout.strides, strict=True)
        return _Side((n, h, w), layout.strides[1], 1)
    inner = layout.shape[axis + 1 :]
    outer = tuple(zip(layout.shape[:axis], layout.strides[:axis], strict=True))
    return _Side(outer, layout.strides[axis], math.prod(inner))


def _offset(name: str, dims: Sequence[tuple[int, int]]) -> str:
    """C expression of the element offset of a flattened index over extents and strides."""
    terms, run = [], 1
    for extent, stride in reversed(dims):
        if extent > 1:
            terms.append(f"{name} / {run} % {extent} * INT64_C({stride})")
        run *= extent
    return " + ".join(terms) or f"0 * {name}"


def _per_unit(count: int, elems: int, outer: int, num_workers: int) -> int:
    """Items per unit: about _UNIT_ELEMS elements, fewer when under eight units a worker."""
    per_unit = max(1, min(count, _UNIT_ELEMS // elems))
    while per_unit > 1 and outer * -(-count // per_unit) < 8 * num_workers:
        per_unit = (per_unit + 1) // 2
    return per_unit
