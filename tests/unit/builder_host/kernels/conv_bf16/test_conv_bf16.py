"""conv_bf16: against float64 sums of the same rounded values, within float32 accumulation."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from support.convolutions import RELU, Case, problem_of, reference
from support.integer_kernels import BF16, F32, TARGETS, needs, run_tactic

from builder_host.kernels.conv_bf16.family import FAMILY
from builder_host.kernels.conv_bf16.weights import bf16_bits
from builder_host.kernels.family import Problem
from planformat.datatypes import DataType

TARGET = TARGETS["avx512-vnni"]
POINTWISE = {"kernel": (1, 1), "pads": (0, 0, 0, 0)}
CASES = [
    Case(64, 64, 14, 14, expr=RELU),
    Case(35, 40, 9, 11, operands=("full",)),
    Case(16, 48, 7, 7, strided=True, operands=("strided", "channel", "scalar")),
    Case(64, 48, 7, 7, **POINTWISE),
    Case(3, 20, 19, 23, (7, 7), strides=(2, 2), pads=(3, 3, 3, 3), expr=RELU),
    Case(47, 32, 6, 6, bias=False, workers=3),
    Case(20, 33, 17, 30, (5, 5), pads=(2, 2, 2, 2), dilations=(2, 3), batch=2, workers=4),
    Case(64, 64, 10, 10, groups=2),
    Case(24, 40, 10, 10, (3, 1), groups=4),
]


def narrowed(problem: Problem, y: DataType) -> Problem:
    """Images, weights and bias in bfloat16, constants of the epilogue in float32."""
    own = problem.num_own_inputs
    inputs = tuple(
        layout if constant and number >= own else replace(layout, dtype=BF16)
        for number, (layout, constant) in enumerate(
            zip(problem.inputs, problem.is_constant, strict=True)
        )
    )
    outputs = (replace(problem.outputs[0], dtype=y),)
    return replace(problem, inputs=inputs, outputs=outputs)


@pytest.mark.parametrize(
    ("case", "y"),
    [*((case, BF16) for case in CASES), (CASES[1], F32), (CASES[4], F32)],
    ids=lambda value: value.text if isinstance(value, DataType) else str(value),
)
def test_tactics_match_the_reference(case: Case, y: DataType) -> None:
    """Rounding errors: 4 eps sqrt(terms) of float32 sums, then half a step of bfloat16."""
    needs("avx512-vnni")
    problem = narrowed(problem_of(case, TARGET), y)
    rng = np.random.default_rng(0)
    inputs = []
    for layout in problem.inputs:
        values = rng.standard_normal(layout.shape).astype(np.float32)
        if len(inputs) == 1:
            values /= np.float32(np.sqrt(np.prod(layout.shape[1:])))
        inputs.append(values.astype(ml_dtypes.bfloat16) if layout.dtype is BF16 else values)
    wanted = reference(problem, [a.astype(np.float64) for a in inputs])
    terms = int(np.prod(problem.inputs[1].shape[1:])) + 2
    allowed = 4 * 2.0**-23 * terms**0.5 * max(1.0, float(np.abs(wanted).max()))
    limit = allowed + (2.0**-8 * np.abs(wanted) * 1.01 if y is BF16 else 0.0)
    for tactic in FAMILY.tactics(problem, TARGET)[::4]:
        got = run_tactic(FAMILY, problem, tactic, TARGET, inputs).astype(np.float64)
        assert (np.abs(got - wanted) <= limit).all(), f"{np.abs(got - wanted).max():.3g}"


def test_nan_in_padded_lanes_stays_out() -> None:
    """Gaps hold NaN; a pair of which one channel is padding must not read it."""
    needs("avx512-vnni")
    problem = narrowed(problem_of(Case(5, 16, 4, 4, bias=False), TARGET), F32)
    ones = [np.ones(layout.shape, ml_dtypes.bfloat16) for layout in problem.inputs]
    got = run_tactic(FAMILY, problem, FAMILY.tactics(problem, TARGET)[0], TARGET, ones)
    taps = np.full(4, 3.0)
    taps[[0, -1]] = 2.0
    np.testing.assert_array_equal(got[0, 0], 5 * np.multiply.outer(taps, taps))


def test_bits_are_rounded_to_nearest_even() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -2.5e-3, np.inf, 3.4e38], np.float32)
    wanted = values.astype(ml_dtypes.bfloat16).view(np.uint16)
    np.testing.assert_array_equal(bf16_bits(values), wanted)
    assert np.isnan(bf16_bits(np.array([np.nan], np.float32)).view(ml_dtypes.bfloat16))


def test_applies_only_to_targets_with_the_instruction_and_to_even_mixed_groups() -> None:
    problem = narrowed(problem_of(CASES[0], TARGET), BF16)
    assert FAMILY.applies(problem, TARGET)
    assert not FAMILY.applies(problem, TARGETS["avx512"])
    assert not FAMILY.applies(problem_of(CASES[0], TARGET), TARGET)
    odd = narrowed(problem_of(Case(9, 12, 5, 5, groups=3), TARGET), BF16)
    assert not FAMILY.applies(odd, TARGET)
