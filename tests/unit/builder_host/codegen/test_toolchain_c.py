"""Compiling and linking: results in order, failures as results, equal bytes everywhere."""

from __future__ import annotations

import ctypes
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from support.cpu_kernels import AVX2, AVX512, NEON, runs_here

from builder_host.codegen.artifacts import ArtifactStore
from builder_host.codegen.compile_batch import CompileFailure
from builder_host.codegen.toolchain_c import (
    CompiledObject,
    CToolchain,
    compile_job,
)
from builder_host.errors import CompileError

SOURCE = """#include "ep_vector.h"
EP_EXPORT void NAME(void *const *args, int64_t b, int64_t e, void *scratch) {
  (void)scratch;
  for (int64_t i = b; i < e; ++i) ((float *)args[0])[i] = (float)i + VALUE;
}
"""


def kernel(name: str, value: int = 1) -> str:
    return SOURCE.replace("NAME", name).replace("VALUE", str(value))


def objects(tools: CToolchain, *sources: str) -> list[CompiledObject]:
    found = tools.compile_objects(sources)
    assert all(isinstance(item, CompiledObject) for item in found), found
    return [item for item in found if isinstance(item, CompiledObject)]


def test_equal_sources_are_compiled_once_and_found_again(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    tools = CToolchain(AVX2, store=store, jobs=2)
    first = objects(tools, kernel("one"), kernel("two"), kernel("one"))
    assert first[0] == first[2]
    stamp = first[0].object_path.stat().st_mtime_ns
    again = objects(CToolchain(AVX2, store=store, jobs=2), kernel("one"))
    assert again[0] == first[0]
    assert again[0].object_path.stat().st_mtime_ns == stamp
    kept = {path.name for path in first[0].path.parent.iterdir()}
    assert kept == {"kernel.c", "kernel.o", "kernel.so", "command.txt", "log.txt"}


def test_an_object_can_be_loaded_on_its_own(tmp_path: Path) -> None:
    if not runs_here("avx2"):
        pytest.skip("this machine has no AVX2")
    tools = CToolchain(AVX2, store=ArtifactStore(tmp_path), jobs=1)
    (compiled,) = objects(tools, kernel("alone", 5))
    values = (ctypes.c_float * 4)()
    arguments = (ctypes.c_void_p * 1)(ctypes.addressof(values))
    run = ctypes.CDLL(str(compiled.path)).alone
    run.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    run(arguments, 1, 3, None)
    assert list(values) == [0.0, 6.0, 7.0, 0.0]


def test_a_source_that_does_not_compile_is_a_result(tmp_path: Path) -> None:
    tools = CToolchain(AVX2, store=ArtifactStore(tmp_path), jobs=2)
    bad, good = tools.compile_objects([kernel("bad") + "int x = y;\n", kernel("good")])
    assert isinstance(good, CompiledObject)
    assert isinstance(bad, CompileFailure)
    assert "use of undeclared identifier 'y'" in bad.error
    assert str(tmp_path) in bad.error  # where source and log are kept


def test_any_executor_may_compile(tmp_path: Path) -> None:
    tools = CToolchain(AVX2, store=ArtifactStore(tmp_path), jobs=1)
    context = multiprocessing.get_context("spawn")  # earlier tests have left threads
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        found = tools.compile_objects([kernel("far")], executor)
    assert isinstance(found[0], CompiledObject)


def test_a_worker_elsewhere_uses_its_own_compiler(tmp_path: Path) -> None:
    tools = CToolchain(AVX2, store=ArtifactStore(tmp_path), jobs=1)
    job = tools._job(kernel("far"))
    moved = replace(
        job,
        command=("/elsewhere/site-packages/ziglang/zig", *job.command[1:]),
        link_command=("/elsewhere/site-packages/ziglang/zig", *job.link_command[1:]),
    )
    assert compile_job(moved) == compile_job(job)


@pytest.mark.parametrize("target", [AVX512, NEON], ids=["avx512", "neon"])
def test_linked_bytes_are_equal_in_two_folders(target: object, tmp_path: Path) -> None:
    results = []
    for name in ("here", "there/deeper"):
        tools = CToolchain(target, store=ArtifactStore(tmp_path / name), jobs=2)  # type: ignore[arg-type]
        linked = tools.link_shared(
            objects(tools, kernel("one"), kernel("two")), exported=["one", "two"]
        )
        results.append(linked)
    assert results[0] == results[1]
    assert str(tmp_path).encode() not in results[0]
    machine = int.from_bytes(results[0][18:20], "little")
    assert machine == {"x86_64": 62, "aarch64": 183}[target.architecture]  # type: ignore[attr-defined]


def test_a_linked_object_exports_kernels_and_the_runtime_only(tmp_path: Path) -> None:
    if not runs_here("avx2"):
        pytest.skip("this machine has no AVX2")
    tools = CToolchain(AVX2, store=ArtifactStore(tmp_path), jobs=2)
    data = tools.link_shared(objects(tools, kernel("shown"), kernel("hidden")), exported=["shown"])
    path = tmp_path / "plan.so"
    path.write_bytes(data)
    library = ctypes.CDLL(str(path))
    assert library.shown
    assert library.edgeplan_cpu_abi_version() >= 1
    with pytest.raises(AttributeError):
        library.hidden  # noqa: B018


def test_a_missing_export_is_an_error(tmp_path: Path) -> None:
    tools = CToolchain(AVX2, store=ArtifactStore(tmp_path), jobs=2)
    with pytest.raises(CompileError, match="absent"):
        tools.link_shared(objects(tools, kernel("one")), exported=["one", "absent"])


def test_identity_tells_targets_and_compilers_apart(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    known = {CToolchain(t, store=store, jobs=1).identity for t in (AVX512, AVX2, NEON)}
    richer = replace(AVX512, features=("avx512f", "avx512vnni"))
    known.add(CToolchain(richer, store=store, jobs=1).identity)
    if shutil.which("gcc"):
        known.add(CToolchain(AVX2, compiler="gcc", store=store, jobs=1).identity)
    assert len(known) == 4 + bool(shutil.which("gcc"))
    assert all("headers" in text for text in known)


def test_gcc_compiles_and_links(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    tools = CToolchain(AVX2, compiler="gcc", store=ArtifactStore(tmp_path), jobs=1)
    data = tools.link_shared(objects(tools, kernel("one")), exported=["one"])
    assert data[:4] == b"\x7fELF"


def test_a_compiler_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="'nocc' is not installed"):
        CToolchain(AVX2, compiler="nocc", store=ArtifactStore(tmp_path), jobs=1)


def test_isa_and_architecture_must_fit(tmp_path: Path) -> None:
    wrong = replace(NEON, architecture="x86_64")
    with pytest.raises(CompileError, match="no vector code for ISA 'neon' on x86_64"):
        CToolchain(wrong, store=ArtifactStore(tmp_path), jobs=1)
