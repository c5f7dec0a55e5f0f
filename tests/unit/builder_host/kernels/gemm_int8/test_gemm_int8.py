"""gemm_int8: bits equal to an int64 matrix product and a float32 epilogue."""

from __future__ import annotations

import numpy as np
import pytest
from support.integer_kernels import (
    I8,
    TARGETS,
    U8,
    finished,
    needs,
    random_inputs,
    run_tactic,
)
from support.integer_products import Product, integer_product, problem_of

from builder_host.kernels.gemm_int8.family import FAMILY

CASES = [
    Product((1, 512), 100),
    Product((1, 260), 1000, x=U8, y=I8, workers=2),
    Product((5, 16, 3, 4), 40, y=U8),
    Product((2, 35, 3, 4), 50, blocked=True),
    Product((1, 64, 1, 1), 48, blocked=True, residual=I8, x=U8),
    Product((37, 128), 64, residual=I8, y=I8, row_gap=12),
    Product((2, 3, 9, 64), 33, (64, 33), x=U8, workers=3),
    Product((20, 36), 24, (1, 24, 36), transpose_b=True),
]


@pytest.mark.parametrize(
    "name",
    [
        "avx512-vnni",
        "avx2",
        pytest.param("neon-dotprod", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.x_shape}-{c.columns}")
def test_tactics_give_the_exact_result(case: Product, name: str) -> None:
    needs(name)
    target = TARGETS[name]
    problem = problem_of(case, target)
    inputs = random_inputs(problem)
    wanted = finished(problem, integer_product(case, inputs), inputs)
    assert len(np.unique(wanted)) > 20
    tactics = FAMILY.tactics(problem, target)
    for tactic in tactics[::2] if name == "avx512-vnni" else tactics[:1]:
        got = run_tactic(FAMILY, problem, tactic, target, inputs)
        assert got.tobytes() == wanted.tobytes(), f"{(got != wanted).sum()} values differ"


def test_does_not_apply_to_depths_off_four_or_residuals_with_partial_vectors() -> None:
    target = TARGETS["avx2"]
    assert not FAMILY.applies(problem_of(Product((4, 30), 16), target), target)
    assert FAMILY.applies(problem_of(Product((4, 32), 20), target), target)
    assert not FAMILY.applies(problem_of(Product((4, 32), 20, residual=I8), target), target)
    assert not FAMILY.applies(problem_of(Product((1, 4 * 40000), 8), target), target)
