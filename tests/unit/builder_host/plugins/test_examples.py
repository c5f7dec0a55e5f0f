"""The example plugins: kernels on the CPU and on emulated CUDA threads against loops in numpy.

Tolerances: a logistic and a softmax of float32 are good to a few units of 2^-24 each; float16
results are rounded once, 2^-11 relative.
"""

from __future__ import annotations

import numpy as np
import pytest
from support import cpu_kernels, cuda_kernels

from builder_host.kernels.cuda_plugin.family import FAMILY as CUDA
from builder_host.kernels.family import Problem
from builder_host.kernels.plugin.family import FAMILY as CPU
from builder_host.layouts import dense_layout
from builder_host.network.layers.plugin import plugin_params
from builder_host.network.tensor_type import TensorType
from examples.plugins.yolov2 import Region, Reorg
from planformat.datatypes import DataType

RNG = np.random.default_rng(5)


def problem_of(plugin, shape, dtype=DataType.FLOAT32, workers=1):
    x = TensorType(shape, dtype)
    outputs = tuple(dense_layout(t) for t in plugin.output_types([x]))
    return Problem(
        "plugin", plugin_params(plugin), (dense_layout(x),), (False,), outputs, None, workers
    )


def reorg_by_loops(x, s):
    """Darknet's definition, element by element: out[i] = in[place of i in the coarse buffer]."""
    n, c, h, w = x.shape
    groups = c // (s * s)
    coarse = x.reshape(n, groups, h * s, w * s)
    y = np.empty_like(x)
    for k in range(c):
        shift = k // groups
        for j in range(h):
            for i in range(w):
                y[:, k, j, i] = coarse[:, k % groups, j * s + shift // s, i * s + shift % s]
    return y.reshape(n, c * s * s, h // s, w // s)


def region_by_loops(x, anchors, classes):
    y = x.astype(np.float64).copy()
    for anchor in range(anchors):
        first = anchor * (5 + classes)
        for part in (0, 1, 4):
            y[:, first + part] = 1 / (1 + np.exp(-y[:, first + part]))
        scores = np.exp(y[:, first + 5 : first + 5 + classes])
        y[:, first + 5 : first + 5 + classes] = scores / scores.sum(axis=1, keepdims=True)
    return y


REORGS = [((1, 4, 4, 6), 2), ((2, 18, 6, 9), 3), ((1, 64, 26, 26), 2)]
REGIONS = [((1, 2 * 8, 3, 21), 2, 3), ((2, 5 * 25, 4, 13), 5, 20)]


@pytest.mark.parametrize(("shape", "stride"), REORGS)
def test_reorg_on_the_cpu(shape, stride):
    x = RNG.standard_normal(shape).astype(np.float32)
    problem = problem_of(Reorg(stride), shape)
    (tactic,) = CPU.tactics(problem, cpu_kernels.AVX2)
    y = cpu_kernels.run(CPU, problem, tactic, cpu_kernels.AVX2, [x])
    np.testing.assert_array_equal(y, reorg_by_loops(x, stride))
    np.testing.assert_array_equal(Reorg(stride).reference([x])[0], y)


@pytest.mark.parametrize(("shape", "anchors", "classes"), REGIONS)
def test_region_on_the_cpu(shape, anchors, classes):
    x = RNG.standard_normal(shape).astype(np.float32) * 3
    plugin = Region(anchors, classes)
    problem = problem_of(plugin, shape)
    (tactic,) = CPU.tactics(problem, cpu_kernels.AVX2)
    y = cpu_kernels.run(CPU, problem, tactic, cpu_kernels.AVX2, [x])
    expected = region_by_loops(x, anchors, classes)
    np.testing.assert_allclose(y, expected, rtol=2e-6)
    np.testing.assert_allclose(plugin.reference([x.astype(np.float64)])[0], expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [DataType.FLOAT32, DataType.FLOAT16])
@pytest.mark.parametrize(("shape", "stride"), REORGS[:2])
def test_reorg_on_cuda_threads(shape, stride, dtype):
    problem = problem_of(Reorg(stride), shape, dtype)
    x = RNG.standard_normal(shape).astype(np.float16 if dtype is DataType.FLOAT16 else np.float32)
    target = cuda_kernels.make_target("90")
    for tactic in CUDA.tactics(problem, target):
        (y,) = cuda_kernels.run(CUDA, problem, target, [x], tactic)
        np.testing.assert_array_equal(y, reorg_by_loops(x, stride))


@pytest.mark.parametrize(("dtype", "rtol"), [(DataType.FLOAT32, 2e-6), (DataType.FLOAT16, 2**-10)])
@pytest.mark.parametrize(("shape", "anchors", "classes"), REGIONS)
def test_region_on_cuda_threads(shape, anchors, classes, dtype, rtol):
    problem = problem_of(Region(anchors, classes), shape, dtype)
    x = RNG.standard_normal(shape).astype(np.float16 if dtype is DataType.FLOAT16 else np.float32)
    target = cuda_kernels.make_target("87")
    (y,) = cuda_kernels.run(CUDA, problem, target, [x])
    np.testing.assert_allclose(y, region_by_loops(x, anchors, classes), rtol=rtol, atol=1e-7)


@pytest.mark.parametrize("architecture", ["53", "61", "75", "87", "90"])
def test_cuda_sources_compile(architecture):
    target = cuda_kernels.make_target(architecture)
    sources = []
    for dtype in (DataType.FLOAT32, DataType.FLOAT16):
        for plugin, shape in ((Reorg(2), REORGS[0][0]), (Region(5, 20), REGIONS[1][0])):
            problem = problem_of(plugin, shape, dtype)
            tactics = CUDA.tactics(problem, target)
            assert [t.values["kernel"] for t in tactics] == ["block128", "block64", "block256"]
            sources += [CUDA.generate(problem, t, target).source for t in tactics]
    assert all(cuda_kernels.compile_all(sources, architecture))


@pytest.mark.parametrize(
    ("plugin", "shape"),
    [(Reorg(2), (1, 4, 5, 4)), (Reorg(3), (1, 4, 6, 6)), (Region(2, 3), (1, 15, 4, 4))],
)
def test_shapes_that_do_not_fit_are_refused(plugin, shape):
    with pytest.raises(ValueError, match="x"):
        plugin.output_types([TensorType(shape)])
