"""The k best of rows on emulated GPU threads."""

from __future__ import annotations

import numpy as np
import pytest
from support.cuda_kernels import compile_all, make_target, run
from support.typed_kernels import NUMPY_TYPES, layout, problem

from builder_host.kernels.cuda_top_k.family import FAMILY
from builder_host.network.layers import definition
from builder_host.network.layers.top_k import TopKParams
from planformat.datatypes import DataType, TensorFormat

F32, F16, I32, I64 = DataType.FLOAT32, DataType.FLOAT16, DataType.INT32, DataType.INT64
LINEAR = TensorFormat.LINEAR
HOPPER = make_target("90", 4)


def build(shape, params, dtype):
    out = tuple(params.k if d == params.axis else e for d, e in enumerate(shape))
    outputs = [layout(out, LINEAR, dtype), layout(out, LINEAR, I64, 5)]
    return problem("top_k", params, [layout(shape, LINEAR, dtype, 3)], outputs)


@pytest.mark.parametrize("dtype", [F16, F32, I32, I64])
@pytest.mark.parametrize(
    ("shape", "params"),
    [
        ((2, 300), TopKParams(5, 1)),
        ((3, 40, 4), TopKParams(7, 1, False)),
        ((4, 3), TopKParams(3, 1)),
    ],
)
def test_values_and_first_positions(shape, params, dtype):
    built = build(shape, params, dtype)
    values = np.random.default_rng(6).integers(-30, 30, shape).astype(NUMPY_TYPES[dtype])
    wide = values.astype(np.float64 if dtype.is_float else np.int64)
    wanted = definition("top_k").reference(params, [wide])
    for tactic in FAMILY.tactics(built, HOPPER):
        results = run(FAMILY, built, HOPPER, [values], tactic)
        for result, want in zip(results, wanted, strict=True):
            np.testing.assert_array_equal(result.astype(want.dtype), want)


@pytest.mark.parametrize("architecture", ["53", "87", "90"])
def test_compiles_for_gpus(architecture):
    target = make_target(architecture)
    sources = []
    for dtype in (F16, F32, I32):
        built = build((1, 1000), TopKParams(5, 1), dtype)
        sources += [FAMILY.generate(built, t, target).source for t in FAMILY.tactics(built, target)]
    assert len(compile_all(sources, architecture)) == len(sources)
