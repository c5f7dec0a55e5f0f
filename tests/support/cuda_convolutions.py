"""Convolution problems in NHWC for the CUDA families, and their check against float64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from builder_host.expressions import Binary, Const, Expr, Input, evaluate
from builder_host.kernels.family import Problem, Tactic
from builder_host.layouts import Layout, dense_layout
from builder_host.network.layers import convolution, deconvolution
from builder_host.network.network import Epilogue
from builder_host.network.tensor_type import TensorType
from builder_host.targets.cuda import CudaTarget
from planformat.datatypes import DataType, TensorFormat
from support.cuda_kernels import run
from support.window_cases import WindowCase

Array = np.ndarray[Any, Any]
F16, F32 = DataType.FLOAT16, DataType.FLOAT32
NHWC, LINEAR = TensorFormat.NHWC, TensorFormat.LINEAR
RELU = Binary("max", Input(0), Const(0.0))


@dataclass(frozen=True)
class Case(WindowCase):
    """One convolution, or deconvolution when `extra` (output padding) is given.

    `operands` names epilogue inputs: `full`, `view`, `channel`, `scalar`, `gate`, `image`.
    `view`: x and y are parts of wider tensors. `x_dtype`: of x where it is not `dtype`.
    """

    bias: bool = True
    x_format: TensorFormat = NHWC
    y_format: TensorFormat = NHWC
    view: int = 0
    operands: tuple[str, ...] = ()
    expr: Expr | None = None
    dtype: DataType = F16
    extra: tuple[int, int] | None = None
    x_dtype: DataType | None = None
    math: Literal["", "tf32"] = ""

    def __str__(self) -> str:
        flags = "".join(o[0] for o in self.operands) + ("v" if self.view else "")
        flags += "" if self.bias else "n"
        flags += "t" if self.extra is not None else ""
        flags += f"x{self.x_dtype.text}" if self.x_dtype is not None else ""
        return self.extents() + flags + self.dtype.text

    @property
    def kind(self) -> str:
        """Layer kind."""
        return "convolution" if self.extra is None else "deconvolution"

    @property
    def params(self) -> Any:
        """Layer parameters."""
        common = (self.strides, self.pads[:2], self.pads[2:], self.dilations)
        if self.extra is None:
            return convolution.ConvolutionParams(*common, self.groups)
        return deconvolution.DeconvolutionParams(*common, self.extra, self.groups)


def view_of(layout: Layout, more: int) -> Layout:
    """The same NHWC tensor as part of one that has `more` channels and one column more."""
    _, c, h, w = layout.shape
    column = c + more
    return replace(layout, strides=((w + 1) * column * (h + 1), 1, (w + 1) * column, column))


def problem_of(case: Case) -> Problem:
    """The problem with constant weights and bias."""

    def of(*shape: int) -> TensorType:
        return TensorType(shape, case.dtype)

    x = of(case.batch, case.channels, case.height, case.width)
    if case.extra is None:
        w = of(case.filters, case.channels // case.groups, *case.kernel)
    else:
        w = of(case.channels, case.filters // case.groups, *case.kernel)
    types = [x, w] + [of(case.filters)] * case.bias
    layer = convolution if case.extra is None else deconvolution
    out = layer.DEFINITION.infer(case.params, types)[0]
    y = dense_layout(out, case.y_format)
    inputs = [
        dense_layout(replace(x, dtype=case.x_dtype or case.dtype), case.x_format),
        *(dense_layout(t) for t in types[1:]),
    ]
    if case.view:
        y = view_of(y, case.view)
        inputs[0] = view_of(inputs[0], case.view)
    constant = [False] + [True] * (len(types) - 1)
    for kind in case.operands:
        layouts = {
            "full": lambda: dense_layout(out, case.y_format),
            "view": lambda: view_of(dense_layout(out, NHWC), 8),
            "channel": lambda: dense_layout(of(case.filters, 1, 1)),
            "scalar": lambda: dense_layout(of(1)),
            "gate": lambda: dense_layout(of(case.batch, case.filters, 1, 1), NHWC),
            "image": lambda: dense_layout(of(*out.shape[1:])),
        }
        inputs.append(layouts[kind]())
        constant.append(kind in ("channel", "scalar", "image"))
    expr = case.expr
    if expr is None and case.operands:
        expr = Input(0)
        for i in range(len(case.operands)):
            expr = Binary("mul" if i % 2 else "add", expr, Input(i + 1))
    epilogue = Epilogue(expr, len(case.operands)) if expr is not None else None
    return Problem(
        case.kind, case.params, tuple(inputs), tuple(constant), (y,), epilogue, math=case.math
    )


def inputs_of(problem: Problem, seed: int = 0) -> list[Array]:
    """Normal inputs rounded to their types; weights scaled to results of about unit variance."""
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(layout.shape) for layout in problem.inputs]
    arrays[1] /= np.sqrt(num_terms(problem))
    types = {F16: np.float16, F32: np.float32}
    return [a.astype(types[i.dtype]) for a, i in zip(arrays, problem.inputs, strict=True)]


def num_terms(problem: Problem) -> int:
    """Products of one output."""
    shape = problem.inputs[1].shape
    if problem.kind == "convolution":
        return int(np.prod(shape[1:]))
    return int(shape[0] // problem.params.groups * np.prod(shape[2:]))


def reference(problem: Problem, inputs: list[Array]) -> Array:
    """Float64 result with the epilogue."""
    own = problem.num_own_inputs
    layer = convolution if problem.kind == "convolution" else deconvolution
    exact = [a.astype(np.float64) for a in inputs]
    result = layer.DEFINITION.reference(problem.params, exact[:own])[0]
    if problem.epilogue is None:
        return np.asarray(result)
    return np.asarray(evaluate(problem.epilogue.expr, [result, *exact[own:]]))


def tolerance(problem: Problem) -> float:
    """Allowed error relative to the largest result.

    Float sums of `terms` products err like a random walk, 4 eps sqrt(terms + 1); a half result is
    rounded once more, half a unit of its 11 bits. Each factor rounded to tf32 errs by up to 2^-11,
    at random signs; the results are of unit variance.
    """
    error = 4 * float(np.finfo(np.float32).eps) * float(np.sqrt(num_terms(problem) + 1))
    error += 2.0**-11 if problem.outputs[0].dtype is F16 else 0.0
    return error + (4 * 2.0**-11 if problem.math == "tf32" else 0.0)


def check(
    family: Any, case: Case, target: CudaTarget, tactic: Tactic | None = None, offset: int = 0
) -> None:
    """Run a tactic on emulated threads and compare with the reference."""
    problem = problem_of(case)
    inputs = inputs_of(problem)
    wanted = reference(problem, inputs)
    got = run(family, problem, target, inputs, tactic, offset_elems=offset)[0].astype(np.float64)
    scale = max(float(np.abs(wanted).max()), 1.0)
    worst = float(np.abs(got - wanted).max()) / scale if np.isfinite(got).all() else np.inf
    assert worst <= tolerance(problem), f"{case}: error {worst:.3g}, {tolerance(problem):.3g}"
