"""conv_winograd and conv_first with pooling: against float64, and against the two kernels apart."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.convolutions import RELU, Case, inputs_of, problem_of
from support.cpu_kernels import AVX2, AVX512, NEON, run, runs_here
from support.pooled_convolutions import largest_of_windows, pooled, reference

from builder_host.expressions import Const, Input, leaky_relu
from builder_host.kernels.conv_direct.family import FAMILY as DIRECT
from builder_host.kernels.conv_first.family import FAMILY as FIRST
from builder_host.kernels.conv_winograd.family import FAMILY as WINOGRAD
from builder_host.targets.target import CpuTarget

LEAKY = leaky_relu(Input(0), Const(0.1))
WINOGRAD_CASES = [
    Case(40, 35, 14, 14, expr=RELU),
    Case(16, 64, 7, 9, batch=2, workers=4, operands=("channel",)),  # odd: a row is in no window
    Case(16, 32, 12, 10, strided=True, expr=LEAKY, bias=False),
    Case(24, 24, 3, 2, pads=(2, 2, 2, 2)),
    Case(24, 40, 13, 9, (5, 5), pads=(2, 2, 2, 2), expr=RELU),
]
FIRST_CASES = [
    Case(3, 32, 17, 21, linear=True, expr=LEAKY),
    Case(3, 70, 12, 60, linear=True, batch=2, workers=2, operands=("channel",), expr=None),
    Case(1, 20, 23, 13, (5, 3), (2, 2), (2, 0, 1, 1), linear=True, strided=True, bias=False),
    Case(4, 16, 9, 9, (3, 3), (1, 1), (0, 0, 0, 0), (2, 2), linear=True, expr=RELU),
]
ALL = [(WINOGRAD, case) for case in WINOGRAD_CASES] + [(FIRST, case) for case in FIRST_CASES]


def tolerance(family: Any, channels: int, terms: int) -> float:
    """As for the families without pooling: a maximum adds no error."""
    eps = float(np.finfo(np.float32).eps)
    if family is WINOGRAD:
        return 4 * 30.0 * eps * math.sqrt(channels + 1)
    return 4 * eps * math.sqrt(terms + 1)


@pytest.mark.parametrize("target", [AVX512, AVX2, NEON], ids=lambda t: t.isa)
@pytest.mark.parametrize(("family", "case"), ALL, ids=lambda x: getattr(x, "name", None) or str(x))
def test_fused_kernels_match_the_reference(family: Any, case: Case, target: CpuTarget) -> None:
    if not runs_here(target.isa):
        pytest.skip(f"this CPU does not run {target.isa}")
    apart = problem_of(case, target)
    problem = pooled(apart)
    assert family.applies(problem, target)
    inputs = inputs_of(problem)
    wanted = reference(problem, inputs)
    scale = max(float(np.abs(wanted).max()), 1.0)
    terms = int(np.prod(inputs[1].shape[1:])) + 1
    tactics = family.tactics(problem, target)
    assert 1 <= len(tactics) <= 12
    for tactic in dict.fromkeys((tactics[0], tactics[-1])):
        got = run(family, problem, tactic, target, inputs)
        error = float(np.abs(got - wanted).max()) / scale if np.isfinite(got).all() else np.inf
        assert error <= tolerance(family, case.channels, terms), f"{tactic.text}: {error:.3g}"


@pytest.mark.parametrize(
    ("family", "case"), [(WINOGRAD, WINOGRAD_CASES[0]), (FIRST, FIRST_CASES[0])]
)
def test_bits_are_those_of_the_two_kernels(family: Any, case: Case) -> None:
    """Each sum is made in the same order, and the maximum of rounded values is a rounded one."""
    if not runs_here("avx512"):
        pytest.skip("this CPU does not run avx512")
    apart = problem_of(case, AVX512)
    problem = pooled(apart)
    inputs = inputs_of(problem)
    tactic = family.tactics(problem, AVX512)[0]
    fused = run(family, problem, tactic, AVX512, inputs)
    whole = run(family, apart, tactic, AVX512, inputs)
    extents = problem.params.pooling.output_spatial
    np.testing.assert_array_equal(fused, largest_of_windows(whole, extents))


def test_a_nan_is_the_largest() -> None:
    if not runs_here("avx512"):
        pytest.skip("this CPU does not run avx512")
    for family, case in ((WINOGRAD, WINOGRAD_CASES[0]), (FIRST, FIRST_CASES[0])):
        problem = pooled(replace(problem_of(case, AVX512), epilogue=None))
        inputs = inputs_of(problem)
        inputs[0][0, 0, 0, 0] = np.nan
        got = run(family, problem, family.tactics(problem, AVX512)[0], AVX512, inputs)
        assert np.isnan(got[0, :, 0, 0]).all()
        assert np.isfinite(got[0, :, -1, -1]).all()


def test_what_does_not_apply() -> None:
    problem = pooled(problem_of(WINOGRAD_CASES[0], AVX512))
    assert not DIRECT.applies(problem, AVX512)
    pooling = problem.params.pooling
    for change in (
        {"window": (3, 3)},
        {"strides": (1, 1)},
        {"dilations": (2, 2)},
        {"pads_begin": (1, 0)},
        {"output_spatial": (8, 7)},  # the last window would reach over the map
    ):
        params = replace(problem.params, pooling=replace(pooling, **change))
        assert not WINOGRAD.applies(replace(problem, params=params), AVX512), change
    deep = pooled(problem_of(replace(WINOGRAD_CASES[0], linear=True), AVX512))
    assert not FIRST.applies(deep, AVX512)  # more than 8 channels
