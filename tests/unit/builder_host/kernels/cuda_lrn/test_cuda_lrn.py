"""Local response normalisation on emulated GPU threads against float64."""

from __future__ import annotations

import numpy as np
import pytest
from support.cuda_kernels import compile_all, make_target, run
from support.typed_kernels import NUMPY_TYPES, layout, problem

from builder_host.expressions import Input, relu
from builder_host.kernels.cuda_lrn.family import FAMILY
from builder_host.network.layers import definition
from builder_host.network.layers.lrn import LrnParams
from builder_host.network.network import Epilogue
from planformat.datatypes import DataType, TensorFormat

F32, F16 = DataType.FLOAT32, DataType.FLOAT16
NHWC = TensorFormat.NHWC
HOPPER = make_target("90", 4)


def build(params, channels, dtype, *, gap=0, epilogue=None):
    places = [layout((2, channels, 3, 5), NHWC, dtype, gap) for _ in range(2)]
    return problem("lrn", params, places[:1], places[1:], epilogue=epilogue)


@pytest.mark.parametrize("dtype", [F16, F32])
@pytest.mark.parametrize(
    ("params", "channels"),
    [
        (LrnParams(5, 0.2, 0.75, 1.0), 24),
        (LrnParams(3, 0.5, 0.6, 2.0), 10),
        (LrnParams(4, 0.5, 0.75, 2.0), 8),
        (LrnParams(13, 0.5, 1.0, 1.0), 16),
    ],
)
def test_every_tactic_matches_float64(params, channels, dtype):
    built = build(params, channels, dtype, gap=8, epilogue=Epilogue(relu(Input(0)), 0))
    values = np.random.default_rng(2).normal(0, 1, built.inputs[0].shape)
    values = values.astype(NUMPY_TYPES[dtype])
    (wanted,) = definition("lrn").reference(params, [values.astype(np.float64)])
    wanted = np.maximum(wanted, 0)
    for tactic in FAMILY.tactics(built, HOPPER):
        for offset in (0, 1):
            (result,) = run(FAMILY, built, HOPPER, [values], tactic, offset_elems=offset)
            # A sum of up to 13 squares and a power of a few ulp in float32; fp16 rounds at last.
            relative = 2.0**-24 * 32 + (2.0**-11 if dtype is F16 else 0)
            assert (np.abs(result - wanted) <= relative * np.abs(wanted) + 2.0**-25).all()


def test_leaves_to_others_what_it_cannot_do():
    assert not FAMILY.applies(build(LrnParams(5, 0.2, 0.75, 1.0), 7, F16), HOPPER)
    assert not FAMILY.applies(build(LrnParams(5, 0.2, 0.75, 1.0, "within"), 8, F16), HOPPER)


@pytest.mark.parametrize("architecture", ["53", "87", "90"])
def test_compiles_for_gpus(architecture):
    target = make_target(architecture)
    sources = []
    for dtype in (F16, F32):
        built = build(LrnParams(5, 1e-4, 0.75, 1.0), 96, dtype)
        sources += [FAMILY.generate(built, t, target).source for t in FAMILY.tactics(built, target)]
    assert len(compile_all(sources, architecture)) == len(sources)
