"""Every generated kind against the float64 references, in several formats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from support.cpu_kernels import AVX2, AVX512, NEON, runs_here
from support.loop_nest_cases import CASES, Case, build, formats, reference, values_of
from support.typed_kernels import run, toolchain

from builder_host.kernels.loop_nest.family import FAMILY
from planformat.datatypes import TensorFormat

B16, B8 = TensorFormat.NCHW16C, TensorFormat.NCHW8C
EPS = 2.0**-24


def check(case: Case, chosen: Sequence[TensorFormat], target: Any, gap: int = 0) -> None:
    values = values_of(case)
    results = run(FAMILY, build(case, chosen, gap), target, values)
    for result, wanted in zip(results, reference(case, values), strict=True):
        if result.dtype.kind != "f":
            np.testing.assert_array_equal(result.astype(np.int64), wanted.astype(np.int64))
            continue
        # Sequential float32 sums: error below terms * eps * sum of magnitudes; the magnitudes of
        # these unit normal inputs stay below 8 * terms; functions add a few ulp of the result.
        size = np.maximum(np.abs(wanted), 1.0)
        limit = 4 * EPS * size * max(case.terms, 4) * 4
        assert np.isfinite(result).all()
        assert (np.abs(result - wanted) <= limit).all(), np.abs(result - wanted).max()


@pytest.mark.parametrize("name", sorted(CASES))
def test_matches_the_reference_in_every_mix_of_formats(name: str) -> None:
    if not runs_here("avx512"):
        pytest.skip("this machine has no AVX-512")
    for chosen in formats(CASES[name], B16):
        check(CASES[name], chosen, AVX512)


@pytest.mark.parametrize("name", sorted(CASES))
def test_matches_the_reference_on_avx2_with_strided_views(name: str) -> None:
    if not runs_here("avx2"):
        pytest.skip("this machine has no AVX2")
    every = list(formats(CASES[name], B8))
    for chosen in {every[0], every[-1]}:
        check(CASES[name], chosen, AVX2, gap=64)


def test_compiles_for_neon() -> None:
    sources = []
    for case in CASES.values():
        chosen = list(formats(case, TensorFormat.NCHW4C))[-1]
        built = build(case, chosen)
        sources.append(FAMILY.generate(built, FAMILY.tactics(built, NEON)[0], NEON).source)
    for result in toolchain(NEON).compile_objects(sources):
        assert not hasattr(result, "error"), result
