"""Convolution problems with data, and their check against the float64 reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from builder_host.expressions import Binary, Const, Expr, Input, evaluate
from builder_host.kernels.family import Problem, Tactic
from builder_host.layouts import Layout, dense_layout
from builder_host.network.layers.convolution import DEFINITION, ConvolutionParams
from builder_host.network.network import Epilogue
from builder_host.network.tensor_type import TensorType
from builder_host.targets.target import CpuTarget
from planformat.datatypes import TensorFormat
from support.cpu_kernels import run, runs_here
from support.window_cases import WindowCase

Array = np.ndarray[Any, Any]
RELU = Binary("max", Input(0), Const(0.0))


@dataclass(frozen=True)
class Case(WindowCase):
    """One convolution; `operands` names epilogue inputs: `full`, `strided`, `channel`, `scalar`."""

    bias: bool = True
    linear: bool = False
    strided: bool = False
    operands: tuple[str, ...] = ()
    expr: Expr | None = None
    workers: int = 1

    def __str__(self) -> str:
        operands = "".join(o[0] for o in self.operands)
        return (
            self.extents() + operands + ("t" if self.strided else "") + ("" if self.bias else "n")
        )

    @property
    def params(self) -> ConvolutionParams:
        """Layer parameters."""
        return ConvolutionParams(
            self.strides, self.pads[:2], self.pads[2:], self.dilations, self.groups
        )


def strided(layout: Layout) -> Layout:
    """The same tensor as a part of a larger one, in channel blocks and columns."""
    w = layout.strides[3]
    block = layout.format.channel_block
    width = layout.shape[3] + 1
    h, c = width * block, width * block * layout.shape[2] + 3 * block
    return replace(layout, strides=(c * (layout.num_channel_blocks + 2), c, h, w))


def problem_of(case: Case, target: CpuTarget) -> Problem:
    """The problem in the target's blocked format (x row-major when `linear`)."""
    blocked = target.blocked_format
    x = TensorType((case.batch, case.channels, case.height, case.width))
    w = TensorType((case.filters, case.channels // case.groups, *case.kernel))
    types = [x, w] + [TensorType((case.filters,))] * case.bias
    y = dense_layout(DEFINITION.infer(case.params, types)[0], blocked)
    x_layout = dense_layout(x, TensorFormat.LINEAR if case.linear else blocked)
    inputs = [x_layout, *(dense_layout(t) for t in types[1:])]
    if case.strided:
        y = strided(y)
        inputs[0] = x_layout if case.linear else strided(x_layout)
    constant = [False] + [True] * (len(types) - 1)
    for kind in case.operands:
        layouts = {
            "full": dense_layout(y.type, blocked),
            "strided": strided(dense_layout(y.type, blocked)),
            "channel": dense_layout(TensorType((case.filters, 1, 1))),
            "scalar": dense_layout(TensorType((1,))),
            "gate": dense_layout(TensorType((case.batch, case.filters, 1, 1)), blocked),
        }
        inputs.append(layouts[kind])
        constant.append(kind in ("channel", "scalar"))
    expr = case.expr
    if expr is None and case.operands:
        expr = Input(0)
        for i in range(len(case.operands)):
            expr = Binary("mul" if i % 2 else "add", expr, Input(i + 1))
    epilogue = Epilogue(expr, len(case.operands)) if expr is not None else None
    return Problem(
        "convolution", case.params, tuple(inputs), tuple(constant), (y,), epilogue, case.workers
    )


def inputs_of(problem: Problem, seed: int = 0) -> list[Array]:
    """Normal inputs; weights scaled so that results have about unit variance."""
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(layout.shape).astype(np.float32) for layout in problem.inputs]
    arrays[1] /= np.float32(np.sqrt(np.prod(arrays[1].shape[1:])))
    return arrays


def reference(problem: Problem, inputs: list[Array]) -> Array:
    """Float64 result with the epilogue."""
    own = problem.num_own_inputs
    result = DEFINITION.reference(problem.params, inputs[:own])[0]
    if problem.epilogue is None:
        return result
    operands = [a.astype(np.float64) for a in inputs[own:]]
    return np.asarray(evaluate(problem.epilogue.expr, [result, *operands]))


def check(
    family: Any, case: Case, tactic: Tactic, target: CpuTarget, tolerance: float | None = None
) -> None:
    """Run a tactic and compare with the reference.

    The default tolerance is 4 eps sqrt(terms + 1) of the largest result: rounding errors of
    `terms` chained multiply-adds add up like a random walk.
    """
    assert runs_here(target.isa)
    problem = problem_of(case, target)
    inputs = inputs_of(problem)
    wanted = reference(problem, inputs)
    got = run(family, problem, tactic, target, inputs)
    if tolerance is None:
        terms = int(np.prod(inputs[1].shape[1:])) + 1
        tolerance = 4 * float(np.finfo(np.float32).eps) * terms**0.5
    scale = max(float(np.abs(wanted).max()), 1.0)
    worst = float(np.abs(got - wanted).max()) / scale if np.isfinite(got).all() else np.inf
    assert worst <= tolerance, f"{case} {tactic.text}: error {worst:.3g}, allowed {tolerance:.3g}"
