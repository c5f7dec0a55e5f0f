"""Rates of the convolution kernels on all layers of six networks, per tactic and per network.

One thread, called through ctypes in this process, batch 1, 224x224, weights and images as warm as
the caches keep them. The tactics of a layer are timed interleaved; times are minima. `GF/s` counts
the operations of the plain convolution, also for Winograd; `%` is the share of the multiply-add
peak measured at the start.

    PYTHONPATH=.:tests python benchmarks/bench_conv_kernels.py [--isa avx2] [--most 4] [vgg16 ...]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from support.convolutions import RELU, Case, inputs_of, problem_of
from support.cpu_kernels import AVX2, AVX512, Kernel, aligned, compile_source

from benchmarks.topologies import TOPOLOGIES
from builder_host.kernels.conv_depthwise.family import FAMILY as DEPTHWISE
from builder_host.kernels.conv_direct.family import FAMILY as DIRECT
from builder_host.kernels.conv_first.family import FAMILY as FIRST
from builder_host.kernels.conv_winograd.family import FAMILY as WINOGRAD
from builder_host.targets.target import CpuTarget

FAMILIES = (FIRST, DEPTHWISE, DIRECT, WINOGRAD)
PEAK = """
#include "ep_vector.h"
EP_EXPORT float peak(int64_t n, const float *p) {
    vf s[12], a = ep_load(p), b = ep_load(p + EP_VL);
    EP_UNROLL
    for (int k = 0; k < 12; ++k) s[k] = ep_load(p + k);
    for (int64_t i = 0; i < n; ++i) {
        EP_UNROLL
        for (int k = 0; k < 12; ++k) s[k] = ep_fma(s[k], a, b);
    }
    EP_UNROLL
    for (int k = 1; k < 12; ++k) s[0] = s[0] + s[k];
    return ep_sum(s[0]);
}
"""


@dataclass
class Row:
    """One layer shape with its count per network, and the best time per family in seconds."""

    case: Case
    counts: dict[str, int] = field(default_factory=dict)
    best: dict[str, tuple[float, str]] = field(default_factory=dict)


def layers_of(names: list[str]) -> dict[str, Row]:
    """Distinct convolutions of the networks, in order of appearance."""
    rows: dict[str, Row] = {}
    for network in names:
        model = onnx.shape_inference.infer_shapes(TOPOLOGIES[network]())
        shapes = {
            value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
            for value in (*model.graph.value_info, *model.graph.input)
        }
        shapes |= {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type != "Conv":
                continue
            values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            (_, channels, height, width), weights = shapes[node.input[0]], shapes[node.input[1]]
            case = Case(
                channels,
                weights[0],
                height,
                width,
                (weights[2], weights[3]),
                tuple(values.get("strides", (1, 1))),
                tuple(values.get("pads", (0, 0, 0, 0))),
                groups=values.get("group", 1),
                linear=channels <= 4,
                expr=RELU,
            )
            row = rows.setdefault(str(case), Row(case))
            row.counts[network] = row.counts.get(network, 0) + 1
    return rows


def flops_of(case: Case) -> float:
    """Operations of the plain convolution, padding included."""
    problem = problem_of(case, AVX2)
    _, _, height, width = problem.outputs[0].shape
    taps = case.kernel[0] * case.kernel[1] * case.channels // case.groups
    return 2.0 * height * width * case.filters * taps


def caller(kernel: Kernel) -> Callable[[], None]:
    """All launches of a kernel, one after the other."""
    calls = []
    for launch in kernel.program.launches:
        function = getattr(kernel.library, launch.symbol)
        function.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
        calls.append((function, launch.num_units, aligned(launch.scratch_bytes_per_worker // 4)))

    def call() -> None:
        for function, units, scratch in calls:
            function(kernel.arguments, 0, units, scratch.ctypes.data)

    return call


def measure(calls: list[Callable[[], None]], seconds: float) -> list[float]:
    """Minimum seconds of each call; interleaved, the first of each block dropped."""
    best = [float("inf")] * len(calls)
    begin, rounds = time.perf_counter(), 0
    while rounds < 3 or time.perf_counter() - begin < seconds:
        for index, call in enumerate(calls):
            call()
            for _ in range(3):
                start = time.perf_counter()
                call()
                best[index] = min(best[index], time.perf_counter() - start)
        rounds += 1
    return best


def peak_gflops(target: CpuTarget) -> float:
    """Multiply-add peak of one core with twelve independent chains."""
    function = ctypes.CDLL(str(compile_source(PEAK, target))).peak
    function.argtypes, function.restype = [ctypes.c_int64, ctypes.c_void_p], ctypes.c_float
    values = np.full(64, 0.5, np.float32)
    steps = 1 << 20
    seconds = measure([lambda: function(steps, values.ctypes.data)], 0.2)[0]
    return 24.0 * target.vector_elems * steps / seconds / 1e9


def run_row(row: Row, target: CpuTarget, options: argparse.Namespace, peak: float) -> None:
    """Time the tactics of all families that apply; print one line per family or per tactic."""
    problem, flops = problem_of(row.case, target), flops_of(row.case)
    inputs = inputs_of(problem)
    tactics = [
        (family, tactic)
        for family in FAMILIES
        if family.applies(problem, target)
        for tactic in list(family.tactics(problem, target))[: options.most]
    ]
    kernels = [Kernel(family, problem, tactic, target, inputs) for family, tactic in tactics]
    times = measure([caller(kernel) for kernel in kernels], options.seconds)
    for (family, tactic), seconds in zip(tactics, times, strict=True):
        if seconds < row.best.get(family.name, (float("inf"), ""))[0]:
            row.best[family.name] = (seconds, tactic.text)
    shown = (
        [(tactic.text, seconds) for (_, tactic), seconds in zip(tactics, times, strict=True)]
        if options.all
        else [(text, seconds) for seconds, text in row.best.values()]
    )
    for text, seconds in shown:
        rate = flops / seconds / 1e9
        if options.json:
            entry = {"layer": str(row.case), "tactic": text, "us": seconds * 1e6, "gflops": rate}
            print(json.dumps(entry | {"counts": row.counts}), flush=True)
        else:
            line = f"{row.case!s:44s} {seconds * 1e6:9.1f} {rate:6.1f} {100 * rate / peak:4.0f} "
            print(line + text, flush=True)


def main() -> None:
    """Print the table, then for each network the sum of its best layers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--isa", choices=("avx512", "avx2"), default="avx512")
    parser.add_argument("--most", type=int, default=12, help="tactics per family and layer")
    parser.add_argument("--seconds", type=float, default=0.1, help="measuring time per layer")
    parser.add_argument("--all", action="store_true", help="print every tactic, not the best")
    parser.add_argument("--json", action="store_true", help="print rows as JSON lines")
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(TOPOLOGIES)}")
    options = parser.parse_args()
    target = {"avx512": AVX512, "avx2": AVX2}[options.isa]
    peak = peak_gflops(target)
    names = options.networks or list(TOPOLOGIES)
    rows = layers_of(names)
    if not options.json:
        print(f"multiply-add peak {peak:.1f} GFLOP/s, {options.isa}")
        print(f"{'layer':44s} {'us':>9s} {'GF/s':>6s} {'%':>4s} best tactic of each family")
    for row in rows.values():
        run_row(row, target, options, peak)
    for network in names:
        mine = [(row, row.counts[network]) for row in rows.values() if network in row.counts]
        flops = sum(flops_of(row.case) * count for row, count in mine)
        best = sum(min(row.best.values())[0] * count for row, count in mine)
        direct = sum(
            min(t for name, (t, _) in row.best.items() if name != WINOGRAD.name) * count
            for row, count in mine
        )
        entry = {"network": network, "gflop": flops / 1e9, "best_ms": best * 1e3}
        entry["direct_ms"] = direct * 1e3
        if options.json:
            print(json.dumps(entry))
        else:
            print(
                f"{network:18s} {flops / 1e9:7.2f} GFLOP  best {best * 1e3:8.3f} ms "
                f"({flops / best / 1e9:5.0f} GF/s)  without Winograd {direct * 1e3:8.3f} ms"
            )


if __name__ == "__main__":
    main()
