"""Resize: a few taps per axis, read from tables that the layer's own rules fill."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from builder_host.codegen.indices import Dynamic, Index
from builder_host.codegen.loop_nest import Buffer, Load, Value
from builder_host.codegen.nest import Nest
from builder_host.expressions import Binary, Const, Expr, Input, Select
from builder_host.kernels.family import Problem
from builder_host.kernels.loop_nest.operands import (
    Lowering,
    NotLowerableError,
    Operands,
    apply,
)
from builder_host.network.layers import resize
from planformat.datatypes import DataType

Array = npt.NDArray[Any]

_MAX_TAPS = 512  # all of them are printed; importers antialias one axis at a time


def lower(problem: Problem) -> list[Nest]:
    """Nearest copies one element; linear and cubic sum weighted taps over all resized axes."""
    operands = Operands(problem)
    params, shape = problem.params, problem.inputs[0].shape
    axes = [a for a, e in enumerate(shape) if not resize.is_copied(params, a, e)]
    positions: dict[int, Buffer] = {}
    weights: dict[int, Buffer] = {}
    outside: dict[int, Buffer] = {}
    num_taps = dict.fromkeys(axes, 1)
    for axis in axes:
        indices, factors = resize.axis_taps(params, axis, shape[axis])
        num_taps[axis] = indices.shape[1]
        positions[axis] = _table(f"position{axis}", DataType.INT32, indices.T)
        weights[axis] = _table(f"weight{axis}", DataType.FLOAT32, factors.T)
        beyond = resize.is_outside(params, axis, shape[axis])
        if beyond.any():
            outside[axis] = _table(f"outside{axis}", DataType.INT32, beyond)

    if math.prod(num_taps.values()) > _MAX_TAPS:
        raise NotLowerableError(
            f"each element has {num_taps} taps per axis, more than {_MAX_TAPS} in all"
        )

    def value(coords: Sequence[Index]) -> Value:
        if not axes:
            return operands.load(0, coords)
        args: list[Value] = []
        total: Expr | None = None
        for taps in itertools.product(*(range(num_taps[axis]) for axis in axes)):
            source = list(coords)
            term: Expr | None = None
            for axis, tap in zip(axes, taps, strict=True):
                slot = coords[axis] + tap * params.output_shape[axis]
                picked = Load(positions[axis], slot)
                source[axis] = Index(((Dynamic(picked, 0, shape[axis] - 1), 1),))
                if params.mode != "nearest":
                    args.append(Load(weights[axis], slot))
                    factor = Input(len(args) - 1)
                    term = factor if term is None else Binary("mul", term, factor)
            if params.mode == "nearest":
                return operands.load(0, source)
            args.append(operands.load(0, source))
            assert term is not None
            product = Binary("mul", term, Input(len(args) - 1))
            total = product if total is None else Binary("add", total, product)
        assert total is not None
        return apply(total, args)

    def extrapolated(coords: Sequence[Index]) -> Value:
        result = value(coords)
        for axis, table in outside.items():
            pick = Select(Input(0), Const(params.extrapolation_value), Input(1))
            result = apply(pick, [Load(table, coords[axis]), result])
        return result

    block = operands.shared_block() if len(shape) == 4 else 1
    return [operands.map(extrapolated, block=block)]


def _table(name: str, dtype: DataType, values: Array) -> Buffer:
    convert = float if dtype.is_float else int
    return Buffer(name, dtype, None, tuple(convert(v) for v in values.reshape(-1)))


LOWERINGS: dict[str, Lowering] = {"resize": lower}
