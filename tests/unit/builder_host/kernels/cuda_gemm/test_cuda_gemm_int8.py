"""8-bit products on emulated threads: bits equal to an int64 product and a float32 epilogue."""

from __future__ import annotations

import numpy as np
import pytest
from support.cuda_kernels import compile_programs, make_target, run
from support.integer_kernels import I8, U8, finished, random_inputs
from support.integer_products import Product, integer_product, problem_of

from builder_host.kernels.cuda_gemm_int8.family import FAMILY
from builder_host.kernels.family import Tactic
from builder_host.targets.cuda import CudaTarget

XAVIER = make_target("72", 8)
ORIN = make_target("87", 16)

CASES = [
    Product((1, 512), 100),
    Product((1, 261), 200, x=U8, y=I8),
    Product((5, 16, 3, 4), 40, y=U8),
    Product((2, 35, 3, 4), 50, blocked=True),
    Product((1, 64, 1, 1), 48, blocked=True, residual=I8, x=U8),
    Product((37, 128), 64, residual=I8, y=I8, row_gap=12),
    Product((2, 3, 9, 64), 33, (64, 33), x=U8),
    Product((20, 36), 24, (1, 24, 36), transpose_b=True),
]


def check(case: Product, target: CudaTarget, tactic: Tactic | None = None) -> None:
    problem = problem_of(case, target)
    inputs = random_inputs(problem)
    wanted = finished(problem, integer_product(case, inputs), inputs)
    assert len(np.unique(wanted)) > 20
    got = run(FAMILY, problem, target, inputs, tactic)[0]
    assert got.tobytes() == wanted.tobytes(), f"{(got != wanted).sum()} values differ"


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.x_shape}-{c.columns}")
def test_bits_are_those_of_exact_sums(case: Product) -> None:
    check(case, XAVIER)
    mma = [t for t in FAMILY.tactics(problem_of(case, ORIN), ORIN) if "pixels" in t.values]
    rows = int(np.prod(case.x_shape[:-1])) if case.b_shape else case.x_shape[0]
    assert bool(mma) == (rows >= 8)
    if mma:
        check(case, ORIN, mma[0])


def test_every_plain_tactic() -> None:
    case = Product((3, 1040), 70, residual=I8, y=I8)
    tactics = FAMILY.tactics(problem_of(case, XAVIER), XAVIER)
    assert len(tactics) >= 4
    for tactic in tactics:
        check(case, XAVIER, tactic)


def test_tensor_cores_first_where_rows_are_many() -> None:
    def first(rows: int) -> bool:
        problem = problem_of(Product((rows, 2048), 1000), ORIN)
        return "pixels" in FAMILY.tactics(problem, ORIN)[0].values

    assert not first(1)
    assert first(128)


@pytest.mark.parametrize("architecture", ["53", "61", "62", "72", "75", "87", "90"])
def test_compiles_for_gpus(architecture: str) -> None:
    target = make_target(architecture)
    programs = []
    for case in (Product((1, 2048), 1000, residual=I8, y=I8), Product((32, 2044), 1000, x=U8)):
        problem = problem_of(case, target)
        tactics = FAMILY.tactics(problem, target)[:4]
        programs += [FAMILY.generate(problem, tactic, target) for tactic in tactics]
    compile_programs(programs, architecture)
