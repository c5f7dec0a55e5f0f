"""Every generated kind on emulated GPU threads against the float64 references."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from support.cuda_kernels import compile_all, make_target, run
from support.loop_nest_cases import CASES, Case, build, formats, reference, values_of

from builder_host.kernels.cuda_loop_nest.family import FAMILY
from planformat.datatypes import DataType, TensorFormat

NHWC = TensorFormat.NHWC
HOPPER, ORIN, NANO = make_target("90", 4), make_target("87", 2), make_target("53", 1)
EPS = 2.0**-24
HALF_EPS = 2.0**-11


def half_case(case: Case) -> Case:
    """The same layer with fp16 storage."""
    inputs = tuple(
        (shape, DataType.FLOAT16 if dtype is DataType.FLOAT32 else dtype)
        for shape, dtype in case.inputs
    )
    params = case.params
    return dataclasses.replace(case, inputs=inputs, params=params)


HALF_CASES = sorted(
    name
    for name, case in CASES.items()
    if any(dtype is DataType.FLOAT32 for _, dtype in case.inputs)
    and not name.startswith(("cast", "bit_cast"))
)


def check(case: Case, chosen: Sequence[TensorFormat], target, *, gap: int = 0, offset: int = 0):
    values = values_of(case)
    results = run(FAMILY, build(case, chosen, gap), target, values, offset_elems=offset)
    for result, wanted in zip(results, reference(case, values), strict=True):
        if result.dtype.kind != "f":
            np.testing.assert_array_equal(result.astype(np.int64), wanted.astype(np.int64))
            continue
        # As for the CPU: float32 sums of unit normal values, and the rounding of the storage.
        size = np.maximum(np.abs(wanted), 1.0)
        limit = 4 * EPS * size * max(case.terms, 4) * 4
        if result.dtype == np.float16:
            limit = limit + HALF_EPS * size
        assert np.isfinite(result).all()
        assert (np.abs(result - wanted) <= limit).all(), np.abs(result - wanted).max()


@pytest.mark.parametrize("name", sorted(CASES))
def test_matches_the_reference_in_linear_and_nhwc(name):
    every = list(formats(CASES[name], NHWC))
    for chosen in {every[0], every[-1]}:
        check(CASES[name], chosen, HOPPER)


@pytest.mark.parametrize("name", HALF_CASES)
def test_fp16_storage_in_strided_views_of_any_alignment(name):
    case = half_case(CASES[name])
    every = list(formats(CASES[name], NHWC))
    check(case, every[len(every) // 2], ORIN, gap=40, offset=3)


@pytest.mark.parametrize("architecture", ["53", "87", "90"])
def test_compiles_for_gpus(architecture):
    target = make_target(architecture)
    sources = []
    for name, case in CASES.items():
        chosen = list(formats(case, NHWC))[-1]
        for variant in (case, half_case(case)) if name in HALF_CASES else (case,):
            built = build(variant, chosen)
            sources.append(FAMILY.generate(built, FAMILY.tactics(built, target)[0], target).source)
    cubins = compile_all(sources, architecture)
    assert len(cubins) == len(sources)
