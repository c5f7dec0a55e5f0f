"""Generated C to machine code: one object per source, one shared object per plan.

Output bytes depend on the source, the headers, the flags and the compiler only: no paths, no times,
no build ids.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from builder_host.codegen.artifacts import ArtifactStore
from builder_host.codegen.c_compiler import FLAGS, resolve_compiler, target_flags, zig_binary
from builder_host.codegen.compile_batch import (
    CompileFailure,
    CompileSteps,
    compile_sources,
    refused,
)
from builder_host.errors import CompileError
from builder_host.targets.target import CpuTarget

COMPILE_TIMEOUT_S = 300.0

INCLUDE_FOLDER = Path(__file__).parent / "c_include"
SUPPORT_FOLDER = Path(__file__).parent / "c_support"


@dataclass(frozen=True, slots=True)
class CompiledObject:
    """A compiled source.

    Attributes:
        key: content hash of source, headers, flags and compiler.
        path: shared object that can be loaded on its own, for timing one candidate.
        object_path: relocatable object, for `CToolchain.link_shared`.
    """

    key: str
    path: Path
    object_path: Path


@dataclass(frozen=True, slots=True)
class CompileJob:
    """All that a worker needs to compile one source; can be sent to another process.

    Attributes:
        source: C text.
        command: compiler and flags; `{include}` stands for the header folder.
        link_command: makes a shared object of `kernel.o`.
    """

    source: str
    command: tuple[str, ...]
    link_command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CompileOutcome:
    """What a worker sends back. `object_bytes` is empty when the compiler failed."""

    log: str
    object_bytes: bytes = b""
    shared_bytes: bytes = b""


def compile_job(job: CompileJob) -> CompileOutcome:
    """Compile one source in a fresh folder. Runs in the worker of any executor."""
    with tempfile.TemporaryDirectory(prefix="edgeplan-cc-") as name:
        folder = Path(name)
        (folder / "kernel.c").write_text(job.source)
        command = [part.replace("{include}", str(INCLUDE_FOLDER)) for part in _here(job.command)]
        code, log = _run([*command, "-c", "kernel.c", "-o", "kernel.o"], folder)
        if code != 0:
            return CompileOutcome(log or f"the compiler ended with status {code}, no message")
        link_command = _here(job.link_command)
        code, more = _run([*link_command, "kernel.o", "-o", "kernel.so"], folder)
        if code != 0:
            return CompileOutcome(log + more or f"the linker ended with status {code}")
        shared = (folder / "kernel.so").read_bytes()
        return CompileOutcome(log + more, (folder / "kernel.o").read_bytes(), shared)


def _here(command: Sequence[str]) -> Sequence[str]:
    """The command with this machine's zig: on a worker elsewhere it lies in another place."""
    program = Path(command[0])
    if program.name == "zig" and not program.exists():
        return (zig_binary(), *command[1:])
    return command


class CToolchain:
    """Compiles and links C for one CPU target.

    Attributes:
        version: compiler name, version and target triple.
        identity: version, flags and header hash: part of the timing cache key.
    """

    def __init__(
        self, target: CpuTarget, *, compiler: str = "zig", store: ArtifactStore, jobs: int
    ) -> None:
        """Choose a compiler.

        Args:
            target: the CPU that code is made for.
            compiler: `zig`, `gcc`, `clang`, or the path of a gcc or clang.
            store: where artifacts are kept and found again.
            jobs: compilations at once when no executor is given.

        Raises:
            CompileError: the compiler is not installed, or cannot make code for the target.
        """
        self.target = target
        self.store = store
        self.jobs = max(1, jobs)
        self._compiler = resolve_compiler(compiler, target)
        self._flags = (*FLAGS, *target_flags(self._compiler.family, target))
        shown = " ".join(self._flags)
        headers = _folder_hash(INCLUDE_FOLDER)
        self.version = self._compiler.version
        self.identity = f"{self._compiler.version}; {shown}; headers {headers[:16]}"

    def compile_objects(
        self, sources: Sequence[str], executor: Executor | None = None
    ) -> list[CompiledObject | CompileFailure]:
        """Compile every source; equal sources and sources in the store are compiled once.

        Args:
            sources: C texts that include `ep_vector.h`.
            executor: runs the compilations, e.g. Dask's or Ray's; own threads by default.

        Returns:
            One result per source, in order.
        """
        steps = CompileSteps(self._key, self._load, self._job, compile_job, self._stored)
        return compile_sources(sources, steps, executor, self.jobs)

    def link_shared(self, objects: Sequence[CompiledObject], *, exported: Sequence[str]) -> bytes:
        """Link objects and the runtime support code into one shared object.

        Args:
            objects: results of `compile_objects`; duplicates are linked once.
            exported: functions that the plan's steps call.

        Returns:
            The file's bytes; equal arguments give equal bytes on every machine and day.

        Raises:
            CompileError: the support code or the link failed, e.g. a symbol is missing.
        """
        unique = list({item.key: item for item in objects}.values())
        digest = hashlib.sha256(
            "\0".join(
                [self.identity, _folder_hash(SUPPORT_FOLDER), *(o.key for o in unique), *exported]
            ).encode()
        )
        key = digest.hexdigest()
        folder = self.store.get(key)
        if folder is None:
            folder = self._link(key, unique, exported)
        return (folder / "plan.so").read_bytes()

    # --- parts ---------------------------------------------------------------------------

    def _key(self, source: str) -> str:
        return hashlib.sha256(f"{self.identity}\0{source}".encode()).hexdigest()

    def _job(self, source: str) -> CompileJob:
        command = (*self._compiler.command, *self._flags, "-I{include}")
        return CompileJob(source, command, self._compiler.bare_link)

    def _load(self, key: str) -> CompiledObject | None:
        folder = self.store.get(key)
        return None if folder is None else _compiled(key, folder)

    def _stored(
        self, key: str, job: CompileJob, outcome: CompileOutcome
    ) -> CompiledObject | CompileFailure:
        command = " ".join(job.command)
        files: dict[str, bytes | str] = {
            "kernel.c": job.source,
            "command.txt": f"{command}\n{self._compiler.version}\n",
            "log.txt": outcome.log,
        }
        if not outcome.object_bytes:
            return refused(self.store, key, files, command, outcome.log)
        files |= {"kernel.o": outcome.object_bytes, "kernel.so": outcome.shared_bytes}
        return _compiled(key, self.store.put(key, files))

    def _link(self, key: str, objects: Sequence[CompiledObject], exported: Sequence[str]) -> Path:
        names = [f"{number:05d}.o" for number in range(len(objects))]
        supports = sorted(SUPPORT_FOLDER.glob("*.c"))
        env = {"ZIG_GLOBAL_CACHE_DIR": str(self.store.root / "zig")}
        with tempfile.TemporaryDirectory(prefix="edgeplan-ld-") as temporary:
            folder = Path(temporary)
            for item, name in zip(objects, names, strict=True):
                shutil.copyfile(item.object_path, folder / name)
            for path in [*supports, *SUPPORT_FOLDER.glob("*.h")]:
                shutil.copyfile(path, folder / path.name)
            for path in supports:
                command = [*self._compiler.command, *self._flags, "-c", path.name]
                self._must_run([*command, "-o", f"{path.stem}.o"], folder, env)
            script = "".join(f"    {name};\n" for name in sorted({*exported, "edgeplan_*"}))
            (folder / "exported.map").write_text(f"{{\n  global:\n{script}  local:\n    *;\n}};\n")
            command = [
                *self._compiler.command,
                *target_flags(self._compiler.family, self.target),
                *self._compiler.plan_link,
                "-Wl,--version-script=exported.map",
                *(f"{path.stem}.o" for path in supports),
                *names,
                *self._compiler.libraries,
            ]
            log = self._must_run([*command, "-o", "plan.so"], folder, env)
            data = (folder / "plan.so").read_bytes()
        missing = [name for name in exported if name.encode() + b"\0" not in data]
        if missing:
            raise CompileError(
                f"no object defines {missing[0]} ({len(missing)} of {len(exported)} exported "
                "functions are missing): a family's launches and source do not agree"
            )
        text = " ".join(command) + "\n"
        files: dict[str, bytes | str] = {"plan.so": data, "command.txt": text, "log.txt": log}
        return self.store.put(key, files)

    def _must_run(self, command: Sequence[str], folder: Path, env: dict[str, str]) -> str:
        code, log = _run(command, folder, env)
        if code != 0:
            raise CompileError(f"linking the plan's code failed: {' '.join(command)}\n{log}")
        return log


def _compiled(key: str, folder: Path) -> CompiledObject:
    return CompiledObject(key, folder / "kernel.so", folder / "kernel.o")


@functools.cache
def _folder_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.h"), *folder.glob("*.c")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _run(
    command: Sequence[str], folder: Path, env: dict[str, str] | None = None
) -> tuple[int, str]:
    """Exit status and messages. Zig's own cache lives in `folder` unless `env` says otherwise."""
    zig = str(folder / "zig")
    cache = {"ZIG_LOCAL_CACHE_DIR": zig, "ZIG_GLOBAL_CACHE_DIR": zig}
    try:
        done = subprocess.run(
            list(command),
            cwd=folder,
            env={**os.environ, "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0", **cache, **(env or {})},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMPILE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, f"stopped after {COMPILE_TIMEOUT_S:.0f} s"
    return done.returncode, done.stdout + done.stderr
