"""8-bit layers as loop nests: exact sums against int64, requantised bits against numpy float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import cuda_kernels, typed_kernels
from support.cpu_kernels import AVX512, runs_here
from support.typed_kernels import NUMPY_TYPES, layout, problem

from builder_host.expressions import Binary, Const, Input, Unary, clip, relu
from builder_host.kernels.cuda_loop_nest.family import FAMILY as CUDA_FAMILY
from builder_host.kernels.loop_nest.family import FAMILY
from builder_host.network.layers import definition
from builder_host.network.layers.convolution import ConvolutionParams
from builder_host.network.layers.fully_connected import FullyConnectedParams
from builder_host.network.layers.matrix_multiply import MatrixMultiplyParams
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.layers.pooling import PoolingParams
from builder_host.network.network import Epilogue
from planformat.datatypes import DataType, TensorFormat

I8, U8, F32 = DataType.INT8, DataType.UINT8, DataType.FLOAT32
LINEAR, NHWC, B16 = TensorFormat.LINEAR, TensorFormat.NHWC, TensorFormat.NCHW16C
CONV = ConvolutionParams((2, 1), (1, 1), (0, 2), (1, 1), 2)


@pytest.fixture(params=["cpu", "cuda"])
def run(request):
    """Runs a problem on this CPU, or on emulated GPU threads, where no blocked format is known."""
    if request.param == "cuda":

        def on_gpu(item, inputs):
            if any(layout.format.channel_block > 1 for layout in item.inputs):
                pytest.skip("CUDA tensors are LINEAR or NHWC")
            return cuda_kernels.run(CUDA_FAMILY, item, cuda_kernels.make_target("87", 2), inputs)

        return on_gpu
    if not runs_here("avx512"):
        pytest.skip("this machine has no AVX-512")
    return lambda item, inputs: typed_kernels.run(FAMILY, item, AVX512, inputs)


def integers(dtype: DataType, *shape: int, seed: int = 0) -> Any:
    """Values over the whole range of the type, extremes included."""
    info = np.iinfo(NUMPY_TYPES[dtype])
    rng = np.random.default_rng(seed)
    values = rng.integers(info.min, info.max + 1, shape)
    values.reshape(-1)[:4] = [info.min, info.max, info.max, info.min]
    return values.astype(NUMPY_TYPES[dtype])


@pytest.mark.parametrize("x_type", [I8, U8])
@pytest.mark.parametrize("fmt", [LINEAR, NHWC, B16])
def test_convolution_sums_are_exact(run, x_type: DataType, fmt: TensorFormat) -> None:
    x, w = integers(x_type, 2, 6, 9, 8), integers(I8, 10, 3, 3, 3, seed=1)
    (expected,) = definition("convolution").reference(CONV, [x.astype(np.int64), w])
    item = problem(
        "convolution",
        CONV,
        [layout(x.shape, fmt, x_type), layout(w.shape, dtype=I8)],
        [layout(expected.shape, fmt, F32)],
        constant=(1,),
    )
    (actual,) = run(item, [x, w])
    np.testing.assert_array_equal(actual.astype(np.int64), expected.astype(np.int64))


@pytest.mark.parametrize(("y_type", "low", "high"), [(I8, -127.0, 127.0), (U8, 0.0, 255.0)])
def test_requantised_convolution_with_residual_repeats_float32(
    run, y_type: DataType, low: float, high: float
) -> None:
    x, w = integers(I8, 1, 6, 9, 8), integers(I8, 10, 3, 3, 3, seed=1)
    (sums,) = definition("convolution").reference(CONV, [x.astype(np.int64), w])
    scales = np.random.default_rng(2).uniform(1e-4, 3e-4, (10, 1, 1)).astype(np.float32)
    bias = np.random.default_rng(3).standard_normal((10, 1, 1)).astype(np.float32)
    residual = integers(I8, *sums.shape, seed=4)
    value = Binary("add", Binary("mul", Input(0), Input(1)), Input(2))
    value = relu(Binary("add", value, Binary("mul", Input(3), Const(0.03125))))
    expr = clip(Unary("round", Binary("mul", value, Const(24.0))), low, high)
    item = problem(
        "convolution",
        CONV,
        [
            layout(x.shape, NHWC, I8),
            layout(w.shape, dtype=I8),
            layout(scales.shape),
            layout(bias.shape),
            layout(residual.shape, NHWC, I8),
        ],
        [layout(sums.shape, NHWC, y_type)],
        constant=(1, 2, 3),
        epilogue=Epilogue(expr, 3),
    )
    (actual,) = run(item, [x, w, scales, bias, residual])
    real = (
        sums.astype(np.float32) * scales + bias + residual.astype(np.float32) * np.float32(0.03125)
    )
    wanted = np.clip(np.rint(np.maximum(real, np.float32(0)) * np.float32(24)), low, high)
    np.testing.assert_array_equal(actual, wanted.astype(NUMPY_TYPES[y_type]))


def test_products_are_exact(run) -> None:
    x, w = integers(U8, 3, 4, 50), integers(I8, 7, 200, seed=1)
    wanted = x.reshape(3, 200).astype(np.int64) @ w.astype(np.int64).T
    item = problem(
        "fully_connected",
        FullyConnectedParams(),
        [layout(x.shape, dtype=U8), layout(w.shape, dtype=I8)],
        [layout((3, 7))],
        constant=(1,),
    )
    (actual,) = run(item, [x, w])
    np.testing.assert_array_equal(actual.astype(np.int64), wanted)
    a, b = integers(I8, 2, 5, 65), integers(I8, 2, 65, 33, seed=1)
    item = problem(
        "matrix_multiply",
        MatrixMultiplyParams(),
        [layout(a.shape, dtype=I8), layout(b.shape, dtype=I8)],
        [layout((2, 5, 33))],
    )
    (actual,) = run(item, [a, b])
    np.testing.assert_array_equal(actual.astype(np.int64), a.astype(np.int64) @ b.astype(np.int64))


@pytest.mark.parametrize("dtype", [I8, U8])
@pytest.mark.parametrize("fmt", [LINEAR, NHWC, B16])
def test_pooling_keeps_integers_and_averages_exact_sums(
    run, dtype: DataType, fmt: TensorFormat
) -> None:
    x = integers(dtype, 1, 5, 7, 7)
    for mode, stored in (("max", dtype), ("average", F32)):
        params = PoolingParams(mode, (3, 3), (2, 2), (1, 1), (1, 1), (4, 4), (1, 1), False)  # type: ignore[arg-type]
        (wanted,) = definition("pooling").reference(params, [x.astype(np.int64)])
        item = problem(
            "pooling", params, [layout(x.shape, fmt, dtype)], [layout(wanted.shape, fmt, stored)]
        )
        (actual,) = run(item, [x])
        np.testing.assert_array_equal(actual, wanted.astype(NUMPY_TYPES[stored]))


def test_pointwise_reads_integers_as_numbers(run) -> None:
    a, b = integers(I8, 3, 40), integers(U8, 3, 40, seed=1)
    total = Binary("add", Binary("mul", Input(0), Const(0.5)), Binary("mul", Input(1), Const(0.25)))
    real = a.astype(np.float32) * np.float32(0.5) + b.astype(np.float32) * np.float32(0.25)
    rounded = clip(Unary("round", total), -128.0, 127.0)
    for expr, stored, wanted in (
        (total, F32, real),
        (rounded, I8, np.clip(np.rint(real), -128, 127).astype(np.int8)),
    ):
        item = problem(
            "pointwise",
            PointwiseParams(expr, stored),
            [layout(a.shape, dtype=I8), layout(b.shape, dtype=U8)],
            [layout(a.shape, dtype=stored)],
        )
        (actual,) = run(item, [a, b])
        np.testing.assert_array_equal(actual, wanted)
