"""Running CUDA kernels of any family on emulated threads, and compiling them for real GPUs."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from builder_host.codegen.compile_batch import CompileFailure
from builder_host.codegen.nvrtc_cubin import launch_problem
from builder_host.codegen.toolchain_cuda import CudaToolchain
from builder_host.kernels.family import GridLaunch, Problem, Program, Tactic
from builder_host.layouts import Layout
from builder_host.targets.cuda import ARCHITECTURES, CudaTarget, cuda_target, version_text
from planformat.datatypes import DataType
from planformat.fingerprint import DeviceFingerprint
from support.cuda_shim import run_emulated
from support.cuda_toolkits import TOOLKIT, need_toolkit
from support.typed_kernels import NUMPY_TYPES, _buffer, _read, _view, _write, store_of_the_run

Array = np.ndarray[Any, Any]


@functools.cache
def make_target(architecture: str, num_sms: int = 8) -> CudaTarget:
    """A GPU of a row of `ARCHITECTURES` with a driver of CUDA 12.6."""
    fields = {
        "cuda.compute_capability": version_text(ARCHITECTURES[architecture].compute_capability),
        "cuda.cuda_version": version_text(TOOLKIT),
        "cuda.num_sms": str(num_sms),
    }
    return cuda_target(DeviceFingerprint("cuda", fields))


def _toolchain(target: CudaTarget) -> CudaToolchain:
    need_toolkit(target.toolkit)
    return CudaToolchain(target, store=store_of_the_run(), jobs=2)


def compile_all(sources: Sequence[str], architecture: str) -> list[bytes]:
    """Cubins for one architecture; a source that is refused fails the test."""
    results = _toolchain(make_target(architecture)).compile_objects(sources)
    cubins = []
    for result, source in zip(results, sources, strict=True):
        assert not isinstance(result, CompileFailure), f"{result}\n{source}"
        cubins.append(result.code)
    return cubins


def compile_programs(programs: Sequence[Program], architecture: str) -> None:
    """Compile for one architecture; each kernel must be launchable, and keep all in registers."""
    target = make_target(architecture)
    results = _toolchain(target).compile_objects([program.source for program in programs])
    for result, program in zip(results, programs, strict=True):
        assert not isinstance(result, CompileFailure), f"{result}\n{program.source}"
        for launch in program.launches:
            assert isinstance(launch, GridLaunch)
            kernel = result.kernel(launch.symbol)
            threads = math.prod(launch.block)
            problem = launch_problem(target, kernel, threads, launch.shared_memory_bytes)
            assert problem is None, f"{launch.symbol}: {problem}"
            local = kernel.stack_bytes
            assert local == 0, f"{launch.symbol} keeps {local} bytes of a thread in local memory"


def run(
    family: Any,
    problem: Problem,
    target: CudaTarget,
    inputs: Sequence[Array],
    tactic: Tactic | None = None,
    *,
    offset_elems: int = 0,
) -> list[Array]:
    """All outputs of a tactic (the first one when None) as logical arrays.

    Input gaps hold 0xff bytes (NaN, -1). Outputs are checked for writes outside the tensor, and
    blocks and threads in the opposite order must give equal bits.

    Args:
        family: that is tested; it must apply.
        problem: layouts of all tensors.
        target: GPU.
        inputs: logical arrays of all inputs.
        tactic: of the family.
        offset_elems: start of live inputs and of outputs behind a 64-byte boundary, in elements.
    """
    assert family.applies(problem, target)
    assert family.estimate_us(problem, target) > 0
    tactic = tactic or family.tactics(problem, target)[0]
    program: Program = family.generate(problem, tactic, target)
    assert family.generate(problem, tactic, target) == program
    constants = [
        np.asarray(v, NUMPY_TYPES[item.dtype]) if known else None
        for v, item, known in zip(inputs, problem.inputs, problem.is_constant, strict=True)
    ]
    packed = family.pack(problem, tactic, target, constants)
    buffers: list[Array] = []
    for values, item, ready in zip(inputs, problem.inputs, packed, strict=True):
        if ready is not None:
            flat = ready.reshape(-1).view(np.uint8)
            held = _aligned_bytes(flat.size, 0)
            held[:] = flat
            buffers.append(held)
            continue
        buffer = _placed(item, 0xFF, offset_elems)
        _write(buffer, item, values)
        buffers.append(buffer)
    results = []
    launches = [launch for launch in program.launches if isinstance(launch, GridLaunch)]
    assert len(launches) == len(program.launches)
    for is_descending in (False, True):
        outputs = [_placed(item, 0xAB, offset_elems) for item in problem.outputs]
        arrays = [*buffers, *outputs]
        if program.workspace_bytes:
            arrays.append(_aligned_bytes(program.workspace_bytes, 0xFF))
        run_emulated(
            program.source,
            launches,
            arrays,
            arch=int(target.architecture.name),
            descending=is_descending,
        )
        for output, item in zip(outputs, problem.outputs, strict=True):
            owned = np.zeros(item.stored_elems, np.uint8)
            _view(owned, Layout(item.format, item.shape, DataType.BOOL, item.strides))[...] = 1
            rest = output[~owned.astype(bool)].view(np.uint8)
            assert (rest == 0xAB).all(), "a write outside the output"
        results.append([_read(o, i) for o, i in zip(outputs, problem.outputs, strict=True)])
    for one, other in zip(*results, strict=True):
        assert one.tobytes() == other.tobytes(), "the result depends on the order of threads"
    return results[0]


def _aligned_bytes(size: int, fill: int) -> Array:
    raw = np.full(size + 64, fill, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


def _placed(item: Layout, fill: int, offset_elems: int) -> Array:
    if not offset_elems:
        return _buffer(item, fill)
    dtype = np.dtype(NUMPY_TYPES[item.dtype])
    start = offset_elems * dtype.itemsize
    return _aligned_bytes(item.stored_elems * dtype.itemsize + start, fill)[start:].view(dtype)
