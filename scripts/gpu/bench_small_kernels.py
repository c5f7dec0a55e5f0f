"""Checks and times the small CUDA families (loop nests, pooling, products) on a real GPU.

    python scripts/gpu/bench_small_kernels.py compile FOLDER      # anywhere: cubins for the target
    python scripts/gpu/bench_small_kernels.py run FOLDER          # on the GPU: needs pycuda, numpy

Every tactic is first compared with the float64 reference, then timed in graphs of 20 runs, with
programmatic dependent launch where the target has it, operands in L2 as far as they fit. With
PyTorch at hand its own kernels for the same layer are timed in a graph beside them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from builder_host.kernels.cuda_gemm.family import FAMILY as GEMM
from builder_host.kernels.cuda_loop_nest.family import FAMILY as NEST
from builder_host.kernels.cuda_lrn.family import FAMILY as LRN
from builder_host.kernels.cuda_pooling.family import FAMILY as POOLING
from builder_host.kernels.cuda_softmax.family import FAMILY as SOFTMAX
from builder_host.kernels.cuda_top_k.family import FAMILY as TOP_K
from builder_host.kernels.family import GridLaunch, Problem
from builder_host.layouts import Layout, dense_layout
from builder_host.network.layers import definition
from builder_host.network.layers.arg_reduce import ArgReduceParams
from builder_host.network.layers.cast import CastParams
from builder_host.network.layers.elementwise import ElementwiseParams
from builder_host.network.layers.fully_connected import FullyConnectedParams
from builder_host.network.layers.lrn import LrnParams
from builder_host.network.layers.pooling import PoolingParams
from builder_host.network.layers.reduce import ReduceParams
from builder_host.network.layers.reformat import ReformatParams
from builder_host.network.layers.resize import ResizeParams
from builder_host.network.layers.softmax import SoftmaxParams
from builder_host.network.layers.top_k import TopKParams
from builder_host.network.tensor_type import TensorType
from builder_host.targets.cuda import CudaTarget, cuda_target
from planformat.datatypes import DataType, TensorFormat
from planformat.fingerprint import DeviceFingerprint

F32, F16 = DataType.FLOAT32, DataType.FLOAT16
LINEAR, NHWC = TensorFormat.LINEAR, TensorFormat.NHWC
NUMPY = {F32: np.float32, F16: np.float16, DataType.INT64: np.int64}


@dataclass(frozen=True)
class Case:
    """A layer; `terms` bounds the additions per output; `rival` names PyTorch's function."""

    name: str
    family: Any
    problem: Problem
    terms: int = 4
    rival: Callable[[Any, list[Any]], Any] | None = None


def target() -> CudaTarget:
    """An H200 with a driver that takes CUDA 12.6."""
    fields = {"compute_capability": "9.0", "cuda_version": "12.6", "num_sms": "132"}
    return cuda_target(DeviceFingerprint("cuda", {f"cuda.{k}": v for k, v in fields.items()}))


def layout(shape: tuple[int, ...], fmt: TensorFormat, dtype: DataType) -> Layout:
    """A dense layout."""
    return dense_layout(TensorType(shape, dtype), fmt)


def case(
    name: str,
    family: Any,
    kind: str,
    params: Any,
    inputs: list[Layout],
    output: Layout | list[Layout],
    *,
    constant: tuple[int, ...] = (),
    **options: Any,
) -> Case:
    """A case of one layer."""
    flags = tuple(i in constant for i in range(len(inputs)))
    outputs = output if isinstance(output, list) else [output]
    problem = Problem(kind, params, tuple(inputs), flags, tuple(outputs))
    return Case(name, family, problem, **options)


def fully_connected(rows: int, depth: int, columns: int, dtype: DataType) -> Case:
    """A layer with bias."""
    inputs = [layout((rows, depth), LINEAR, dtype), layout((columns, depth), LINEAR, dtype)]
    inputs.append(layout((columns,), LINEAR, dtype))
    return case(
        f"fc {rows}x{depth}->{columns} {dtype.text}", GEMM, "fully_connected",
        FullyConnectedParams(), inputs, layout((rows, columns), LINEAR, dtype), constant=(1, 2),
        terms=depth, rival=lambda torch, v: torch.nn.functional.linear(*v),
    )  # fmt: skip


def cases() -> list[Case]:
    """Layers of common image networks at batch 1, and products of a few rows."""
    found = [
        fully_connected(1, 2048, 1000, F16),
        fully_connected(1, 1024, 1000, F16),
        fully_connected(1, 4096, 4096, F16),
        fully_connected(1, 9216, 4096, F16),
        fully_connected(1, 2048, 1000, F32),
        fully_connected(4, 2048, 1000, F16),
        fully_connected(8, 2048, 1000, F16),
        fully_connected(32, 2048, 1000, F16),
        fully_connected(64, 2048, 1000, F16),
        fully_connected(8, 9216, 4096, F16),
    ]
    max_pool = PoolingParams("max", (3, 3), (2, 2), (1, 1), (1, 1), (56, 56), (1, 1), False)
    found.append(
        case(
            "max 3x3/2 64x112x112", POOLING, "pooling", max_pool,
            [layout((1, 64, 112, 112), NHWC, F16)], layout((1, 64, 56, 56), NHWC, F16),
            rival=lambda torch, v: torch.nn.functional.max_pool2d(
                v[0].to(memory_format=torch.channels_last), 3, 2, 1
            ),
        )
    )  # fmt: skip
    same = PoolingParams("max", (3, 3), (1, 1), (1, 1), (1, 1), (28, 28), (1, 1), False)
    found.append(
        case("max 3x3/1 256x28x28", POOLING, "pooling", same,
             [layout((1, 256, 28, 28), NHWC, F16)], layout((1, 256, 28, 28), NHWC, F16))
    )  # fmt: skip
    for channels in (1024, 2048):
        every = PoolingParams("average", (7, 7), (1, 1), (0, 0), (0, 0), (1, 1), (1, 1), False)
        found.append(
            case(f"global average {channels}x7x7", POOLING, "pooling", every,
                 [layout((1, channels, 7, 7), NHWC, F16)], layout((1, channels, 1, 1), NHWC, F16),
                 terms=49)
        )  # fmt: skip
    image, deep = (1, 3, 224, 224), (1, 256, 56, 56)
    moves = [(image, LINEAR, NHWC, F32), (deep, LINEAR, NHWC, F16), (deep, NHWC, LINEAR, F16)]
    moves.append((deep, LINEAR, NHWC, F32))
    for shape, source, to, dtype in moves:
        found.append(
            case(f"reformat {source.name}->{to.name} {shape} {dtype.text}", NEST, "reformat",
                 ReformatParams(to), [layout(shape, source, dtype)], layout(shape, to, dtype))
        )  # fmt: skip
    found += [
        case("cast f32->f16 3x224x224", NEST, "cast", CastParams(F16),
             [layout(image, NHWC, F32)], layout(image, NHWC, F16)),
        case("add 256x56x56 f16", NEST, "elementwise", ElementwiseParams("add"),
             [layout(deep, NHWC, F16)] * 2, layout(deep, NHWC, F16),
             rival=lambda torch, v: torch.add(v[0], v[1])),
        case("softmax 1000 f32", SOFTMAX, "softmax", SoftmaxParams(1),
             [layout((1, 1000), LINEAR, F32)], layout((1, 1000), LINEAR, F32), terms=1000,
             rival=lambda torch, v: torch.softmax(v[0], 1)),
        case("softmax 8732x21 f16", SOFTMAX, "softmax", SoftmaxParams(1),
             [layout((8732, 21), LINEAR, F16)], layout((8732, 21), LINEAR, F16), terms=21,
             rival=lambda torch, v: torch.softmax(v[0], 1)),
        case("mean 7x7 of 2048 linear f16", NEST, "reduce", ReduceParams("mean", (2, 3)),
             [layout((1, 2048, 7, 7), LINEAR, F16)], layout((1, 2048, 1, 1), LINEAR, F16),
             terms=49),
        case("resize 64x40x40 -> 80x80 f16", NEST, "resize",
             ResizeParams((1, 64, 80, 80), "linear", "half_pixel", "round_prefer_floor",
                          (1.0, 1.0, 2.0, 2.0)),
             [layout((1, 64, 40, 40), NHWC, F16)], layout((1, 64, 80, 80), NHWC, F16), terms=16),
        case("arg max of 1000", NEST, "arg_reduce", ArgReduceParams("max", 1),
             [layout((1, 1000), LINEAR, F32)], layout((1, 1), LINEAR, DataType.INT64)),
        case("top 5 of 1000", TOP_K, "top_k", TopKParams(5, 1), [layout((1, 1000), LINEAR, F32)],
             [layout((1, 5), LINEAR, F32), layout((1, 5), LINEAR, DataType.INT64)]),
    ]  # fmt: skip
    for shape in ((1, 64, 56, 56), (1, 192, 56, 56), (1, 96, 55, 55)):
        found.append(
            case(f"lrn 5 {shape} f16", LRN, "lrn", LrnParams(5, 1e-4, 0.75, 1.0),
                 [layout(shape, NHWC, F16)], layout(shape, NHWC, F16), terms=8,
                 rival=lambda torch, v: torch.nn.functional.local_response_norm(v[0], 5))
        )  # fmt: skip
    return found


def cubin_path(folder: Path, source: str) -> Path:
    """Where the code of a source lies."""
    return folder / f"{hashlib.sha256(source.encode()).hexdigest()[:24]}.cubin"


def compile_cases(folder: Path) -> None:
    """Compile all tactics of all cases into a folder."""
    from builder_host.codegen.artifacts import ArtifactStore
    from builder_host.codegen.toolchain_cuda import CompiledCubin, CudaToolchain

    folder.mkdir(parents=True, exist_ok=True)
    gpu = target()
    sources = [
        one.family.generate(one.problem, tactic, gpu).source
        for one in cases()
        for tactic in one.family.tactics(one.problem, gpu)
    ]
    toolchain = CudaToolchain(gpu, store=ArtifactStore(folder / "store"), jobs=2)
    for source, result in zip(sources, toolchain.compile_objects(sources), strict=True):
        if not isinstance(result, CompiledCubin):
            raise SystemExit(f"{result}\n{source}")
        cubin_path(folder, source).write_bytes(result.code)
    print(f"{len(sources)} sources compiled for sm_{gpu.sm}")


def stored(values: np.ndarray[Any, Any], place: Layout) -> np.ndarray[Any, Any]:
    """Values as they lie in memory."""
    if place.format is NHWC:
        values = values.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(values.astype(NUMPY[place.dtype]))


def logical(flat: np.ndarray[Any, Any], place: Layout) -> np.ndarray[Any, Any]:
    """Memory as a logical array."""
    if place.format is NHWC:
        n, c, h, w = place.shape
        return flat.reshape(n, h, w, c).transpose(0, 3, 1, 2)
    return flat.reshape(place.shape)


def run_cases(folder: Path, wanted: str) -> None:
    """Check and time; prints a table and JSON."""
    from runtime_edge.device.cuda import CudaDevice
    from runtime_edge.device.cuda_timing import CudaModule, CudaTimer, TimedCudaLaunch

    device, gpu = CudaDevice(0), target()
    rows = []
    for one in cases():
        if wanted not in one.name:
            continue
        problem, family = one.problem, one.family
        rng = np.random.default_rng(5)
        values = [rng.normal(0, 1, i.shape).astype(NUMPY[i.dtype]) for i in problem.inputs]
        expected = definition(problem.kind).reference(
            problem.params, [v.astype(np.float64) for v in values]
        )
        bytes_moved = sum(i.stored_bytes for i in (*problem.inputs, *problem.outputs))
        times = []
        for tactic in family.tactics(problem, gpu):
            program = family.generate(problem, tactic, gpu)
            known = [v if c else None for v, c in zip(values, problem.is_constant, strict=True)]
            packed = family.pack(problem, tactic, gpu, known)
            module = CudaModule(device, cubin_path(folder, program.source).read_bytes())
            with device.context.pycuda("tensors") as cuda:
                memory = [
                    cuda.to_device(p if p is not None else stored(v, i))
                    for p, v, i in zip(packed, values, problem.inputs, strict=True)
                ]
                memory += [cuda.mem_alloc(o.stored_bytes) for o in problem.outputs]
            launches = [
                TimedCudaLaunch(
                    module.function(launch.symbol), tuple(int(m) for m in memory), launch.grid,
                    launch.block, launch.cluster, launch.shared_memory_bytes, launch.is_dependent,
                )
                for launch in program.launches
                if isinstance(launch, GridLaunch)
            ]  # fmt: skip
            timer = CudaTimer(module, launches)
            timer.run()
            worst = 0.0
            for output, want, place in zip(
                problem.outputs, expected, memory[len(values) :], strict=True
            ):
                flat = np.empty(output.stored_elems, NUMPY[output.dtype])
                with device.context.pycuda("results") as cuda:
                    cuda.memcpy_dtoh(flat, place)
                got = logical(flat, output).astype(np.float64)
                scale = np.maximum(np.abs(want.astype(np.float64)), 1.0)
                limit = 2.0**-24 * 16 * max(one.terms, 4)
                limit += 2.0**-11 if output.dtype is F16 else 0.0
                worst = max(worst, float((np.abs(got - want) / scale / limit).max()))
            measured = timer.measure(30)
            timer.close()
            times.append((statistics.median(measured), tactic.text, worst))
            with device.context.pycuda("tensors"):
                for block in memory:
                    block.free()
        rival = _rival_us(one, values)
        times.sort()
        best, tactic_text, _ = times[0]
        first = next(t for t in times if t[1] == family.tactics(problem, gpu)[0].text)[0]
        worst = max(t[2] for t in times)
        row = {
            "case": one.name, "us": round(best, 3), "first_us": round(first, 3),
            "gbps": round(bytes_moved / best / 1e3, 1), "rival_us": rival,
            "error_of_limit": round(worst, 3), "tactic": tactic_text, "tactics": len(times),
        }  # fmt: skip
        rows.append(row)
        mark = "" if worst <= 1 else "  WRONG"
        beside = f"torch {rival:7.2f} us" if rival else " " * 17
        print(
            f"{one.name:42} {best:7.2f} us (first {first:7.2f}) {row['gbps']:7.0f} GB/s  {beside}"
            f"  error/limit {worst:.2f}  {tactic_text}{mark}",
            flush=True,
        )
    print(json.dumps(rows))
    if any(row["error_of_limit"] > 1 for row in rows):
        raise SystemExit("a result is wrong")


def _rival_us(one: Case, values: list[np.ndarray[Any, Any]]) -> float | None:
    """PyTorch's time for the same layer in a graph of 20 runs, None without PyTorch."""
    if one.rival is None:
        return None
    try:
        import torch
    except ImportError:
        return None
    tensors = [torch.from_numpy(v).cuda() for v in values]
    if tensors[0].ndim == 4:
        tensors[0] = tensors[0].to(memory_format=torch.channels_last)
    stream = torch.cuda.Stream()
    with torch.no_grad(), torch.cuda.stream(stream):
        for _ in range(3):
            one.rival(torch, tensors)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(20):
                one.rival(torch, tensors)
        times = []
        for _ in range(30):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record(stream)
            graph.replay()
            end.record(stream)
            end.synchronize()
            times.append(start.elapsed_time(end) * 1e3 / 20)
    return round(statistics.median(times), 3)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("mode", choices=("compile", "run"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    options = parser.parse_args()
    if options.mode == "compile":
        compile_cases(options.folder)
    else:
        run_cases(options.folder, options.case)


if __name__ == "__main__":
    main()
