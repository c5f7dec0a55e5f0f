"""CUDA C++ to cubins for exact GPUs: every architecture, containers, limits, refusals.

The toolkits are installed into the user's cache folder on first use (11.8 and 12.6: 90 MB), those
of the tests marked slow too (12.2, 12.9, 13.0: 300 MB). An unreachable package index is a failure.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
from support.cuda_sources import FEATURES, SPILLING, copy_kernel

from builder_host.codegen import toolchain_cuda
from builder_host.codegen.artifacts import ArtifactStore
from builder_host.codegen.compile_batch import CompileFailure
from builder_host.codegen.nvrtc_cubin import (
    KernelResources,
    blocks_per_sm,
    geometry_problem,
    launch_problem,
    read_cubin_header,
    read_kernels,
    require_loadable,
)
from builder_host.codegen.nvrtc_install import (
    PACKAGES,
    default_toolkit_root,
    install_cuda,
    is_installed,
)
from builder_host.codegen.nvrtc_process import (
    NvrtcLibrary,
    NvrtcRequest,
    NvrtcWorker,
    compile_source,
)
from builder_host.codegen.toolchain_cuda import CompiledCubin, CudaToolchain
from builder_host.errors import CompileError
from builder_host.targets.cuda import (
    ARCHITECTURES,
    TOOLKITS,
    CudaTarget,
    CudaVersion,
    cuda_target,
    version_text,
)
from builder_host.targets.target import target_fingerprint
from planformat.fingerprint import DeviceFingerprint
from runtime_edge.cli import main

DEFAULT_TOOLKITS = ((11, 8), (12, 6))


def make_target(name: str, driver: CudaVersion) -> CudaTarget:
    fields = {
        "cuda.compute_capability": version_text(ARCHITECTURES[name].compute_capability),
        "cuda.cuda_version": version_text(driver),
        "cuda.num_sms": "8",
    }
    return cuda_target(DeviceFingerprint("cuda", fields))


def make_toolchain(target: CudaTarget, root, jobs: int = 2) -> CudaToolchain:
    install_cuda(target.toolkit)
    return CudaToolchain(target, store=ArtifactStore(root), jobs=jobs)


def compiled(toolchain: CudaToolchain, source: str) -> CompiledCubin:
    (result,) = toolchain.compile_objects([source])
    assert isinstance(result, CompiledCubin), result
    return result


def combinations():
    for name, row in ARCHITECTURES.items():
        for version in TOOLKITS:
            if row.first_toolkit <= version <= row.last_toolkit:
                marks = [] if version in DEFAULT_TOOLKITS else [pytest.mark.slow]
                yield pytest.param(name, version, id=f"{name}-{version_text(version)}", marks=marks)


def expected_kernels(target: CudaTarget) -> set[str]:
    features = {
        "halves": True,  # sm_61 compiles it too, slow as it is
        "dp4a": target.has_dp4a,
        "wmma_f16": target.has_wmma,
        "mma_s8": target.has_mma_s8,
        "mma_f16": target.has_mma_f16,
        "tma": target.has_tma,
        "mma_async": target.has_mma_k16 and target.has_bf16,
        "dependent": target.has_dependent_launch and target.has_clusters,
        "wgmma": target.has_wgmma,
    }
    return {name for name, has in features.items() if has}


@pytest.mark.parametrize(("name", "version"), list(combinations()))
def test_every_architecture_compiles_with_every_toolkit_that_knows_it(name, version, tmp_path):
    """All groups of instructions that the target claims; the container is what drivers expect."""
    target = make_target(name, version)
    assert target.toolkit == version
    result = compiled(make_toolchain(target, tmp_path), FEATURES)
    assert {kernel.name for kernel in result.kernels} == expected_kernels(target)
    assert all(0 < kernel.num_registers <= 255 for kernel in result.kernels)
    header = read_cubin_header(result.code)
    assert header.sm == int(name)
    assert header.is_new_container == (version >= (13, 0) or int(name) >= 100)
    assert header.toolkit == (None if header.is_new_container else version)


@pytest.mark.parametrize(
    ("board", "toolkit", "is_new_container"),
    [
        ("jetson-xavier-nx@jetpack5", (11, 8), False),
        ("jetson-agx-orin@jetpack5", (11, 8), False),
        ("jetson-agx-orin@jetpack6", (12, 6), False),
        ("h200@r560", (12, 6), False),
        pytest.param("jetson-agx-orin@jetpack6.0", (12, 2), False, marks=pytest.mark.slow),
        pytest.param("jetson-agx-orin@jetpack7.2", (13, 0), True, marks=pytest.mark.slow),
        pytest.param("jetson-agx-thor", (13, 0), True, marks=pytest.mark.slow),
        pytest.param("rtx5090@r570", (12, 9), True, marks=pytest.mark.slow),
    ],
)
def test_boards_get_the_container_that_their_driver_takes(
    board, toolkit, is_new_container, tmp_path
):
    target = cuda_target(target_fingerprint(board))
    toolchain = make_toolchain(target, tmp_path)
    assert toolchain.toolkit.version == toolkit
    result = compiled(toolchain, copy_kernel("k"))
    assert not result.is_ptx
    assert read_cubin_header(result.code).is_new_container == is_new_container


@pytest.mark.parametrize(
    ("board", "ptx_version"),
    [("jetson-nano", "6.5"), ("jetson-xavier-nx@jetpack4", "6.5"), ("drive-px2-integrated", "6.0")],
)
def test_drivers_before_cuda_11_get_ptx_in_their_version(board, ptx_version, tmp_path):
    target = cuda_target(target_fingerprint(board))
    result = compiled(make_toolchain(target, tmp_path), FEATURES)
    assert result.is_ptx
    lines = result.code.decode().splitlines()
    assert [line for line in lines if line.startswith(".version")] == [f".version {ptx_version}"]
    assert f".target sm_{target.sm}" in lines
    assert {kernel.name for kernel in result.kernels} == expected_kernels(target)


def test_resources_are_read_back(tmp_path):
    toolchain = make_toolchain(make_target("87", (12, 6)), tmp_path)
    copy = compiled(toolchain, copy_kernel("copy", 2048, threads=256)).kernel("copy")
    assert (copy.static_shared_bytes, copy.max_threads) == (2048, 256)
    assert (copy.stack_bytes, copy.spill_store_bytes, copy.spill_load_bytes) == (0, 0, 0)
    spilling = compiled(toolchain, SPILLING).kernel("spilling")
    assert spilling.num_registers == 64  # 65,536 registers for 1,024 threads
    assert spilling.max_threads == 1024
    # At least the 32 values that do not fit are stored and loaded once.
    assert spilling.spill_store_bytes >= 32 * 4
    assert spilling.spill_load_bytes >= 32 * 4
    assert spilling.stack_bytes >= 32 * 4


def test_equal_inputs_give_equal_bytes_wherever_the_toolkit_lies(tmp_path):
    target = make_target("87", (12, 6))
    first = compiled(make_toolchain(target, tmp_path / "a"), FEATURES)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "12.6").symlink_to(default_toolkit_root() / "12.6")
    store = ArtifactStore(tmp_path / "b")
    moved = CudaToolchain(target, store=store, jobs=1, toolkit_root=tmp_path / "elsewhere")
    second = compiled(moved, FEATURES)
    assert (first.key, first.code, first.kernels) == (second.key, second.code, second.kernels)
    for name in ("log.txt", "command.txt", "kernels.json"):
        one, other = first.path.with_name(name), second.path.with_name(name)
        assert one.read_bytes() == other.read_bytes(), name


def test_results_keep_their_order_and_the_store_is_used(tmp_path):
    toolchain = make_toolchain(make_target("80", (12, 6)), tmp_path)
    sources = [copy_kernel(f"k{number}") for number in (3, 1, 2, 1)]
    results = toolchain.compile_objects(sources)
    assert [result.kernels[0].name for result in results] == ["k3", "k1", "k2", "k1"]
    assert results[1] == results[3]
    again = make_toolchain(make_target("80", (12, 6)), tmp_path)
    assert again.compile_objects(sources) == results
    assert again.compile_objects([]) == []


def test_own_headers_come_with_the_source_and_are_part_of_the_identity(tmp_path, monkeypatch):
    folder = tmp_path / "headers"
    folder.mkdir()
    identities = set()
    for value in ("1.0f", "2.0f"):
        header = folder / value / "ep_value.cuh"
        header.parent.mkdir()
        header.write_text(f"#define EP_VALUE {value}\n")
        monkeypatch.setattr(toolchain_cuda, "INCLUDE_FOLDER", header.parent)
        toolchain = make_toolchain(make_target("87", (12, 6)), tmp_path)
        source = """
#include "ep_value.cuh"
extern "C" __global__ void k(float* a) { *a = EP_VALUE; }
"""
        assert compiled(toolchain, source).kernel("k").max_threads == 0
        identities.add(toolchain.identity)
    assert len(identities) == 2


def test_any_executor_compiles(tmp_path):
    toolchain = make_toolchain(make_target("75", (12, 6)), tmp_path)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        good, bad = toolchain.compile_objects([copy_kernel("k"), "no CUDA"], executor)
    assert isinstance(good, CompiledCubin)
    assert isinstance(bad, CompileFailure)


def test_a_refused_source_is_a_result_with_command_and_log(tmp_path):
    toolchain = make_toolchain(make_target("87", (12, 6)), tmp_path)
    bad, good = toolchain.compile_objects(
        ['extern "C" __global__ void k() { undefined_thing(); }', copy_kernel("k")]
    )
    assert isinstance(good, CompiledCubin)
    assert isinstance(bad, CompileFailure)
    assert "kernel.cu(1): error: identifier" in bad.error
    assert "undefined_thing" in bad.error
    assert "nvrtc --gpu-architecture=sm_87 -std=c++17" in bad.error
    assert str(tmp_path) in bad.error  # where the source is kept


def test_instructions_of_another_architecture_are_refused(tmp_path):
    source = """
extern "C" __global__ void k() { asm volatile("wgmma.fence.sync.aligned;"); }
"""
    (result,) = make_toolchain(make_target("87", (12, 6)), tmp_path).compile_objects([source])
    assert isinstance(result, CompileFailure)
    assert "wgmma" in result.error


@pytest.mark.parametrize(
    "driver", [(12, 6), pytest.param((13, 0), marks=pytest.mark.slow)], ids=["12.6", "13.0"]
)
def test_too_much_static_shared_memory_is_a_failure(driver, tmp_path):
    toolchain = make_toolchain(make_target("90", driver), tmp_path)
    for _ in range(2):  # compiled, then found in the store
        (result,) = toolchain.compile_objects([copy_kernel("k", 64 * 1024)])
        assert isinstance(result, CompileFailure)
        assert "too much shared data" in result.error or "65,536 B" in result.error


KERNEL = KernelResources("conv", 64, 16 * 1024, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("name", "changes", "threads", "dynamic", "message"),
    [
        ("87", {}, 0, 0, "conv: 0 threads per block; sm_87 allows 1 to 1,024"),
        ("87", {}, 1056, 0, "conv: 1056 threads per block"),
        ("87", {"max_threads": 128}, 256, 0, "compiled for at most 128 (__launch_bounds__)"),
        (
            "87",
            {"num_registers": 65},
            1024,
            0,
            "1024 threads of 65 registers take 73,728 registers per block, sm_87 allows 65,536",
        ),
        (
            "53",
            {},
            1024,
            0,
            "1024 threads of 64 registers take 65,536 registers per block, sm_53 allows 32,768",
        ),
        ("87", {"static_shared_bytes": 49153}, 32, 0, "49,153 B of static shared memory"),
        (
            "62",
            {},
            32,
            32769,
            "49,153 B of shared memory per block (32,769 B dynamic), sm_62 allows 49,152 B",
        ),
        ("87", {}, 32, 150529, "166,913 B of shared memory per block"),
    ],
)
def test_launches_beyond_the_limits_say_both_values(name, changes, threads, dynamic, message):
    target = make_target(name, (12, 6))
    kernel = dataclasses.replace(KERNEL, **changes)
    assert message in (launch_problem(target, kernel, threads, dynamic) or "")
    assert blocks_per_sm(target, kernel, threads, dynamic) == 0


@pytest.mark.parametrize(
    ("grid", "block", "message"),
    [
        ((1, 65536, 1), (32, 1, 1), "k: grid.y is 65,536; 1 to 65,535 are allowed"),
        ((2**31, 1, 1), (32, 1, 1), "k: grid.x is 2,147,483,648; 1 to 2,147,483,647 are allowed"),
        ((1, 1, 0), (32, 1, 1), "k: grid.z is 0; 1 to 65,535 are allowed"),
        ((1, 1, 1), (1, 1, 65), "k: block.z is 65; 1 to 64 are allowed"),
        ((2**31 - 1, 65535, 65535), (1024, 1, 1), ""),
    ],
)
def test_geometry_that_no_gpu_launches(grid, block, message):
    assert (geometry_problem("k", grid, block) or "") == message


@pytest.mark.parametrize(
    ("name", "registers", "static", "threads", "dynamic", "blocks"),
    [
        ("87", 32, 0, 32, 0, 16),  # blocks
        ("89", 32, 0, 32, 0, 24),
        ("90", 32, 0, 256, 0, 8),  # threads: 2,048 / 256
        ("86", 32, 0, 256, 0, 6),  # threads: 1,536 / 256
        ("80", 64, 0, 256, 0, 4),  # registers: 65,536 / (64 x 256)
        ("80", 65, 0, 256, 0, 3),  # 65 count as 72: 7 warps a partition, 28 / 8
        ("80", 32, 16 * 1024, 128, 0, 9),  # shared: 164 / (16 + 1)
        ("80", 32, 0, 128, 163 * 1024, 1),
        ("61", 32, 0, 128, 48 * 1024, 2),  # nothing is reserved before sm_80
    ],
)
def test_occupancy(name, registers, static, threads, dynamic, blocks):
    kernel = KernelResources("k", registers, static, 0, 0, 0, 0)
    assert blocks_per_sm(make_target(name, (12, 6)), kernel, threads, dynamic) == blocks


def test_cubins_that_the_board_cannot_load_are_refused(tmp_path):
    cubin = compiled(make_toolchain(make_target("87", (12, 6)), tmp_path), copy_kernel("k")).code
    require_loadable(cubin, make_target("87", (11, 4)))
    with pytest.raises(CompileError, match="the cubin is for sm_87; the target is sm_86"):
        require_loadable(cubin, make_target("86", (12, 6)))
    renewed = bytearray(cubin)
    renewed[7:9] = b"\x41\x08"
    renewed[48:52] = (0x06005704).to_bytes(4, "little")
    require_loadable(bytes(renewed), make_target("87", (13, 2)))
    with pytest.raises(CompileError, match=r"container of CUDA 13, which a driver of CUDA 12.6"):
        require_loadable(bytes(renewed), make_target("87", (12, 6)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "not a cubin: 0 bytes"),
        (lambda data: b"\x7fELF\x01" + data[5:], "not a cubin"),
        (lambda data: data[:18] + b"\x3e\x00" + data[20:], "an ELF of machine 62, expected 190"),
        (lambda data: data[:7] + b"\x00\x09" + data[9:], "unknown cubin container"),
    ],
)
def test_what_is_no_cubin_is_refused(change, message, tmp_path):
    cubin = compiled(make_toolchain(make_target("87", (12, 6)), tmp_path), copy_kernel("k")).code
    with pytest.raises(CompileError, match=message):
        read_cubin_header(change(cubin))


def test_a_log_of_other_kernels_is_refused(tmp_path):
    result = compiled(make_toolchain(make_target("87", (12, 6)), tmp_path), copy_kernel("k"))
    log = result.path.with_name("log.txt").read_text()
    assert read_kernels(result.code, log) == result.kernels
    with pytest.raises(CompileError, match="says nothing about the kernels"):
        read_kernels(result.code, "")
    with pytest.raises(CompileError, match="speaks of the kernel 'other', which the cubin lacks"):
        read_kernels(result.code, log.replace("'k'", "'other'"))


def test_a_missing_toolkit_says_how_to_install_it(tmp_path):
    with pytest.raises(CompileError, match=r"12\.6 is not installed in .*toolchain install 12\.6"):
        CudaToolchain(
            make_target("87", (12, 6)),
            store=ArtifactStore(tmp_path / "store"),
            jobs=1,
            toolkit_root=tmp_path / "toolkits",
        )


def test_an_unknown_toolkit_lists_the_known_ones(tmp_path):
    with pytest.raises(CompileError, match=r"no CUDA toolkit 12\.5 .*known: 11\.8, 12\.2"):
        install_cuda((12, 5), tmp_path)


def test_toolkits_and_packages_agree():
    assert tuple(PACKAGES) == TOOLKITS


def test_a_toolkit_of_other_packages_counts_as_missing(tmp_path):
    (tmp_path / "12.6").mkdir()
    mark = tmp_path / "12.6" / "edgeplan-toolkit.json"
    for content in ('{"packages": ["nvidia-cuda-nvrtc-cu12==12.6.20"]}', "{", "[]"):
        mark.write_text(content)
        assert not is_installed((12, 6), tmp_path)


def test_a_failing_pip_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    with pytest.raises(CompileError, match=r"(?s)installing CUDA toolkit 13\.0 failed.*nvrtc"):
        install_cuda((13, 0), tmp_path / "toolkits")
    assert list((tmp_path / "toolkits").iterdir()) == []


def test_a_library_of_another_version_is_refused():
    library = install_cuda((12, 6)).library
    wrong = NvrtcLibrary(library.library, library.builtins, (12, 2))
    with pytest.raises(CompileError, match=r"expected NVRTC 12\.2, found 12\.6"):
        NvrtcWorker(wrong)
    gone = NvrtcLibrary("/nowhere/libnvrtc.so", library.builtins, (12, 6))
    with pytest.raises(CompileError, match=r"found none: /nowhere/libnvrtc\.so: cannot open"):
        NvrtcWorker(gone)


def test_a_compiler_that_takes_too_long_is_stopped():
    library = install_cuda((12, 6)).library
    request = NvrtcRequest(SPILLING, "sm_87", ())
    reply = compile_source(library, request, timeout_s=0.0)
    assert reply.code == b""
    assert "took too long" in reply.log
    assert compile_source(library, request).code  # the next one gets a new process


def test_a_compiler_that_ends_is_replaced_once():
    library = install_cuda((12, 6)).library
    request = NvrtcRequest(copy_kernel("k"), "sm_87", ())
    worker = NvrtcWorker(library)
    assert worker.compile(request) is not None
    worker.end()
    assert worker.compile(request) is None
    assert "ended with signal 9" in worker.obituary()
    worker.close()
    assert compile_source(library, request).code


def test_toolchain_command_lists_what_is_installed(capsys):
    install_cuda((12, 6))
    assert main(["toolchain", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("12.6   installed") and " sm_87 " in line for line in lines)
    assert main(["toolchain", "install", "12.6"]) == 0
    assert "libnvrtc.so.12" in capsys.readouterr().out
    assert main(["toolchain", "install", "7.5"]) == 1
    assert "no CUDA toolkit '7.5' is known; known: 11.8" in capsys.readouterr().err
    assert main(["toolchain", "install"]) == 1
    assert "name the CUDA versions" in capsys.readouterr().err
