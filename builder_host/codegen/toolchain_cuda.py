"""CUDA C++ to cubins for one exact GPU, without a GPU, a driver or a system toolkit.

NVRTC comes from pinned wheels (`nvrtc_install`) and runs in processes of its own
(`nvrtc_process`). Drivers before CUDA 11 (JetPack 4) take no cubin that these toolkits make; for
them the result is PTX, labelled with a version that the driver reads, which the board's driver
compiles once. Output bytes depend on source, headers, options and toolkit only.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from builder_host.codegen.artifacts import ArtifactStore
from builder_host.codegen.compile_batch import (
    CompileFailure,
    CompileSteps,
    compile_sources,
    refused,
)
from builder_host.codegen.nvrtc_cubin import (
    KernelResources,
    kernel_code,
    launch_problem,
    read_kernels,
    require_loadable,
)
from builder_host.codegen.nvrtc_install import CudaToolkit, load_toolkit
from builder_host.codegen.nvrtc_process import NvrtcRequest, compile_source
from builder_host.codegen.toolchain_c import COMPILE_TIMEOUT_S
from builder_host.errors import CompileError
from builder_host.targets.cuda import CudaTarget, version_text

INCLUDE_FOLDER = Path(__file__).parent / "cuda_include"

OPTIONS = ("-std=c++17", "--ptxas-options=-v")
# From 12.9 on NVRTC keeps results in the user's home; what comes from there lacks the ptxas log.
_FIRST_WITH_CACHE, _NO_CACHE_OPTION = (12, 9), "--no-cache"
# `__dp4a` of CUDA 11.8 and 12.2 is declared in a header that NVRTC does not include by itself.
_DP4A_OPTION = "--pre-include=sm_61_intrinsics.hpp"
_VERSION_LINE = re.compile(rb"^\.version\s+\S+$", re.MULTILINE)
_NOISE = re.compile(r"^ptxas info\s*: Compile time = .*\n?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class CompiledCubin:
    """A compiled source.

    Attributes:
        key: content hash of source, headers, options and toolkit.
        path: `kernel.cubin`, or `kernel.ptx` for drivers that take no cubin.
        kernels: resources of each, by name.
    """

    key: str
    path: Path
    kernels: tuple[KernelResources, ...]

    @property
    def code(self) -> bytes:
        """What the driver loads: ELF, or PTX text without a terminating zero."""
        return self.path.read_bytes()

    @property
    def is_ptx(self) -> bool:
        """The driver compiles it when it is loaded first."""
        return self.path.suffix == ".ptx"

    def kernel(self, name: str) -> KernelResources:
        """Resources of one kernel; KeyError when there is no such kernel."""
        return {kernel.name: kernel for kernel in self.kernels}[name]

    def has_same_kernel(self, other: CompiledCubin, name: str) -> bool:
        """Whether a kernel has the same instructions and resources in another cubin."""
        code = kernel_code(self.code, name)
        return (
            code is not None
            and code == kernel_code(other.code, name)
            and self.kernel(name) == other.kernel(name)
        )


@dataclass(frozen=True, slots=True)
class CudaCompileJob:
    """All that a worker needs to compile one source; can be sent to another process.

    Attributes:
        request: source, architecture, options and headers.
        toolkit: where the compiler is; a worker on another machine needs it at the same path.
        sm: exact architecture, e.g. `90a`.
        ptx_version: PTX of this version is wanted instead of a cubin.
    """

    request: NvrtcRequest
    toolkit: CudaToolkit
    sm: str
    ptx_version: str | None


@dataclass(frozen=True, slots=True)
class CudaCompileOutcome:
    """What a worker sends back.

    Attributes:
        log: of the compiler, without times.
        cubin: empty when the compiler refused; made from the PTX when that is wanted.
        ptx: empty unless wanted.
    """

    log: str
    cubin: bytes = b""
    ptx: bytes = b""


def compile_cuda_job(job: CudaCompileJob) -> CudaCompileOutcome:
    """Compile one source. Runs in the worker of any executor."""
    reply = compile_source(job.toolkit.library, job.request)
    log = _NOISE.sub("", reply.log)
    if not reply.code or job.ptx_version is None:
        return CudaCompileOutcome(log, reply.code)
    ptx, count = _VERSION_LINE.subn(f".version {job.ptx_version}".encode(), reply.code)
    if count != 1:
        return CudaCompileOutcome(f"{log}NVRTC's PTX has {count} version lines; expected 1\n")
    cubin, more = _assemble(ptx, job)
    return CudaCompileOutcome(log + more, cubin, ptx if cubin else b"")


class CudaToolchain:
    """Compiles CUDA C++ for one GPU.

    Attributes:
        target: the GPU.
        toolkit: the compiler, chosen by the target's driver.
        version: compiler, packages and architecture.
        identity: version, options and header hash: part of the timing cache key.
    """

    def __init__(
        self,
        target: CudaTarget,
        *,
        store: ArtifactStore,
        jobs: int,
        toolkit_root: Path | None = None,
    ) -> None:
        """Find the toolkit.

        Args:
            target: the GPU that code is made for.
            store: where artifacts are kept and found again.
            jobs: compilations at once when no executor is given.
            toolkit_root: folder of the toolkits; None: the user's cache folder.

        Raises:
            CompileError: the toolkit is not installed; the text says how to install it.
        """
        self.target = target
        self.store = store
        self.jobs = max(1, jobs)
        self.toolkit = load_toolkit(target.toolkit, toolkit_root)
        self._options = _options(target)
        self._headers = _headers(INCLUDE_FOLDER)
        code = f"PTX {target.ptx_version}" if target.ptx_version else "cubin"
        self.version = (
            f"NVRTC {version_text(target.toolkit)} ({' '.join(self.toolkit.packages)}), "
            f"{code} for sm_{target.sm}"
        )
        digest = hashlib.sha256(json.dumps(self._headers, sort_keys=True).encode()).hexdigest()
        self.identity = f"{self.version}; {' '.join(self._options)}; headers {digest[:16]}"

    def compile_objects(
        self, sources: Sequence[str], executor: Executor | None = None
    ) -> list[CompiledCubin | CompileFailure]:
        """Compile every source; equal sources and sources in the store are compiled once.

        A source that compiles but whose kernels cannot run on the target (registers of the declared
        block, static shared memory) is a failure too; `launch_problem` checks a launch in full.

        Args:
            sources: CUDA C++ texts; kernels best `extern "C"` and with `__launch_bounds__`.
            executor: runs the compilations, e.g. Dask's or Ray's; own threads by default.

        Returns:
            One result per source, in order.

        Raises:
            CompileError: the compiler does not start, or makes code for another device.
        """
        steps = CompileSteps(self._key, self._load, self._job, compile_cuda_job, self._stored)
        return compile_sources(sources, steps, executor, self.jobs)

    # --- parts ---------------------------------------------------------------------------

    def _key(self, source: str) -> str:
        return hashlib.sha256(f"{self.identity}\0{source}".encode()).hexdigest()

    def _job(self, source: str) -> CudaCompileJob:
        includes = tuple(f"-I{folder}" for folder in self.toolkit.include_folders)
        prefix = "compute_" if self.target.ptx_version else "sm_"
        request = NvrtcRequest(
            source, f"{prefix}{self.target.sm}", (*self._options, *includes), self._headers
        )
        return CudaCompileJob(request, self.toolkit, self.target.sm, self.target.ptx_version)

    def _load(self, key: str) -> CompiledCubin | CompileFailure | None:
        folder = self.store.get(key)
        return None if folder is None else self._checked(_load(key, folder))

    def _stored(
        self, key: str, job: CudaCompileJob, outcome: CudaCompileOutcome
    ) -> CompiledCubin | CompileFailure:
        command = f"nvrtc --gpu-architecture={job.request.architecture} {' '.join(self._options)}"
        files: dict[str, bytes | str] = {
            "kernel.cu": job.request.source,
            "command.txt": f"{command}\n{self.version}\n",
            "log.txt": outcome.log,
        }
        if not outcome.cubin:
            return refused(self.store, key, files, command, outcome.log)
        if not outcome.ptx:
            require_loadable(outcome.cubin, self.target)
        kernels = read_kernels(outcome.cubin, outcome.log)
        table = [dataclasses.asdict(kernel) for kernel in kernels]
        files["kernels.json"] = json.dumps(table, indent=1) + "\n"
        if outcome.ptx:
            files["kernel.ptx"] = outcome.ptx
        else:
            files["kernel.cubin"] = outcome.cubin
        return self._checked(_load(key, self.store.put(key, files)))

    def _checked(self, compiled: CompiledCubin) -> CompiledCubin | CompileFailure:
        for kernel in compiled.kernels:
            # Without declared bounds one warp stands in: the launch is checked where it is known.
            problem = launch_problem(self.target, kernel, kernel.max_threads or 32)
            if problem is not None:
                return CompileFailure(f"{problem}; the source is kept in {compiled.path.parent}")
        return compiled


def _options(target: CudaTarget) -> tuple[str, ...]:
    options = OPTIONS if target.ptx_version is None else OPTIONS[:1]
    if target.toolkit >= _FIRST_WITH_CACHE:
        options = (*options, _NO_CACHE_OPTION)
    return (*options, _DP4A_OPTION) if target.toolkit < (12, 6) else options


def _load(key: str, folder: Path) -> CompiledCubin:
    table = json.loads((folder / "kernels.json").read_text(encoding="utf-8"))
    path = folder / "kernel.cubin"
    return CompiledCubin(
        key,
        path if path.exists() else folder / "kernel.ptx",
        tuple(KernelResources(**row) for row in table),
    )


def _assemble(ptx: bytes, job: CudaCompileJob) -> tuple[bytes, str]:
    """Cubin of the PTX, which shows that it is right, and the log with its resources."""
    if job.toolkit.ptxas is None:
        raise CompileError(
            f"CUDA toolkit {version_text(job.toolkit.version)} has no ptxas to check PTX with"
        )
    with tempfile.TemporaryDirectory(prefix="edgeplan-ptx-") as name:
        folder = Path(name)
        (folder / "kernel.ptx").write_bytes(ptx)
        command = [
            job.toolkit.ptxas,
            "-v",
            f"-arch=sm_{job.sm}",
            "kernel.ptx",
            "-o",
            "kernel.cubin",
        ]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=COMPILE_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return b"", f"ptxas was stopped after {COMPILE_TIMEOUT_S:.0f} s\n"
        log = done.stdout + done.stderr
        if done.returncode != 0:
            return b"", log or f"ptxas ended with status {done.returncode}, no message\n"
        return (folder / "kernel.cubin").read_bytes(), log


@functools.cache
def _headers(folder: Path) -> dict[str, str]:
    """Texts of the product's own CUDA headers by name; given to NVRTC with each source."""
    paths = sorted([*folder.glob("*.cuh"), *folder.glob("*.h")])
    return {path.name: path.read_text(encoding="utf-8") for path in paths}
