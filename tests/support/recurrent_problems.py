"""Recurrent layers as problems with random inputs, shared by the tests of both devices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from builder_host.kernels.family import Problem
from builder_host.layouts import Layout, dense_layout
from builder_host.network.layers.recurrent import DEFINITION, RecurrentParams
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

Array = np.ndarray[Any, Any]
CONSTANT_ROLES = frozenset({"recurrent", "recurrent_bias", "peepholes"})


def recurrent_problem(
    params: RecurrentParams,
    steps: int,
    batch: int,
    *,
    seed: int = 1,
    dtype: DataType = DataType.FLOAT32,
    num_workers: int = 1,
    is_live: bool = False,
    gap: int = 0,
) -> tuple[Problem, list[Array]]:
    """A projected layer and inputs whose recurrent gain stays below one.

    Args:
        params: `is_projected` is set here.
        steps: S.
        batch: N.
        seed: of the values.
        dtype: of all float tensors.
        num_workers: of the problem.
        is_live: R and the other parameters are computed by the network.
        gap: elements of unused memory after each row of x and y.
    """
    params = replace(params, is_projected=True)
    random = np.random.default_rng(seed)
    hidden, directions = params.hidden_size, params.num_directions
    gates = params.num_gates

    def uniform(*shape: int) -> Array:
        return random.uniform(-1.0, 1.0, shape)

    values = {
        "x": 2.0 * uniform(steps, batch, directions * gates * hidden),
        "recurrent": 0.5 / np.sqrt(hidden) * uniform(directions, gates * hidden, hidden),
        "recurrent_bias": uniform(directions, hidden),
        "peepholes": 0.3 * uniform(directions, 3 * hidden),
        "hidden": 0.5 * uniform(directions, batch, hidden),
        "cell": uniform(directions, batch, hidden),
        "lengths": random.integers(1, steps + 1, batch).astype(np.int32),
        "continuation": (random.random((steps, batch)) > 0.3).astype(np.float64),
    }
    kind = np.float16 if dtype is DataType.FLOAT16 else np.float32
    inputs = [
        values[role] if role == "lengths" else values[role].astype(kind)
        for role in params.input_roles
    ]
    types = [
        TensorType(v.shape, DataType.INT32 if role == "lengths" else dtype)
        for role, v in zip(params.input_roles, inputs, strict=True)
    ]
    outputs = DEFINITION.infer(params, types)
    layouts = [dense_layout(t) for t in types]
    output_layouts = [dense_layout(t) for t in outputs]
    if gap:
        layouts[0] = _wider(layouts[0], gap)
        output_layouts[0] = _wider(output_layouts[0], gap)
    problem = Problem(
        "recurrent",
        params,
        tuple(layouts),
        tuple(role in CONSTANT_ROLES and not is_live for role in params.input_roles),
        tuple(output_layouts),
        num_workers=num_workers,
    )
    return problem, inputs


def reference(problem: Problem, inputs: list[Array]) -> list[Array]:
    """Outputs in float64 of the inputs as they are stored."""
    wide = [v if v.dtype == np.int32 else v.astype(np.float64) for v in inputs]
    with np.errstate(all="ignore"):
        return DEFINITION.reference(problem.params, wide)


def _wider(layout: Layout, gap: int) -> Layout:
    _, batch, width = layout.shape
    row = width + gap
    return Layout(layout.format, layout.shape, layout.dtype, (batch * row, row, 1))
