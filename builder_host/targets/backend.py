"""What a build needs to know of a device kind: target, toolchain, kernel families, code objects."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from builder_host.codegen.artifacts import ArtifactStore
from builder_host.codegen.compile_batch import CompileFailure
from builder_host.codegen.toolchain_c import CompiledObject, CToolchain
from builder_host.errors import BuilderError, CompileError
from builder_host.kernels.family import GridLaunch, KernelFamily, Program
from builder_host.registry import kernel_families
from builder_host.targets.target import cpu_target
from planformat.fingerprint import DeviceFingerprint
from planformat.plan import CodeKind, CodeObject, Kernel

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LinkedCode:
    """Code objects of a plan and where each kernel is found."""

    code_objects: tuple[CodeObject, ...]
    kernels: tuple[Kernel, ...]

    def kernel_index(self, symbol: str) -> int:
        """Index of a kernel by its symbol."""
        return next(i for i, kernel in enumerate(self.kernels) if kernel.symbol == symbol)


class KernelTarget(Protocol):
    """A target and the kernel families for it: enough to lay out, generate and pack."""

    target: Any
    target_kind: str  # `cpu` or `cuda`
    families: tuple[KernelFamily, ...]


class Backend(KernelTarget, Protocol):
    """One device kind with its target and tools."""

    @property
    def version(self) -> str:
        """Compiler name and version."""
        ...

    @property
    def identity(self) -> str:
        """All of the toolchain that can change code: part of the timing cache key."""
        ...

    @property
    def default_workers(self) -> int:
        """Workers to tune for when the user names no number."""
        ...

    def compile_objects(self, sources: Sequence[str]) -> Sequence[Any]:
        """One compiled object or CompileFailure per source."""
        ...

    def launch_problem(self, program: Program, compiled: Any) -> str:
        """Why the target cannot launch a compiled program; empty when it can."""
        ...

    def link(self, programs: Sequence[Program]) -> LinkedCode:
        """Code objects for a plan that runs these programs. Raises CompileError."""
        ...

    def support_code(self) -> bytes:
        """What a device needs beside the candidates to time them; may be empty."""
        ...


class CpuBackend:
    """Generated C in one shared object."""

    target_kind = "cpu"

    def __init__(
        self,
        fingerprint: DeviceFingerprint,
        *,
        compiler: str,
        store: ArtifactStore,
        jobs: int,
        executor: Executor | None = None,
    ) -> None:
        """Raises TargetError or CompileError when the target or compiler does not fit."""
        self._executor = executor
        self.target = cpu_target(fingerprint)
        self.families = kernel_families("cpu")
        self.toolchain = CToolchain(self.target, compiler=compiler, store=store, jobs=jobs)
        self.version = self.toolchain.version
        self.identity = self.toolchain.identity
        self.default_workers = self.target.num_cores

    def compile_objects(self, sources: Sequence[str]) -> Sequence[CompiledObject | CompileFailure]:
        """Compile in parallel through the artifact store."""
        return self.toolchain.compile_objects(sources, self._executor)

    def launch_problem(self, _program: Program, _compiled: Any) -> str:
        """Any work units can be launched."""
        return ""

    def support_code(self) -> bytes:
        """The worker pool that runs candidates."""
        return self.toolchain.link_shared([], exported=[])

    def link(self, programs: Sequence[Program]) -> LinkedCode:
        """One shared object with every kernel and the support code."""
        symbols = _symbols(programs)
        objects = _all_compiled(self, programs)
        data = self.toolchain.link_shared(objects, exported=symbols)
        code = CodeObject(
            CodeKind.SHARED_OBJECT, self.target.architecture, self.toolchain.version, data
        )
        return LinkedCode((code,), tuple(Kernel(symbol, 0) for symbol in symbols))


class CudaBackend:
    """Generated CUDA C++ in cubins, or one PTX per source for drivers that take no cubin."""

    target_kind = "cuda"

    def __init__(
        self,
        fingerprint: DeviceFingerprint,
        *,
        hardware: Mapping[str, int | float] | None,
        store: ArtifactStore,
        jobs: int,
        executor: Executor | None = None,
    ) -> None:
        """Raises TargetError or CompileError when the target or toolkit does not fit."""
        self._executor = executor
        from builder_host.codegen.toolchain_cuda import CudaToolchain
        from builder_host.targets.cuda import cuda_target

        self.target = cuda_target(fingerprint, hardware)
        self.families = kernel_families("cuda")
        self.toolchain = CudaToolchain(self.target, store=store, jobs=jobs)
        self.version = self.toolchain.version
        self.identity = self.toolchain.identity
        self.default_workers = 1

    def compile_objects(self, sources: Sequence[str]) -> Sequence[Any]:
        """Compile in parallel through the artifact store."""
        return self.toolchain.compile_objects(sources, self._executor)

    def launch_problem(self, program: Program, compiled: Any) -> str:
        """Registers, threads and shared memory against the target's limits."""
        from builder_host.codegen.nvrtc_cubin import geometry_problem, launch_problem

        for launch in program.launches:
            if not isinstance(launch, GridLaunch):
                raise BuilderError(f"kernel '{launch.symbol}' has no CUDA launch geometry")
            problem = geometry_problem(launch.symbol, launch.grid, launch.block) or launch_problem(
                self.target,
                compiled.kernel(launch.symbol),
                math.prod(launch.block),
                launch.shared_memory_bytes,
            )
            if problem is not None:
                return problem
        return ""

    def support_code(self) -> bytes:
        """The driver launches kernels itself."""
        return b""

    def link(self, programs: Sequence[Program]) -> LinkedCode:
        """Few code objects, see `merged_sources`; launches are checked against the target."""
        distinct = list({program.source: program for program in programs}.values())
        alone = _all_compiled(self, distinct)
        for program, compiled in zip(distinct, alone, strict=True):
            problem = self.launch_problem(program, compiled)
            if problem:
                raise CompileError(problem)
        codes: list[CodeObject] = []
        kernels: dict[str, Kernel] = {}
        for compiled, members in self._modules(distinct, alone):
            for program in members:
                for launch in program.launches:
                    kernels[launch.symbol] = Kernel(launch.symbol, len(codes))
            kind = CodeKind.PTX if compiled.is_ptx else CodeKind.CUBIN
            codes.append(
                CodeObject(kind, f"sm_{self.target.sm}", self.toolchain.version, compiled.code)
            )
        return LinkedCode(tuple(codes), tuple(kernels.values()))

    def _modules(
        self, programs: Sequence[Program], alone: Sequence[Any]
    ) -> list[tuple[Any, list[Program]]]:
        """Compiled modules with the programs that each is for.

        Programs that were compiled together ship so only where every kernel came out with the
        instructions and resources that it has alone: what was timed is what ships. PTX, which the
        board's driver compiles, cannot be compared and stays as it is.
        """
        from builder_host.codegen.merged_sources import merge_sources

        own = {p.source: (p, one) for p, one in zip(programs, alone, strict=True)}
        units = [] if any(one.is_ptx for one in alone) else merge_sources(list(own))
        together: dict[str, Any] = {}  # by source
        for unit, merged in zip(
            units, self.compile_objects([unit.text for unit in units]), strict=True
        ):
            if isinstance(merged, CompileFailure):
                log.warning("%d kernels ship apart: %s", len(unit.sources), merged.error)
                continue
            for source in unit.sources:
                program, compiled = own[source]
                if all(compiled.has_same_kernel(merged, x.symbol) for x in program.launches):
                    together[source] = merged
                else:
                    symbol = program.launches[0].symbol
                    log.info("%s ships apart: compiled with others it is another code", symbol)
        modules: dict[int, tuple[Any, list[Program]]] = {}
        for source, (program, compiled) in own.items():
            module = together.get(source, compiled)
            modules.setdefault(id(module), (module, []))[1].append(program)
        return list(modules.values())


def make_backend(
    fingerprint: DeviceFingerprint,
    *,
    compiler: str,
    artifact_dir: str | os.PathLike[str] | None,
    jobs: int,
    hardware: Mapping[str, int | float] | None = None,
    executor: Executor | None = None,
) -> CpuBackend | CudaBackend:
    """The backend for a fingerprint's device kind.

    Args:
        fingerprint: of the target.
        compiler: C compiler, used for CPU targets.
        artifact_dir: store of generated code; None: the user's cache folder.
        jobs: compilers at once.
        hardware: facts of the board file beside the fingerprint.
        executor: runs compilations; None: threads of this process.
    """
    store = ArtifactStore(Path(artifact_dir) if artifact_dir is not None else None)
    if fingerprint.device_kind == "cuda":
        return CudaBackend(
            fingerprint, hardware=hardware, store=store, jobs=jobs, executor=executor
        )
    return CpuBackend(fingerprint, compiler=compiler, store=store, jobs=jobs, executor=executor)


class TargetWithoutTools:
    """A target whose code exists already: nothing is compiled for it. See `KernelTarget`."""

    def __init__(self, fingerprint: DeviceFingerprint, hardware: Mapping[str, int | float]) -> None:
        """Raises TargetError when nothing is generated for the fingerprint."""
        self.target_kind = fingerprint.device_kind
        self.target: Any
        if self.target_kind == "cuda":
            from builder_host.targets.cuda import cuda_target

            self.target = cuda_target(fingerprint, hardware)
        else:
            self.target = cpu_target(fingerprint)
        self.families = kernel_families(self.target_kind)


def _symbols(programs: Sequence[Program]) -> list[str]:
    return list(dict.fromkeys(launch.symbol for p in programs for launch in p.launches))


def _all_compiled(backend: Backend, programs: Sequence[Program]) -> list[Any]:
    sources = list(dict.fromkeys(program.source for program in programs))
    compiled = backend.compile_objects(sources)
    for one in compiled:
        if isinstance(one, CompileFailure):
            raise CompileError(one.error)
    return list(compiled)
