"""8-bit problems for the CUDA families, and their check against exact sums."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from builder_host.kernels.family import Problem, Tactic
from builder_host.targets.cuda import CudaTarget
from support.cuda_convolutions import view_of
from support.cuda_kernels import make_target, run
from support.integer_kernels import (
    Case8,
    convolution_problem,
    finished,
    integer_convolution,
    random_inputs,
)

Array = np.ndarray[Any, Any]


def cuda_problem(case: Case8, gap: int = 8) -> Problem:
    """The case in NHWC; with gaps, tensors are parts of larger ones with `gap` more channels."""
    problem = convolution_problem(replace(case, has_gaps=False), make_target("87"))
    if not case.has_gaps:
        return problem
    inputs = tuple(
        view_of(layout, gap) if not constant else layout
        for layout, constant in zip(problem.inputs, problem.is_constant, strict=True)
    )
    return replace(problem, inputs=inputs, outputs=(view_of(problem.outputs[0], gap),))


def check_convolution(
    family: Any,
    case: Case8,
    target: CudaTarget,
    tactic: Tactic | None = None,
    *,
    gap: int = 8,
    offset: int = 0,
) -> None:
    """Run a tactic on emulated threads; sums and float32 epilogue must agree in every bit."""
    problem = cuda_problem(case, gap)
    inputs = random_inputs(problem)
    wanted = finished(problem, integer_convolution(problem.params, *inputs[:2]), inputs)
    assert len(np.unique(wanted)) > 8, "the results are too much alike to show an error"
    got = run(family, problem, target, inputs, tactic, offset_elems=offset)[0]
    wrong = int((got != wanted).sum())
    assert got.tobytes() == wanted.tobytes(), f"{case}: {wrong} of {wanted.size} elements differ"
