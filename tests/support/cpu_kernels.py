"""Running one generated CPU kernel on numpy arrays: compile, pack, call, unpack.

Stored inputs have NaN in every gap and padded lane, outputs are checked for writes outside their
own elements, and every unit is also run alone in reverse order and must give equal bits.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import builder_host.codegen as codegen
from builder_host.kernels.family import Launch, Problem, Program, Tactic
from builder_host.layouts import Layout
from builder_host.targets.target import CpuTarget
from support.aarch64_emulator import emulator, run_emulated

Array = np.ndarray[Any, Any]

AVX512 = CpuTarget("x86_64", "avx512", (), 2, 32 << 10, 1 << 20, 32 << 20, 80.0, 15.0)
AVX2 = CpuTarget("x86_64", "avx2", (), 2, 32 << 10, 512 << 10, 16 << 20, 60.0, 15.0)
NEON = CpuTarget("aarch64", "neon", (), 4, 32 << 10, 512 << 10, 0, 16.0, 8.0)

_FLAGS = {
    "avx512": ("-DEP_ISA_AVX512", "-target", "x86_64-linux-gnu", "-mcpu=x86_64_v4"),
    "avx2": ("-DEP_ISA_AVX2", "-target", "x86_64-linux-gnu", "-mcpu=x86_64_v3"),
    "neon": ("-DEP_ISA_NEON", "-target", "aarch64-linux-gnu", "-mcpu=cortex_a72"),
}
_COMMON = (
    *("-O2", "-std=gnu11", "-fPIC", "-shared", "-ffp-contract=off", "-fno-math-errno"),
    *("-fno-trapping-math", "-fno-sanitize=all", "-fvisibility=hidden", "-g0"),
    *("-Wall", "-Wextra", "-Werror"),
)
_SENTINEL = np.float32(-12345.678)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="edgeplan-kernels-")


@functools.cache
def runs_here(isa: str) -> bool:
    """Whether this machine, or its emulator of aarch64, can execute code for an instruction set."""
    if isa == "neon" and emulator() is not None:
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except FileNotFoundError:
        return False
    wanted = {"avx512": "avx512vl", "avx2": "avx2", "neon": "asimd"}[isa]
    return wanted in flags


def compile_source(source: str, target: CpuTarget) -> Path:
    """Compile a program's source into a shared object; equal sources are compiled once."""
    include = Path(codegen.__path__[0]) / "c_include"
    name = hashlib.sha256(f"{target.isa}\0{source}".encode()).hexdigest()[:24]
    path = Path(_folder().name) / f"{name}.so"
    if not path.exists():
        text = path.with_suffix(".c")
        text.write_text(source)
        command = [sys.executable, "-m", "ziglang", "cc", *_COMMON, *_FLAGS[target.isa]]
        command += [f"-I{include}", str(text), "-o", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"{done.stderr[:4000]}\n{source}")
    return path


def aligned(num_elems: int, dtype: Any = np.float32, fill: float = np.nan) -> Array:
    """Flat array that starts at a multiple of 64 bytes."""
    item = np.dtype(dtype).itemsize
    raw = np.zeros(num_elems * item + 64, np.uint8)
    start = -raw.ctypes.data % 64
    array = raw[start : start + num_elems * item].view(dtype)
    if np.issubdtype(array.dtype, np.floating):
        array[:] = fill
    return array


def logical_view(flat: Array, layout: Layout) -> Array:
    """A view `[N, blocks, H, W, lanes]` of a blocked buffer, or of the logical shape."""
    if layout.format.channel_block > 1:
        n, _, h, w = layout.shape
        shape: tuple[int, ...] = (n, layout.num_channel_blocks, h, w, layout.format.channel_block)
        strides: tuple[int, ...] = (*layout.strides, 1)
    else:
        shape, strides = layout.shape, layout.strides
    item = flat.dtype.itemsize
    return np.lib.stride_tricks.as_strided(flat, shape, tuple(s * item for s in strides))


def store(values: Array, layout: Layout) -> Array:
    """A new buffer that holds `values`, NaN everywhere else."""
    dtype = np.float32 if layout.dtype.is_float else values.dtype
    flat = aligned(layout.stored_elems, dtype)
    view = logical_view(flat, layout)
    if layout.format.channel_block > 1:
        for c in range(layout.shape[1]):
            view[:, c // view.shape[4], :, :, c % view.shape[4]] = values[:, c]
    else:
        view[...] = values
    return flat


def load(flat: Array, layout: Layout) -> Array:
    """The logical array in a buffer."""
    view = logical_view(flat, layout)
    if layout.format.channel_block == 1:
        return np.array(view)
    n, c, h, w = layout.shape
    return np.array(view.transpose(0, 1, 4, 2, 3).reshape(n, -1, h, w)[:, :c])


class Kernel:
    """A program that is compiled and bound to its arguments."""

    def __init__(
        self,
        family: Any,
        problem: Problem,
        tactic: Tactic,
        target: CpuTarget,
        inputs: Sequence[Array],
    ) -> None:
        """Compile the tactic's program and store the inputs (logical arrays, float32)."""
        self.problem = problem
        self.program: Program = family.generate(problem, tactic, target)
        again: Program = family.generate(problem, tactic, target)
        assert again == self.program
        self.is_emulated = target.isa == "neon" and platform.machine() != "aarch64"
        self.features = target.features
        if not self.is_emulated:
            self.library = ctypes.CDLL(str(compile_source(self.program.source, target)))
        constants = [
            values if constant else None
            for values, constant in zip(inputs, problem.is_constant, strict=True)
        ]
        packed = family.pack(problem, tactic, target, constants)
        self.buffers: list[Array] = []
        for values, layout, bytes_ in zip(inputs, problem.inputs, packed, strict=True):
            if bytes_ is None:
                self.buffers.append(store(values, layout))
            else:
                buffer = aligned(bytes_.size, bytes_.dtype)
                buffer[:] = bytes_.reshape(-1)
                self.buffers.append(buffer)
        self.outputs = [aligned(layout.stored_elems) for layout in problem.outputs]
        pointers = [a.ctypes.data for a in (*self.buffers, *self.outputs)]
        self.workspace = aligned(self.program.workspace_bytes, np.uint8)
        if self.program.workspace_bytes:
            pointers.append(self.workspace.ctypes.data)
        self.arguments = (ctypes.c_void_p * len(pointers))(*pointers)

    def call(self, launch: Launch, begin: int, end: int) -> None:
        """Run a range of units with fresh scratch, checked for overruns."""
        count = launch.scratch_bytes_per_worker // 4
        scratch = aligned(count + 64)
        scratch[count:] = _SENTINEL
        function = getattr(self.library, launch.symbol)
        function.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
        function.restype = None
        function(self.arguments, begin, end, scratch.ctypes.data)
        assert (scratch[count:] == _SENTINEL).all(), "the kernel wrote past its scratch"

    def _emulate(self, spans: Sequence[tuple[Launch, int, int]]) -> None:
        """Run ranges of units under the emulator."""
        arrays = [*self.buffers, *self.outputs]
        if self.program.workspace_bytes:
            arrays.append(self.workspace)
        found = run_emulated(
            self.program.source,
            arrays,
            [(launch.symbol, begin, end) for launch, begin, end in spans],
            {x.symbol: x.scratch_bytes_per_worker for x in self.program.launches},
            features=self.features,
        )
        for array, content in zip(arrays, found, strict=True):
            array[:] = content

    def run(self) -> list[Array]:
        """All outputs as logical arrays, after the checks named in the module's docstring."""
        results = []
        for split in (False, True):
            for output in self.outputs:
                output[:] = _SENTINEL
            spans = [
                (launch, begin, end)
                for launch in self.program.launches
                for begin, end in _spans(launch.num_units, is_split=split)
            ]
            if self.is_emulated:
                self._emulate(spans)
            else:
                for launch, begin, end in spans:
                    self.call(launch, begin, end)
            pairs = list(zip(self.outputs, self.problem.outputs, strict=True))
            for output, layout in pairs:
                owned = np.zeros(output.shape, bool)
                logical_view(owned, layout)[...] = True
                assert (output[~owned] == _SENTINEL).all(), "a write outside the output"
            results.append([load(output, layout) for output, layout in pairs])
        for one, other in zip(*results, strict=True):
            assert one.tobytes() == other.tobytes(), "the result depends on the split of units"
        return results[0]


def _spans(num_units: int, *, is_split: bool) -> list[tuple[int, int]]:
    return [(u, u + 1) for u in reversed(range(num_units))] if is_split else [(0, num_units)]


def run(
    family: Any, problem: Problem, tactic: Tactic, target: CpuTarget, inputs: Sequence[Array]
) -> Array:
    """First output of a tactic as a logical array; `family.applies` must hold."""
    assert family.applies(problem, target)
    return Kernel(family, problem, tactic, target, inputs).run()[0]
