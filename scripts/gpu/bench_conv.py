"""Checks and times the CUDA convolution families on a real GPU, layer by layer.

    python scripts/gpu/bench_conv.py compile FOLDER [SET]   # anywhere: cubins for the target
    python scripts/gpu/bench_conv.py run FOLDER [SET]       # on the GPU: pycuda, numpy, PyTorch

Every tactic is first compared with PyTorch in float64, then timed in graphs of 20 runs behind each
other, with programmatic dependent launch, operands in L2. PyTorch's half-precision channels-last
convolution (without the epilogue) is timed in a graph beside them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from builder_host.expressions import Binary, Const, Expr, Input
from builder_host.kernels.cuda_conv_depthwise.family import FAMILY as DEPTHWISE
from builder_host.kernels.cuda_conv_first.family import FAMILY as FIRST
from builder_host.kernels.cuda_conv_igemm.family import FAMILY as IGEMM
from builder_host.kernels.cuda_conv_simt.family import FAMILY as SIMT
from builder_host.kernels.family import GridLaunch, Problem
from builder_host.layouts import Layout, dense_layout
from builder_host.network.layers.convolution import DEFINITION, ConvolutionParams
from builder_host.network.network import Epilogue
from builder_host.network.tensor_type import TensorType
from builder_host.targets.cuda import CudaTarget, cuda_target
from planformat.datatypes import DataType, TensorFormat
from planformat.fingerprint import DeviceFingerprint

F16, F32 = DataType.FLOAT16, DataType.FLOAT32
NHWC, LINEAR = TensorFormat.NHWC, TensorFormat.LINEAR
NUMPY = {F16: np.float16, F32: np.float32}
FAMILIES = (IGEMM, FIRST, DEPTHWISE, SIMT)


@dataclass(frozen=True)
class Case:
    """A layer with bias and ReLU, and how often its network has it."""

    name: str
    count: int
    channels: int
    filters: int
    size: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    residual: bool = False
    batch: int = 1
    dtype: DataType = F16
    linear: bool = False

    @property
    def params(self) -> ConvolutionParams:
        """Same padding."""
        pad = (self.kernel // 2,) * 2
        return ConvolutionParams((self.stride,) * 2, pad, pad, (1, 1), self.groups)

    @property
    def problem(self) -> Problem:
        """In NHWC, x row-major where the case says so."""
        x = TensorType((self.batch, self.channels, self.size, self.size), self.dtype)
        w = TensorType(
            (self.filters, self.channels // self.groups, self.kernel, self.kernel), self.dtype
        )
        b = TensorType((self.filters,), self.dtype)
        y = dense_layout(DEFINITION.infer(self.params, [x, w, b])[0], NHWC)
        inputs = [dense_layout(x, LINEAR if self.linear else NHWC), dense_layout(w)]
        inputs.append(dense_layout(b))
        constant = [False, True, True]
        expr: Expr = Input(0)
        if self.residual:
            inputs.append(y)
            constant.append(False)
            expr = Binary("add", expr, Input(1))
        expr = Binary("max", expr, Const(0.0))
        epilogue = Epilogue(expr, int(self.residual))
        return Problem("convolution", self.params, tuple(inputs), tuple(constant), (y,), epilogue)


def resnet50(batch: int = 1, dtype: DataType = F16) -> list[Case]:
    """Layers of ResNet-50 v1.5 at 224 x 224."""
    found = [Case("stem", 1, 3, 64, 224, 7, 2, linear=True)]
    wide, size = 64, 56
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = 64 << stage
        stride = 1 if stage == 0 else 2
        found += [
            Case(f"r{stage}.down", 1, wide, 4 * inner, size, 1, stride),
            Case(f"r{stage}.first", 1, wide, inner, size),
            Case(f"r{stage}.mid0", 1, inner, inner, size, 3, stride),
        ]
        size //= stride
        wide = 4 * inner
        found += [
            Case(f"r{stage}.reduce", blocks - 1, wide, inner, size),
            Case(f"r{stage}.mid", blocks - 1, inner, inner, size, 3),
            Case(f"r{stage}.expand", blocks, inner, wide, size, residual=True),
        ]
    return [replace(case, batch=batch, dtype=dtype) for case in found]


def mobilenet_v2() -> list[Case]:
    """Depthwise and some pointwise layers of MobileNet-v2."""
    found = [Case("m.stem", 1, 3, 32, 224, 3, 2, linear=True)]
    for channels, size, stride in (
        (32, 112, 1), (96, 112, 2), (144, 56, 1), (144, 56, 2), (192, 28, 1), (192, 28, 2),
        (384, 14, 1), (576, 14, 1), (576, 14, 2), (960, 7, 1),
    ):  # fmt: skip
        found.append(Case(f"m.dw{channels}", 1, channels, channels, size, 3, stride, channels))
    for channels, filters, size in (
        (16, 96, 112), (24, 144, 56), (144, 24, 56), (32, 192, 28), (192, 32, 28),
        (64, 384, 14), (384, 64, 14), (96, 576, 14), (160, 960, 7), (960, 320, 7), (320, 1280, 7),
    ):  # fmt: skip
        found.append(Case(f"m.pw{channels}-{filters}", 1, channels, filters, size))
    return found


def vgg16() -> list[Case]:
    """Convolutions of VGG-16."""
    return [
        Case("v1", 1, 3, 64, 224, 3, linear=True),
        Case("v2", 1, 64, 64, 224, 3),
        Case("v3", 1, 64, 128, 112, 3),
        Case("v4", 1, 128, 128, 112, 3),
        Case("v5", 1, 128, 256, 56, 3),
        Case("v6", 2, 256, 256, 56, 3),
        Case("v7", 1, 256, 512, 28, 3),
        Case("v8", 2, 512, 512, 28, 3),
        Case("v9", 3, 512, 512, 14, 3),
    ]


def squeezenet() -> list[Case]:
    """Convolutions of SqueezeNet 1.1."""
    found = [Case("s.stem", 1, 3, 64, 224, 3, 2, linear=True)]
    for squeeze, wide, size in ((16, 64, 56), (32, 128, 28), (48, 192, 14), (64, 256, 14)):
        found += [
            Case(f"s.squeeze{squeeze}", 2, 2 * wide, squeeze, size),
            Case(f"s.expand1-{wide}", 2, squeeze, wide, size),
            Case(f"s.expand3-{wide}", 2, squeeze, wide, size, 3),
        ]
    return [*found, Case("s.last", 1, 512, 1000, 14)]


SETS = {
    "resnet50": resnet50,
    "resnet50b32": lambda: resnet50(32),
    "resnet50f32": lambda: resnet50(1, F32),
    "mobilenet": mobilenet_v2,
    "vgg16": vgg16,
    "squeezenet": squeezenet,
}


def target() -> CudaTarget:
    """An H200 under a driver of CUDA 13.0."""
    fields = {
        "compute_capability": "9.0", "cuda_version": "13.0", "num_sms": "132",
        "core_clock_hz": "1980000000", "l2_bytes": "62914560",
    }  # fmt: skip
    prints = DeviceFingerprint("cuda", {f"cuda.{k}": v for k, v in fields.items()})
    return cuda_target(prints, {"memory_gbps": 4800.0})


def programs(problem: Problem, gpu: CudaTarget) -> list[tuple[Any, Any, Any]]:
    """Family, tactic and program of all tactics; plain kernels only where nothing else applies."""
    found = []
    for family in FAMILIES:
        if (family is SIMT and found) or not family.applies(problem, gpu):
            continue
        for tactic in family.tactics(problem, gpu):
            found.append((family, tactic, family.generate(problem, tactic, gpu)))
    return found


def cubin_path(folder: Path, source: str) -> Path:
    """Where the code of a source lies."""
    return folder / f"{hashlib.sha256(source.encode()).hexdigest()[:24]}.cubin"


def compile_cases(folder: Path, cases: list[Case], jobs: int) -> None:
    """Compile all tactics of all cases into a folder, and say which kernels spill."""
    from builder_host.codegen.artifacts import ArtifactStore
    from builder_host.codegen.toolchain_cuda import CompiledCubin, CudaToolchain

    folder.mkdir(parents=True, exist_ok=True)
    gpu = target()
    sources = [p.source for case in cases for _, _, p in programs(case.problem, gpu)]
    missing = [source for source in sources if not cubin_path(folder, source).exists()]
    store = ArtifactStore(folder.parent / f"{folder.name}-store")
    toolchain = CudaToolchain(gpu, store=store, jobs=jobs)
    for source, result in zip(missing, toolchain.compile_objects(missing), strict=True):
        if not isinstance(result, CompiledCubin):
            raise SystemExit(f"{result}\n{source}")
        for kernel in result.kernels:
            if kernel.spill_store_bytes:
                print(f"{kernel.name} spills {kernel.spill_store_bytes} bytes")
        cubin_path(folder, source).write_bytes(result.code)
    print(f"{len(sources)} sources, {len(missing)} compiled for sm_{gpu.sm}")


def stored(values: np.ndarray[Any, Any], place: Layout) -> np.ndarray[Any, Any]:
    """Values as they lie in memory."""
    if place.format is NHWC:
        values = values.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(values)


def run_cases(folder: Path, cases: list[Case]) -> None:
    """Check and time; prints a table and JSON."""
    import torch

    from runtime_edge.device.cuda import CudaDevice
    from runtime_edge.device.cuda_timing import CudaModule, CudaTimer, TimedCudaLaunch

    torch.cuda.init()
    torch.backends.cudnn.benchmark = True
    device, gpu = CudaDevice(0), target()
    rows, total, rival_total, has_error = [], 0.0, 0.0, False
    for case in cases:
        problem = case.problem
        rng = np.random.default_rng(5)
        values = [rng.normal(0, 1, i.shape) for i in problem.inputs]
        values[1] /= np.sqrt(np.prod(values[1].shape[1:]))
        arrays = [v.astype(NUMPY[i.dtype]) for v, i in zip(values, problem.inputs, strict=True)]
        exact = [torch.from_numpy(a).cuda().double() for a in arrays]
        options = (case.stride, case.kernel // 2, 1, case.groups)
        want = torch.nn.functional.conv2d(exact[0], exact[1], exact[2], *options)
        if case.residual:
            want = want + exact[3]
        want = torch.relu(want)
        scale = max(float(want.abs().max()), 1.0)
        terms = int(np.prod(arrays[1].shape[1:])) + 1
        limit = 4 * 2.0**-23 * terms**0.5 + (2.0**-11 if case.dtype is F16 else 0.0)
        out = problem.outputs[0]
        live = {
            i: torch.from_numpy(stored(a, problem.inputs[i])).cuda()
            for i, a in enumerate(arrays)
            if not problem.is_constant[i]
        }
        times = []
        for family, tactic, program in programs(problem, gpu):
            known = [a if c else None for a, c in zip(arrays, problem.is_constant, strict=True)]
            packed = family.pack(problem, tactic, gpu, known)
            memory = [
                live[i] if p is None else torch.from_numpy(p).cuda() for i, p in enumerate(packed)
            ]
            n, c, h, w = out.shape
            y = torch.full((n, h, w, c), float("nan"), device="cuda").to(live[0].dtype)
            memory.append(y)
            if program.workspace_bytes:
                memory.append(torch.empty(program.workspace_bytes, dtype=torch.uint8).cuda())
            torch.cuda.synchronize()
            code = cubin_path(folder, program.source).read_bytes()
            module = CudaModule(device, code)
            launches = [
                TimedCudaLaunch(
                    module.function(one.symbol), tuple(m.data_ptr() for m in memory), one.grid,
                    one.block, one.cluster, one.shared_memory_bytes, one.is_dependent,
                )
                for one in program.launches
                if isinstance(one, GridLaunch)
            ]  # fmt: skip
            timer = CudaTimer(module, launches)
            timer.run()
            error = float((y.double().permute(0, 3, 1, 2) - want).abs().max()) / scale / limit
            if not error <= 1:
                has_error = True
                print(f"WRONG {case.name} {tactic.text} {error:.3g} of the limit")
            times.append((statistics.median(timer.measure(15)), tactic.text))
            timer.close()
        first = times[0][1]
        ranked = sorted(times)
        rival = _rival_us(torch, arrays, options)
        total += ranked[0][0] * case.count
        rival_total += rival * case.count
        gflop = 2e-9 * want.numel() * (terms - 1)
        first_us = next(t for t, text in times if text == first)
        rate = gflop / ranked[0][0] * 1e3
        print(
            f"{case.name:12} x{case.count} {ranked[0][0]:8.2f} us (first {first_us:7.2f})  "
            f"{rate:6.1f} TFLOP/s  cuDNN {rival:7.2f}  {ranked[0][1]}",
            flush=True,
        )
        rows.append({"case": case.name, "count": case.count, "rival_us": rival, "times": times})
    print(f"sum over the network {total:.1f} us, cuDNN {rival_total:.1f} us")
    out_folder = Path(os.environ.get("OUT", "."))
    (out_folder / f"conv_{cases[0].name}.json").write_text(json.dumps(rows))
    if has_error:
        raise SystemExit("a result is wrong")


def _rival_us(torch: Any, arrays: list[np.ndarray[Any, Any]], options: Any) -> float:
    """PyTorch's time for convolution and bias in a graph of 20 runs."""
    x, w, b = (torch.from_numpy(a).cuda() for a in arrays[:3])
    x = x.to(memory_format=torch.channels_last)
    w = w.to(memory_format=torch.channels_last)
    stream = torch.cuda.Stream()
    with torch.no_grad(), torch.cuda.stream(stream):
        for _ in range(3):
            torch.nn.functional.conv2d(x, w, b, *options)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(20):
                torch.nn.functional.conv2d(x, w, b, *options)
        times = []
        for _ in range(15):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record(stream)
            graph.replay()
            end.record(stream)
            end.synchronize()
            times.append(start.elapsed_time(end) * 1e3 / 20)
    return round(statistics.median(times), 3)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("compile", "run"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("sets", nargs="*", default=["resnet50"], help=", ".join(SETS))
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    for name in arguments.sets:
        print(name)
        if arguments.action == "compile":
            compile_cases(arguments.folder, SETS[name](), arguments.jobs)
        else:
            run_cases(arguments.folder, SETS[name]())


if __name__ == "__main__":
    main()
