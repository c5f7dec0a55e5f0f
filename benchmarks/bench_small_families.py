"""Rates of the pooling, gemm, deconvolution, softmax and LRN kernels on layer shapes of real nets.

One thread, called through ctypes in this process. Each row is the minimum and the median over
interleaved repeats of all tactics; GB/s counts inputs, outputs and weights once, GFLOP/s counts a
multiply-add as two. Fully connected layers are timed beside a plain read of as many bytes.

    PYTHONPATH=.:tests python benchmarks/bench_small_families.py [--isa avx512] [name ...]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from support.cpu_kernels import AVX2, AVX512, Kernel, compile_source

from builder_host.expressions import Binary, Input, relu
from builder_host.kernels.deconvolution.family import FAMILY as DECONVOLUTION
from builder_host.kernels.family import Problem
from builder_host.kernels.gemm.family import FAMILY as GEMM
from builder_host.kernels.lrn.family import FAMILY as LRN
from builder_host.kernels.pooling.family import FAMILY as POOLING
from builder_host.kernels.softmax.family import FAMILY as SOFTMAX
from builder_host.layouts import dense_layout
from builder_host.network.layers.deconvolution import DeconvolutionParams
from builder_host.network.layers.fully_connected import FullyConnectedParams
from builder_host.network.layers.lrn import LrnParams
from builder_host.network.layers.matrix_multiply import MatrixMultiplyParams
from builder_host.network.layers.pooling import PoolingParams, pooled_extent
from builder_host.network.layers.softmax import SoftmaxParams
from builder_host.network.network import Epilogue
from builder_host.network.tensor_type import TensorType
from builder_host.targets.target import CpuTarget
from planformat.datatypes import TensorFormat

Case = tuple[Any, Problem, list[np.ndarray], float]


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def pool(c, extent, window, stride, pad=0, mode="max", rounding="ceil"):
    def make(target: CpuTarget) -> Case:
        out = pooled_extent(extent, window, stride, pad, pad, 1, rounding)
        params = PoolingParams(
            mode, (window,) * 2, (stride,) * 2, (pad,) * 2, (pad,) * 2, (out,) * 2, (1, 1), False
        )
        x = dense_layout(TensorType((1, c, extent, extent)), target.blocked_format)
        y = dense_layout(TensorType((1, c, out, out)), target.blocked_format)
        problem = Problem("pooling", params, (x,), (False,), (y,))
        return POOLING, problem, [random(*x.shape)], 0.0

    return make


def fully_connected(batch, shape, columns, blocked=False):
    def make(target: CpuTarget) -> Case:
        fmt = target.blocked_format if blocked else TensorFormat.LINEAR
        x = dense_layout(TensorType((batch, *shape)), fmt)
        depth = int(np.prod(shape))
        w, b = dense_layout(TensorType((columns, depth))), dense_layout(TensorType((1, columns)))
        y = dense_layout(TensorType((batch, columns)))
        epilogue = Epilogue(relu(Binary("add", Input(0), Input(1))), 1)
        constant = (False, True, True)
        problem = Problem(
            "fully_connected", FullyConnectedParams(), (x, w, b), constant, (y,), epilogue
        )
        inputs = [random(*x.shape), random(columns, depth), random(1, columns)]
        return GEMM, problem, inputs, 2.0 * batch * depth * columns

    return make


def matmul(m, k, n, constant=True):
    def make(_: CpuTarget) -> Case:
        a, b, y = (dense_layout(TensorType(s)) for s in ((m, k), (k, n), (m, n)))
        problem = Problem(
            "matrix_multiply", MatrixMultiplyParams(), (a, b), (False, constant), (y,)
        )
        return GEMM, problem, [random(m, k), random(k, n)], 2.0 * m * k * n

    return make


def deconvolve(c, k, extent, kernel, stride, pad, groups=1):
    def make(target: CpuTarget) -> Case:
        out = (extent - 1) * stride + kernel - 2 * pad
        params = DeconvolutionParams((stride,) * 2, (pad,) * 2, (pad,) * 2, (1, 1), (0, 0), groups)
        x = dense_layout(TensorType((1, c, extent, extent)), target.blocked_format)
        w = dense_layout(TensorType((c, k // groups, kernel, kernel)))
        y = dense_layout(TensorType((1, k, out, out)), target.blocked_format)
        problem = Problem("deconvolution", params, (x, w), (False, True), (y,))
        flops = 2.0 * extent * extent * c * k // groups * kernel * kernel
        return DECONVOLUTION, problem, [random(*x.shape), random(*w.shape)], flops

    return make


def softmax(shape, axis, blocked=False):
    def make(target: CpuTarget) -> Case:
        fmt = target.blocked_format if blocked else TensorFormat.LINEAR
        x = dense_layout(TensorType(shape), fmt)
        problem = Problem("softmax", SoftmaxParams(axis), (x,), (False,), (x,))
        return SOFTMAX, problem, [random(*shape)], 0.0

    return make


def lrn(shape, blocked=True):
    def make(target: CpuTarget) -> Case:
        fmt = target.blocked_format if blocked else TensorFormat.LINEAR
        x = dense_layout(TensorType(shape), fmt)
        problem = Problem("lrn", LrnParams(5, 1e-4, 0.75, 1.0), (x,), (False,), (x,))
        return LRN, problem, [random(*shape)], 0.0

    return make


CASES: dict[str, Callable[[CpuTarget], Case]] = {
    "pool SqueezeNet 64x113 3x3s2": pool(64, 113, 3, 2, rounding="floor"),
    "pool SqueezeNet 128x56 3x3s2": pool(128, 56, 3, 2),
    "pool SqueezeNet 256x28 3x3s2": pool(256, 28, 3, 2),
    "pool GoogLeNet 192x56 3x3s2": pool(192, 56, 3, 2),
    "pool GoogLeNet 256x28 3x3s1": pool(256, 28, 3, 1, 1),
    "pool GoogLeNet 512x14 3x3s1": pool(512, 14, 3, 1, 1),
    "pool VGG 64x224 2x2s2": pool(64, 224, 2, 2),
    "pool ResNet 2048x7 global avg": pool(2048, 7, 7, 1, mode="average"),
    "pool SqueezeNet 1000x14 global avg": pool(1000, 14, 14, 1, mode="average"),
    "fc VGG fc6 25088x4096": fully_connected(1, (512, 7, 7), 4096, blocked=True),
    "fc VGG fc7 4096x4096": fully_connected(1, (4096,), 4096),
    "fc ResNet 2048x1000": fully_connected(1, (2048, 1, 1), 1000, blocked=True),
    "fc MobileNet 1280x1000": fully_connected(1, (1280, 1, 1), 1000, blocked=True),
    "fc VGG fc7 batch 4": fully_connected(4, (4096,), 4096),
    "fc VGG fc7 batch 16": fully_connected(16, (4096,), 4096),
    "fc VGG fc7 batch 64": fully_connected(64, (4096,), 4096),
    "matmul 512x512x512 packed": matmul(512, 512, 512),
    "matmul 512x512x512 dynamic": matmul(512, 512, 512, constant=False),
    "matmul 128x768x3072 packed": matmul(128, 768, 3072),
    "deconv 256->128 14 2x2s2": deconvolve(256, 128, 14, 2, 2, 0),
    "deconv 256->128 28 2x2s2": deconvolve(256, 128, 28, 2, 2, 0),
    "deconv 128->64 28 3x3s2": deconvolve(128, 64, 28, 3, 2, 1),
    "deconv 256->128 16 4x4s2": deconvolve(256, 128, 16, 4, 2, 1),
    "deconv 128->64 32 4x4s2": deconvolve(128, 64, 32, 4, 2, 1),
    "deconv FCN 21 34 16x16s8 depthwise": deconvolve(21, 21, 34, 16, 8, 4, 21),
    "softmax 1x1000": softmax((1, 1000), 1),
    "softmax SSD 8732x21": softmax((1, 8732, 21), 2),
    "softmax FCN 21x128x128": softmax((1, 21, 128, 128), 1),
    "softmax FCN 21x128x128 blocked": softmax((1, 21, 128, 128), 1, blocked=True),
    "lrn GoogLeNet 64x56": lrn((1, 64, 56, 56)),
    "lrn GoogLeNet 192x56": lrn((1, 192, 56, 56)),
    "lrn AlexNet 96x55": lrn((1, 96, 55, 55)),
    "lrn GoogLeNet 192x56 linear": lrn((1, 192, 56, 56), blocked=False),
}


def measure(calls: dict[str, Callable[[], None]], seconds: float) -> dict[str, list[float]]:
    """Times in seconds of each call, interleaved, the first of each dropped."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or len(next(iter(times.values()))) < 6:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in times.items()}


def caller(kernel: Kernel) -> Callable[[], None]:
    launch = kernel.program.launches[0]
    kernel.call(launch, 0, launch.num_units)
    function = getattr(kernel.library, launch.symbol)
    scratch = np.zeros(launch.scratch_bytes_per_worker + 64, np.uint8)
    address = scratch.ctypes.data + -scratch.ctypes.data % 64
    return lambda: function(kernel.arguments, 0, launch.num_units, address) or scratch[:0].any()


READ = """
#include "ep_vector.h"
EP_EXPORT float read_all(const float *p, int64_t n) {
    vf s[8];
    EP_UNROLL
    for (int k = 0; k < 8; ++k) s[k] = ep_splat(0.0f);
    for (int64_t i = 0; i < n; i += 8 * EP_VL) {
        EP_UNROLL
        for (int k = 0; k < 8; ++k) s[k] = s[k] + ep_load(p + i + k * EP_VL);
    }
    return ep_sum(((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7])));
}
"""


def plain_read(num_bytes: int, target: CpuTarget) -> Callable[[], None]:
    """Reads as many bytes once, as fast as plain loads can: what a weight stream is held to."""
    library = ctypes.CDLL(str(compile_source(READ, target)))
    library.read_all.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    values = np.ones(-(-num_bytes // 512) * 128, np.float32)
    return lambda: library.read_all(values.ctypes.data, values.size) or values[:0].any()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--isa", choices=("avx512", "avx2"), default="avx512")
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--json", action="store_true", help="print rows as JSON lines")
    parser.add_argument("names", nargs="*", help="only cases that contain one of these texts")
    options = parser.parse_args()
    target = {"avx512": AVX512, "avx2": AVX2}[options.isa]
    print(f"{'case':36s} {'tactic':70s} {'min us':>9s} {'med us':>9s} {'GB/s':>6s} {'GF/s':>6s}")
    for name, make in CASES.items():
        if options.names and not any(text in name for text in options.names):
            continue
        family, problem, inputs, flops = make(target)
        calls = {
            tactic.text: caller(Kernel(family, problem, tactic, target, inputs))
            for tactic in family.tactics(problem, target)
        }
        size = sum(layout.stored_bytes for layout in (*problem.inputs, *problem.outputs))
        if name.startswith("fc"):
            calls["plain read of as many bytes"] = plain_read(size, target)
        for text, values in measure(calls, options.seconds).items():
            best, median = min(values), float(np.median(values))
            gbps, gflops = size / best / 1e9, flops / best / 1e9
            if options.json:
                row = {"case": name, "tactic": text, "min_us": best * 1e6}
                row |= {"median_us": median * 1e6, "gbps": gbps, "gflops": gflops}
                print(json.dumps(row))
            else:
                times_us = f"{best * 1e6:9.1f} {median * 1e6:9.1f}"
                print(f"{name:36s} {text:70s} {times_us} {gbps:6.1f} {gflops:6.1f}")


if __name__ == "__main__":
    main()
