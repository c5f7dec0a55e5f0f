"""INT8 kernels on a real GPU: every tactic's bits against exact sums, then times against float16.

    python scripts/gpu/check_int8.py compile FOLDER   # anywhere: cubins and plans for the target
    python scripts/gpu/check_int8.py layers FOLDER    # on the GPU: pycuda, numpy, PyTorch
    python scripts/gpu/check_int8.py plans FOLDER     # on the GPU: pycuda, numpy, PyTorch

`layers` takes ResNet-50's convolutions and its last product at the batch sizes given. Sums come
from PyTorch in float64 (exact), the epilogue from numpy in float32, step by step: not one bit of a
result may differ. Each best tactic is timed beside the best float16 tactic of the same layer, in
graphs of 20 runs with operands in L2. `plans` loads predicted plans of whole networks in int8 and
float16, compares both with the float32 outputs of a CPU plan that `compile` stored, and replays
them in alternating blocks. Anything wrong ends with status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))

import bench_conv

from builder_host.expressions import Binary, Const, Expr, Input, Unary, clip, evaluate_single
from builder_host.kernels.cuda_conv_dp4a.family import FAMILY as DP4A
from builder_host.kernels.cuda_conv_first.family import FAMILY as FIRST
from builder_host.kernels.cuda_conv_igemm.family import FAMILY as IGEMM
from builder_host.kernels.cuda_conv_int8.family import FAMILY as INT8
from builder_host.kernels.cuda_conv_wgmma.family import FAMILY as WGMMA
from builder_host.kernels.cuda_gemm.family import FAMILY as GEMM
from builder_host.kernels.cuda_gemm_int8.family import FAMILY as GEMM_INT8
from builder_host.kernels.family import Array, GridLaunch, Problem, Program
from builder_host.layouts import Layout, dense_layout
from builder_host.network.layers.fully_connected import FullyConnectedParams
from builder_host.network.network import Epilogue
from builder_host.network.tensor_type import TensorType
from builder_host.targets.cuda import CudaTarget
from planformat.datatypes import DataType, TensorFormat

I8, F16, F32 = DataType.INT8, DataType.FLOAT16, DataType.FLOAT32
NHWC = TensorFormat.NHWC
NUMPY: dict[DataType, Any] = {I8: np.int8, F16: np.float16, F32: np.float32}
INTEGER_FAMILIES = (INT8, DP4A, GEMM_INT8)
FLOAT_FAMILIES = (IGEMM, WGMMA, FIRST, GEMM)
NETWORKS = ("squeezenet_v1.1", "resnet50")
MOST_WRONG = {"int8": 0.25, "fp16": 0.01}  # relative L2 against float32; weights are random
BLOCKS, REPLAYS = 9, 100


@dataclass(frozen=True)
class Layer:
    """One layer in both precisions, and how often its network has it."""

    name: str
    count: int
    integer: Problem
    half: Problem


def requantised(sums: Expr, num_operands: int) -> Epilogue:
    """Sums * x1 + x2 (+ x3 * scale), ReLU, to INT8: what a quantised network has."""
    value: Expr = Binary("add", Binary("mul", sums, Input(1)), Input(2))
    if num_operands == 3:
        value = Binary("add", value, Binary("mul", Input(3), Const(0.37)))
    value = Binary("max", value, Const(0.0))
    return Epilogue(clip(Unary("round", value), -127.0, 127.0), num_operands)


def layers(batch: int) -> list[Layer]:
    """ResNet-50's convolutions and its fully connected layer."""
    found = []
    for case in bench_conv.resnet50(batch):
        half = case.problem
        x, w, _, *rest = half.inputs
        channel = dense_layout(TensorType((case.filters, 1, 1), F32))
        inputs = [
            dense_layout(TensorType(x.shape, I8), NHWC),
            dense_layout(TensorType(w.shape, I8)),
            *(channel, channel),
            *(replace(operand, dtype=I8) for operand in rest),
        ]
        constant = (False, True, True, True, *(False for _ in rest))
        outputs = (replace(half.outputs[0], dtype=I8),)
        epilogue = requantised(Input(0), len(inputs) - 2)
        integer = Problem(
            half.kind, half.params, tuple(inputs), constant, outputs, epilogue
        )  # fmt: skip
        found.append(Layer(case.name, case.count, integer, half))
    rows, depth, columns = batch, 2048, 1000

    def product(dtype: DataType, y: DataType) -> Problem:
        shapes = [(rows, depth), (columns, depth), (columns,)]
        types = [TensorType(s, dtype) for s in shapes]
        y_layout = dense_layout(TensorType((rows, columns), y))
        if dtype is F16:
            inputs = tuple(dense_layout(t) for t in types)
            return Problem(
                "fully_connected", FullyConnectedParams(), inputs, (False, True, True), (y_layout,)
            )
        channel = dense_layout(TensorType((columns,), F32))
        own = (*(dense_layout(t) for t in types[:2]), channel, channel)
        expr = Binary("add", Binary("mul", Input(0), Input(1)), Input(2))
        return Problem(
            "fully_connected", FullyConnectedParams(), own, (False, True, True, True), (y_layout,),
            Epilogue(expr, 2),
        )  # fmt: skip

    return [*found, Layer("fc", 1, product(I8, F32), product(F16, F16))]


def programs(
    problem: Problem, families: Sequence[Any], gpu: CudaTarget, most: int
) -> Iterator[tuple[Any, Any, Program]]:
    """Family, tactic and program of the `most` best tactics of each family that applies."""
    for family in families:
        if family.applies(problem, gpu):
            for tactic in family.tactics(problem, gpu)[:most]:
                yield family, tactic, family.generate(problem, tactic, gpu)


def every_program(arguments: argparse.Namespace) -> Iterator[Program]:
    """All programs of `layers`."""
    gpu = bench_conv.target()
    for batch in arguments.batch:
        for layer in layers(batch):
            for _, _, program in programs(layer.integer, INTEGER_FAMILIES, gpu, arguments.most):
                yield program
            for _, _, program in programs(layer.half, FLOAT_FAMILIES, gpu, arguments.most):
                yield program


def values_of(problem: Problem) -> list[Array]:
    """Integers over their whole range and scales that spread results over 8 bits; normal halves."""
    rng = np.random.default_rng(5)
    terms = int(np.prod(problem.inputs[1].shape[1:]))
    found: list[Array] = []
    for number, layout in enumerate(problem.inputs):
        if layout.dtype is I8:
            found.append(rng.integers(-127, 128, layout.shape).astype(np.int8))
        elif problem.inputs[0].dtype is I8 and number == 2:
            scale = 40.0 / (5400.0 * terms**0.5)  # sums have a deviation of 5400 per term
            found.append((scale * rng.uniform(0.5, 1.5, layout.shape)).astype(np.float32))
        else:
            spread = terms**-0.5 if number == 1 else 1.0
            found.append((spread * rng.standard_normal(layout.shape)).astype(NUMPY[layout.dtype]))
    return found


def result_of(problem: Problem, sums: Array, values: Sequence[Array]) -> Array:
    """The output for exact sums: float32 epilogue, one rounding per operation.

    Args:
        problem: an 8-bit layer.
        sums: whole numbers, in the shape of the output.
        values: of all inputs.
    """
    assert problem.epilogue is not None
    operands = [v.astype(np.float32) for v in values[problem.num_own_inputs :]]
    found = evaluate_single(problem.epilogue.expr, [sums.astype(np.float32), *operands])
    return np.asarray(found, dtype=NUMPY[problem.outputs[0].dtype])


# --- on any machine ---------------------------------------------------------------------------


def compile_all(folder: Path, arguments: argparse.Namespace) -> None:
    """Cubins of all tactics; plans, inputs and float32 outputs of the networks."""
    from builder_host.codegen.artifacts import ArtifactStore
    from builder_host.codegen.toolchain_cuda import CompiledCubin, CudaToolchain

    folder.mkdir(parents=True, exist_ok=True)
    sources = list(dict.fromkeys(p.source for p in every_program(arguments)))
    missing = [s for s in sources if not bench_conv.cubin_path(folder, s).exists()]
    store = ArtifactStore(folder.parent / f"{folder.name}-store")
    toolchain = CudaToolchain(bench_conv.target(), store=store, jobs=arguments.jobs)
    for source, result in zip(missing, toolchain.compile_objects(missing), strict=True):
        if not isinstance(result, CompiledCubin):
            raise SystemExit(f"{result}\n{source}")
        for kernel in result.kernels:
            if kernel.spill_store_bytes:
                print(f"{kernel.name} spills {kernel.spill_store_bytes} bytes")
        bench_conv.cubin_path(folder, source).write_bytes(result.code)
    print(f"{len(sources)} sources, {len(missing)} compiled for sm_{bench_conv.target().sm}")
    for name in arguments.networks:
        for batch in arguments.batch:
            _build_plans(folder, name, batch, arguments.target)


def _build_plans(folder: Path, name: str, batch: int, target: str) -> None:
    import builder_host as bh
    import runtime_edge
    from benchmarks.topologies import TOPOLOGIES
    from builder_host.calibration.collect import calibrate
    from builder_host.calibration.thresholds import find_calibrator

    def network(size: int) -> bh.Network:
        model = TOPOLOGIES[name]()
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = size
        return bh.import_onnx(model)

    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, 3, 224, 224)).astype(np.float32)
    here = bh.BuilderConfig(measure="none", is_checked=False)
    samples = [{"data": sample} for sample in x[:4]]
    table = calibrate(network(1), samples, find_calibrator("min-max"), config=here)
    engine = runtime_edge.load(bh.build(network(batch), here).to_bytes())
    (wanted,) = engine.create_context().execute({"data": x}).values()
    np.savez(folder / f"{name}-{batch}.npz", x=x, wanted=wanted)
    for precision in MOST_WRONG:
        config = replace(
            here,
            target=target,
            precision=precision,
            calibration=table if precision == "int8" else None,
        )
        bh.build(network(batch), config).save(folder / f"{name}-{batch}-{precision}.plan")
    print(f"{name}, batch {batch}: plans for {target}")


# --- on the GPU -------------------------------------------------------------------------------


def check_layers(folder: Path, arguments: argparse.Namespace) -> bool:
    """Bits of every 8-bit tactic, times of the best ones; whether all is right."""
    import torch

    torch.cuda.init()
    print(torch.cuda.get_device_name(0), "torch", torch.__version__)
    rows, is_right = [], True
    for batch in arguments.batch:
        totals = {"int8": 0.0, "fp16": 0.0}
        for layer in layers(batch):
            values = values_of(layer.integer)
            wanted = result_of(layer.integer, _exact_sums(torch, layer.integer, values), values)
            integer = _timed(torch, folder, layer.integer, INTEGER_FAMILIES, arguments, wanted)
            half = _timed(torch, folder, layer.half, FLOAT_FAMILIES, arguments, None)
            is_right &= all(wrong == 0 for _, _, wrong in integer)
            best, rival = min(integer), min(half)
            totals["int8"] += best[0] * layer.count
            totals["fp16"] += rival[0] * layer.count
            print(
                f"batch {batch:2} {layer.name:12} x{layer.count} int8 {best[0]:8.2f} us  "
                f"fp16 {rival[0]:8.2f} us  {rival[0] / best[0]:5.2f}x  {best[1]}",
                flush=True,
            )
            rows.append({"batch": batch, "layer": layer.name, "int8": integer, "fp16": half})
        ratio = totals["fp16"] / totals["int8"]
        print(f"batch {batch}: {totals['int8']:.1f} us, fp16 {totals['fp16']:.1f}, {ratio:.2f}x")
    out = Path(os.environ.get("OUT", "."))
    (out / "check_int8_layers.json").write_text(json.dumps(rows))
    return is_right


def _exact_sums(torch: Any, problem: Problem, values: Sequence[Array]) -> Array:
    """Float64 sums of integers, exact below 2^53."""
    x, w = (torch.from_numpy(v).cuda().double() for v in values[:2])
    if problem.kind == "fully_connected":
        sums = x @ w.T
    else:
        params = problem.params
        sums = torch.nn.functional.conv2d(
            x, w, None, params.strides, params.pads_begin, params.dilations, params.groups
        )
    return np.asarray(sums.round().to(torch.int64).cpu().numpy())


def _stored(values: Array, layout: Layout) -> Array:
    if layout.format is NHWC:
        values = values.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(values)


def _timed(
    torch: Any,
    folder: Path,
    problem: Problem,
    families: Sequence[Any],
    arguments: argparse.Namespace,
    wanted: Array | None,
) -> list[tuple[float, str, int]]:
    """Median microseconds, tactic, and wrong elements (0 where nothing is compared), per tactic."""
    from runtime_edge.device.cuda import CudaDevice
    from runtime_edge.device.cuda_timing import CudaModule, CudaTimer, TimedCudaLaunch

    device, gpu = CudaDevice(0), bench_conv.target()
    values = values_of(problem)
    y = problem.outputs[0]
    shape = (y.shape[0], *y.shape[2:], y.shape[1]) if y.format is NHWC else y.shape
    live = {
        i: torch.from_numpy(_stored(v, problem.inputs[i])).cuda()
        for i, v in enumerate(values)
        if not problem.is_constant[i]
    }
    found = []
    for family, tactic, program in programs(problem, families, gpu, arguments.most):
        known = [v if c else None for v, c in zip(values, problem.is_constant, strict=True)]
        packed = family.pack(problem, tactic, gpu, known)
        memory = [
            live[i]
            if p is None
            else torch.from_numpy(np.ascontiguousarray(p).view(np.uint8)).cuda()
            for i, p in enumerate(packed)
        ]
        result = torch.from_numpy(np.full(shape, 85, NUMPY[y.dtype])).cuda()
        memory.append(result)
        if program.workspace_bytes:
            memory.append(torch.empty(program.workspace_bytes, dtype=torch.uint8).cuda())
        torch.cuda.synchronize()
        module = CudaModule(device, bench_conv.cubin_path(folder, program.source).read_bytes())
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
        torch.cuda.synchronize()
        wrong = 0
        if wanted is not None:
            wrong = int((result.cpu().numpy() != _stored(wanted, y)).sum())
            if wrong:
                print(f"WRONG {tactic.text}: {wrong:,} of {wanted.size:,} elements", flush=True)
        found.append((statistics.median(timer.measure(15)), tactic.text, wrong))
        timer.close()
    return found


def check_plans(folder: Path, arguments: argparse.Namespace) -> bool:
    """Errors and times of whole networks; whether every error is small enough."""
    import torch

    import runtime_edge

    is_right = True
    for name in arguments.networks:
        for batch in arguments.batch:
            data = np.load(folder / f"{name}-{batch}.npz")
            x, wanted = torch.from_numpy(data["x"]).cuda(), data["wanted"]
            sides, errors = {}, {}
            for precision, most in MOST_WRONG.items():
                engine = runtime_edge.load(folder / f"{name}-{batch}-{precision}.plan")
                context, stream = engine.create_context(), engine.create_stream()
                y = torch.empty(wanted.shape, device="cuda")
                torch.cuda.synchronize()
                bindings = {"data": x.data_ptr(), "prob": y.data_ptr()}
                context.enqueue(bindings, stream)
                stream.synchronize()
                apart = y.cpu().numpy() - wanted
                errors[precision] = float(np.linalg.norm(apart) / np.linalg.norm(wanted))
                is_right &= errors[precision] < most
                sides[precision] = (context, stream, bindings, y)
            times = _interleaved_us(sides)
            print(
                f"{name:16} batch {batch:2}  int8 {times['int8']:8.1f} us  fp16 "
                f"{times['fp16']:8.1f} us  {times['fp16'] / times['int8']:5.2f}x  errors "
                + ", ".join(f"{p} {e:.2g}" for p, e in errors.items()),
                flush=True,
            )
    return is_right


def _interleaved_us(sides: dict[str, Any]) -> dict[str, float]:
    """Median microseconds per inference of each side."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for block in range(BLOCKS + 1):
        for name, (context, stream, bindings, _) in sides.items():
            start = time.perf_counter_ns()
            for _ in range(REPLAYS):
                context.enqueue(bindings, stream)
            stream.synchronize()
            if block:  # the first one warms up
                times[name].append((time.perf_counter_ns() - start) / 1e3 / REPLAYS)
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("action", choices=("compile", "layers", "plans"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--most", type=int, default=12, help="tactics of each family")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--target", default="h200", help="board of the plans")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.action == "compile":
        compile_all(arguments.folder, arguments)
        return 0
    check = check_layers if arguments.action == "layers" else check_plans
    return 0 if check(arguments.folder, arguments) else 1


if __name__ == "__main__":
    sys.exit(main())
