"""Softmax of contiguous rows on emulated GPU threads against float64."""

from __future__ import annotations

import numpy as np
import pytest
from support.cuda_kernels import compile_all, make_target, run
from support.typed_kernels import NUMPY_TYPES, layout, problem

from builder_host.kernels.cuda_loop_nest.family import FAMILY as LOOP_NEST
from builder_host.kernels.cuda_softmax.family import FAMILY
from builder_host.network.layers import definition
from builder_host.network.layers.softmax import SoftmaxParams
from planformat.datatypes import DataType, TensorFormat

F32, F16 = DataType.FLOAT32, DataType.FLOAT16
LINEAR, NHWC = TensorFormat.LINEAR, TensorFormat.NHWC
HOPPER = make_target("90", 4)


def build(shape, axis, dtype, *, fmt=LINEAR, log=False, gap=0):
    places = [layout(shape, fmt, dtype, gap) for _ in range(2)]
    return problem("softmax", SoftmaxParams(axis, log), places[:1], places[1:])


@pytest.mark.parametrize("dtype", [F16, F32])
@pytest.mark.parametrize(
    ("shape", "axis", "fmt", "log"),
    [
        ((1, 1000), 1, LINEAR, False),
        ((37, 21), 1, LINEAR, False),
        ((3, 2, 70), 2, LINEAR, True),
        ((5, 3), 1, LINEAR, False),
        ((2, 21, 3, 4), 1, NHWC, False),
    ],
)
def test_every_tactic_matches_float64(shape, axis, fmt, log, dtype):
    built = build(shape, axis, dtype, fmt=fmt, log=log, gap=0 if len(shape) == 4 else 9)
    if len(shape) == 3:
        built = build(shape, axis, dtype, log=log)
    values = np.random.default_rng(2).normal(0, 4, shape).astype(NUMPY_TYPES[dtype])
    params = SoftmaxParams(axis, log)
    (wanted,) = definition("softmax").reference(params, [values.astype(np.float64)])
    for tactic in FAMILY.tactics(built, HOPPER):
        (result,) = run(FAMILY, built, HOPPER, [values], tactic)
        # Exponentials of differences up to 32 and a sum of 1000 in float32; fp16 rounds at last,
        # to multiples of 2^-24 where results are small.
        relative = 2.0**-24 * 64 + (2.0**-11 if dtype is F16 else 0)
        assert (np.abs(result - wanted) <= relative * np.abs(wanted) + 2.0**-25).all()


@pytest.mark.parametrize("family", [FAMILY, LOOP_NEST], ids=["softmax", "loop nest"])
def test_half_to_float(family):
    """As in a plan whose last cast was absorbed: nothing is rounded to half on the way."""
    built = problem(
        "softmax", SoftmaxParams(1), [layout((2, 50), LINEAR, F16)], [layout((2, 50), LINEAR, F32)]
    )
    values = np.random.default_rng(2).normal(0, 4, (2, 50)).astype(np.float16)
    (wanted,) = definition("softmax").reference(SoftmaxParams(1), [values.astype(np.float64)])
    (result,) = run(family, built, HOPPER, [values])
    assert result.dtype == np.float32
    assert (np.abs(result - wanted) <= 2.0**-24 * 64 * wanted).all()


def test_infinities_keep_their_meaning():
    built = build((1, 4), 1, F32)
    values = np.array([[0.0, -np.inf, 0.0, -np.inf]], np.float32)
    (result,) = run(FAMILY, built, HOPPER, [values])
    np.testing.assert_array_equal(result, [[0.5, 0.0, 0.5, 0.0]])


def test_leaves_to_others_what_it_cannot_do():
    assert not FAMILY.applies(build((2, 21, 3, 4), 1, F32), HOPPER)
    assert not FAMILY.applies(build((2, 40000), 1, F32), HOPPER)


@pytest.mark.parametrize("architecture", ["53", "87", "90"])
def test_compiles_for_gpus(architecture):
    target = make_target(architecture)
    sources = []
    for shape in ((1, 1000), (8732, 21), (1, 20000)):
        built = build(shape, 1, F16)
        sources += [FAMILY.generate(built, t, target).source for t in FAMILY.tactics(built, target)]
    assert len(compile_all(sources, architecture)) == len(sources)
