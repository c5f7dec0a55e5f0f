"""CUDA kernels on the CPU: compile a kernel's source with emulated threads and run its launches."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import builder_host.codegen as codegen
from builder_host.kernels.family import GridLaunch

Array = np.ndarray[Any, Any]

_SHIM = Path(__file__).parent
_FLAGS = (
    *("-x", "c++", "-std=c++17", "-O2", "-fPIC", "-shared", "-fno-exceptions", "-fno-rtti"),
    *("-fno-sanitize=all", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden", "-g0"),
    *("-fno-strict-aliasing", "-fno-stack-protector", "-Wno-unknown-pragmas", "-nostdlib++"),
    *("-target", f"{platform.machine()}-linux-gnu"),
)
# Dynamic shared memory is what the block was given; in CUDA it is an array of unknown extent.
_DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:__align__\(\d+\)\s+)?([\w ]+?)\s+(\w+)\[\];")


FOLDER_VARIABLE = "EDGEPLAN_TEST_EMULATED"  # where a child finds what its parent compiled


@functools.cache
def _own_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="edgeplan-emulated-")


def compiled_folder() -> Path:
    """Folder of compiled kernels: the parent's, or one that goes with this process."""
    return Path(os.environ.get(FOLDER_VARIABLE) or _own_folder().name)


def emulated_source(source: str) -> str:
    """CUDA C++ as C++ of the emulation, with the scheduler behind it."""
    text = _DYNAMIC.sub(r"\1 *\2 = (\1 *)emu::shared_memory();", source)
    return f'#include "emulation.h"\n{text}\n#include "emulation.inc"\n'


def compile_emulated(source: str, arch: int = 90) -> Path:
    """Compile CUDA C++ for the CPU; equal sources are compiled once.

    Args:
        source: text for NVRTC that includes ep_cuda.cuh.
        arch: value of EP_ARCH; before 80 asynchronous copies are done at once.

    Returns:
        Path of a shared object that exports the kernels and `emu_launch`.
    """
    name = hashlib.sha256(f"{arch}\0{source}".encode()).hexdigest()[:24]
    path = compiled_folder() / f"{name}.so"
    if not path.exists():
        include = Path(codegen.__path__[0]) / "cuda_include"
        command = [sys.executable, "-m", "ziglang", "cc", *_FLAGS, f"-DEP_ARCH={arch}"]
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            text, made = Path(folder) / "kernel.cpp", Path(folder) / "kernel.so"
            text.write_text(emulated_source(source))
            command += [f"-I{_SHIM}", f"-I{include}", str(text), "-o", str(made), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise AssertionError(f"{done.stderr[:6000]}\n{source}")
            made.replace(path)  # at once: others may be compiling the same
    return path


def run_emulated(
    source: str,
    launches: Sequence[GridLaunch],
    arrays: Sequence[Array],
    *,
    arch: int = 90,
    descending: bool = False,
) -> None:
    """Run launches one after another on arrays that are changed in place.

    Args:
        source: CUDA C++ text.
        launches: kernels of it with their geometry.
        arrays: one per kernel parameter, contiguous; their addresses are the arguments.
        arch: see `compile_emulated`.
        descending: run blocks, warps and lanes in the opposite order: a result that changes with it
            shows a missing barrier.

    Raises:
        AssertionError: the source does not compile, or a kernel wrote past its shared memory.
    """
    library = ctypes.CDLL(str(compile_emulated(source, arch)))
    pointers = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
    for launch in launches:
        for extent, cluster in zip(launch.grid, launch.cluster, strict=True):
            assert extent % cluster == 0, f"{launch}: the grid is no multiple of the cluster"
        triple = ctypes.c_uint * 3
        kernel = ctypes.cast(getattr(library, launch.symbol), ctypes.c_void_p)
        library.emu_launch.argtypes = [
            *(ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p),
            *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int),
        ]
        status = library.emu_launch(
            kernel,
            len(arrays),
            pointers,
            triple(*launch.grid),
            triple(*launch.block),
            triple(*launch.cluster),
            launch.shared_memory_bytes,
            int(descending),
        )
        assert status == 0, f"{launch.symbol} wrote past its {launch.shared_memory_bytes} bytes"
