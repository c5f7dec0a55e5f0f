"""Pooling of channels-last images on emulated GPU threads against float64."""

from __future__ import annotations

import numpy as np
import pytest
from support.cuda_kernels import compile_all, make_target, run
from support.typed_kernels import NUMPY_TYPES, layout, problem

from builder_host.expressions import Input, relu
from builder_host.kernels.cuda_pooling.family import FAMILY
from builder_host.network.layers import definition
from builder_host.network.layers.pooling import PoolingParams
from builder_host.network.network import Epilogue
from planformat.datatypes import DataType, TensorFormat

F32, F16 = DataType.FLOAT32, DataType.FLOAT16
LINEAR, NHWC = TensorFormat.LINEAR, TensorFormat.NHWC
HOPPER, NANO = make_target("90", 4), make_target("53", 1)
WINDOWS = {
    "max": PoolingParams("max", (3, 3), (2, 2), (1, 1), (1, 1), (6, 5), (1, 1), False),
    "max_dilated": PoolingParams("max", (2, 3), (1, 2), (0, 0), (0, 0), (9, 3), (2, 1), False),
    "average": PoolingParams("average", (3, 3), (2, 2), (0, 1), (1, 1), (5, 5), (1, 1), False),
    "average_padded": PoolingParams(
        "average", (3, 3), (1, 1), (1, 1), (1, 1), (11, 9), (1, 1), True
    ),
    "global": PoolingParams("average", (11, 9), (1, 1), (0, 0), (0, 0), (1, 1), (1, 1), False),
    "global_max": PoolingParams("max", (11, 9), (1, 1), (0, 0), (0, 0), (1, 1), (1, 1), False),
}


def build(name, channels, dtype, *, out=NHWC, gap=0, epilogue=None):
    params = WINDOWS[name]
    x = layout((2, channels, 11, 9), NHWC, dtype, gap)
    y = layout((2, channels, *params.output_spatial), out, dtype, gap)
    return problem("pooling", params, [x], [y], epilogue=epilogue)


def check(built, target, tactic=None, **options):
    values = np.random.default_rng(1).normal(0, 1, built.inputs[0].shape)
    values = values.astype(NUMPY_TYPES[built.inputs[0].dtype])
    (wanted,) = definition("pooling").reference(built.params, [values.astype(np.float64)])
    if built.epilogue is not None:
        wanted = np.maximum(wanted, 0)
    (result,) = run(FAMILY, built, target, [values], tactic, **options)
    # A mean of at most 99 unit values in float32, rounded to the storage.
    limit = 2.0**-24 * 99 * 4 + (2.0**-11 * np.abs(wanted) if result.dtype == np.float16 else 0)
    assert (np.abs(result - wanted) <= limit).all()


@pytest.mark.parametrize("dtype", [F16, F32])
@pytest.mark.parametrize("name", sorted(WINDOWS))
def test_every_tactic_matches_float64(name, dtype):
    built = build(name, 24, dtype)
    for tactic in FAMILY.tactics(built, HOPPER):
        check(built, HOPPER, tactic)


@pytest.mark.parametrize("name", ["average", "global"])
def test_odd_channels_strided_views_and_odd_addresses(name):
    check(build(name, 7, F16, gap=5), NANO, offset_elems=3)
    check(build(name, 16, F16, gap=24), NANO, offset_elems=3)


def test_one_pixel_may_be_linear_and_pass_an_epilogue():
    check(build("global", 20, F16, out=LINEAR, epilogue=Epilogue(relu(Input(0)), 0)), HOPPER)
    assert not FAMILY.applies(build("max", 20, F16, out=LINEAR), HOPPER)


@pytest.mark.parametrize("architecture", ["53", "87", "90"])
def test_compiles_for_gpus(architecture):
    target = make_target(architecture, 16)
    sources = []
    for name in WINDOWS:
        built = build(name, 64, F16)
        sources += [FAMILY.generate(built, t, target).source for t in FAMILY.tactics(built, target)]
    assert len(compile_all(sources, architecture)) == len(sources)
