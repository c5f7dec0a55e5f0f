"""Whole CUDA builds for the stand-in GPU: generated CUDA C++, compiled for emulated threads.

Run as `python -m support.emulated_gpu ARGUMENT...`: the command line on a machine with that GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder_host.codegen.artifacts import ArtifactStore
from builder_host.codegen.nvrtc_cubin import KernelResources
from support.cuda_shim import FOLDER_VARIABLE, compile_emulated, compiled_folder


@dataclass(frozen=True, slots=True)
class EmulatedCode:
    """What the builder asks of a cubin; resources are not known, so that every launch fits."""

    path: Path
    is_ptx: bool = False

    @property
    def code(self) -> bytes:
        """A shared object for the stand-in driver."""
        return self.path.read_bytes()

    def kernel(self, name: str) -> KernelResources:
        """Of a kernel that needs nothing."""
        return KernelResources(name, 32, 0, 0, 0, 0, 0)

    def has_same_kernel(self, other: EmulatedCode, name: str) -> bool:
        """Whether the other one has the kernel; the CPU's compiler may place it otherwise."""
        return name.encode() in other.code


class EmulatedToolchain:
    """Stands in for `CudaToolchain`."""

    version = identity = "emulated threads"

    def __init__(self, target: Any, *, store: ArtifactStore, jobs: int) -> None:
        del jobs
        self.store = store
        self._arch = int("".join(c for c in target.sm if c.isdigit()))

    def compile_objects(
        self, sources: Sequence[str], executor: Executor | None = None
    ) -> list[EmulatedCode]:
        """One shared object per source."""
        del executor
        return [EmulatedCode(compile_emulated(source, self._arch)) for source in sources]


def edgeplan_with_gpu(*arguments: object, timeout_s: float = 1200.0) -> tuple[int, str, str]:
    """Run `edgeplan` in a process whose only GPU is the stand-in.

    Returns:
        Exit status, standard output and standard error.
    """
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-m", "support.emulated_gpu", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
        env={**os.environ, "PYTHONPATH": paths, FOLDER_VARIABLE: str(compiled_folder())},
    )
    return done.returncode, done.stdout, done.stderr


def _main(arguments: Sequence[str]) -> int:
    from support import fake_libcuda

    fake_libcuda.load()  # before anything looks for libcuda
    from support.fake_libcuda import pycuda_stand_in

    sys.modules.update(pycuda_stand_in.as_modules())
    from builder_host.codegen import toolchain_cuda

    toolchain_cuda.CudaToolchain = EmulatedToolchain  # type: ignore[assignment, misc]
    from runtime_edge.cli import main

    return main(list(arguments))


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
