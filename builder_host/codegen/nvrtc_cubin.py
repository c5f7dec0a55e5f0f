"""What a cubin says about itself: container, architecture, and the resources of its kernels."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from builder_host.errors import CompileError
from builder_host.targets.cuda import (
    MAX_BLOCK,
    MAX_GRID,
    MAX_REGISTERS_PER_THREAD,
    MAX_STATIC_SHARED_BYTES,
    MAX_THREADS_PER_BLOCK,
    WARP_THREADS,
    CudaTarget,
    CudaVersion,
    version_text,
)

# ELF identification (OS ABI, ABI version) of the two containers that NVIDIA's tools know.
_OLD_CONTAINER = (0x33, 7)
_NEW_CONTAINER = (0x41, 8)
_EM_CUDA = 190
_EIATTR_MAX_THREADS, _EIATTR_FRAME_SIZE, _EIATTR_REGCOUNT = 0x05, 0x11, 0x2F
_EIFMT_SIZED = 0x04

_REGISTERS_PER_WARP_UNIT = 256  # registers are given out to warps in units of this many
_SHARED_UNIT_BYTES = 128
_SM_PARTITIONS = 4
_RESERVED_SHARED_BYTES = 1024  # of every block, from sm_80 on


@dataclass(frozen=True, slots=True)
class KernelResources:
    """What one kernel needs.

    Attributes:
        name: symbol.
        num_registers: 32-bit registers per thread.
        static_shared_bytes: shared memory declared in the source.
        stack_bytes: local memory per thread, spills included.
        spill_store_bytes, spill_load_bytes: code that moves registers to local memory and back.
        max_threads: block size that `__launch_bounds__` declares; 0: none.
    """

    name: str
    num_registers: int
    static_shared_bytes: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int
    max_threads: int


@dataclass(frozen=True, slots=True)
class CubinHeader:
    """Head of a cubin.

    Attributes:
        sm: number in `sm_NN`.
        is_new_container: the ELF that CUDA 13 writes for all, CUDA 12 for sm_100 and later.
        toolkit: of the old container only: the toolkit that wrote it, e.g. (12, 6).
    """

    sm: int
    is_new_container: bool
    toolkit: CudaVersion | None


def read_cubin_header(cubin: bytes) -> CubinHeader:
    """Container and architecture of a cubin.

    Raises:
        CompileError: not a 64-bit little-endian ELF of NVIDIA's machine, or an unknown container.
    """
    if len(cubin) < 64 or cubin[:6] != b"\x7fELF\x02\x01":
        raise CompileError(f"not a cubin: {len(cubin):,} bytes that begin with {cubin[:6]!r}")
    machine, version = struct.unpack_from("<HI", cubin, 18)
    (flags,) = struct.unpack_from("<I", cubin, 48)
    if machine != _EM_CUDA:
        raise CompileError(f"not a cubin: an ELF of machine {machine}, expected {_EM_CUDA}")
    container = (cubin[7], cubin[8])
    if container == _OLD_CONTAINER:
        return CubinHeader(flags & 0xFF, False, (version // 10, version % 10))
    if container == _NEW_CONTAINER:
        return CubinHeader(flags >> 8 & 0xFF, True, None)
    raise CompileError(
        f"unknown cubin container (OS ABI {container[0]:#x}, version {container[1]}); expected "
        f"{_OLD_CONTAINER[0]:#x}, {_OLD_CONTAINER[1]} or {_NEW_CONTAINER[0]:#x}, "
        f"{_NEW_CONTAINER[1]}"
    )


def require_loadable(cubin: bytes, target: CudaTarget) -> None:
    """Check that a cubin is for exactly the target's SM, in a container that its driver takes.

    Raises:
        CompileError: another SM, or the container of CUDA 13 for an older driver.
    """
    header = read_cubin_header(cubin)
    wanted = int(target.architecture.name)
    if header.sm != wanted:
        raise CompileError(f"the cubin is for sm_{header.sm}; the target is sm_{wanted}")
    knows_new_container = target.driver_cuda >= (13, 0) or wanted >= 100
    if header.is_new_container and not knows_new_container:
        raise CompileError(
            f"the cubin for sm_{wanted} is in the container of CUDA 13, which a driver of CUDA "
            f"{version_text(target.driver_cuda)} does not know; compile with CUDA 11.8 or 12"
        )


def read_kernels(cubin: bytes, log: str) -> tuple[KernelResources, ...]:
    """Resources of every kernel, by name.

    Registers, stack and launch bounds are read from the cubin; static shared memory and spills,
    which it does not state in all versions, from what `ptxas -v` says.

    Raises:
        CompileError: cubin and log do not agree, or either cannot be read.
    """
    sections = dict(_sections(cubin))
    symbols = _symbols(sections)
    registers: dict[str, int] = {}
    stacks: dict[str, int] = {}
    for attribute, payload in _attributes(sections.get(".nv.info", b"")):
        if attribute in (_EIATTR_REGCOUNT, _EIATTR_FRAME_SIZE):
            symbol, value = struct.unpack("<II", payload)
            (registers if attribute == _EIATTR_REGCOUNT else stacks)[symbols[symbol]] = value
    spoken = _parse_log(log)
    kernels = []
    if not spoken and any(name.startswith(".text.") for name in sections):
        raise CompileError(f"ptxas says nothing about the kernels of a cubin:\n{log}")
    for name, said in sorted(spoken.items()):
        if f".text.{name}" not in sections:
            raise CompileError(f"ptxas speaks of the kernel '{name}', which the cubin lacks")
        info = sections.get(f".nv.info.{name}", b"")
        threads = 0
        for attribute, payload in _attributes(info):
            if attribute == _EIATTR_MAX_THREADS:
                x, y, z = struct.unpack("<III", payload)
                threads = x * y * z
        kernels.append(
            KernelResources(
                name=name,
                num_registers=registers.get(name, said["registers"]),
                static_shared_bytes=said["shared"],
                stack_bytes=stacks.get(name, said["stack"]),
                spill_store_bytes=said["stores"],
                spill_load_bytes=said["loads"],
                max_threads=threads,
            )
        )
    return tuple(kernels)


def kernel_code(cubin: bytes, name: str) -> bytes | None:
    """Instructions of one kernel; None when the cubin has no such kernel."""
    return dict(_sections(cubin)).get(f".text.{name}")


def launch_problem(
    target: CudaTarget, kernel: KernelResources, num_threads: int, dynamic_shared_bytes: int = 0
) -> str | None:
    """Why a kernel cannot be launched on a target, with both values; None: it can.

    Args:
        target: the GPU.
        kernel: its resources.
        num_threads: of one block.
        dynamic_shared_bytes: shared memory given at the launch.
    """
    sm = f"sm_{target.sm}"
    if not 0 < num_threads <= MAX_THREADS_PER_BLOCK:
        return f"{kernel.name}: {num_threads} threads per block; {sm} allows 1 to 1,024"
    if 0 < kernel.max_threads < num_threads:
        return (
            f"{kernel.name}: {num_threads} threads per block, but it was compiled for at most "
            f"{kernel.max_threads} (__launch_bounds__)"
        )
    if kernel.num_registers > MAX_REGISTERS_PER_THREAD:
        return f"{kernel.name}: {kernel.num_registers} registers per thread; {sm} allows 255"
    registers = _registers_per_block(kernel.num_registers, num_threads)
    if registers > target.registers_per_block:
        return (
            f"{kernel.name}: {num_threads} threads of {kernel.num_registers} registers take "
            f"{registers:,} registers per block, {sm} allows {target.registers_per_block:,}"
        )
    if kernel.static_shared_bytes > MAX_STATIC_SHARED_BYTES:
        return (
            f"{kernel.name}: {kernel.static_shared_bytes:,} B of static shared memory, {sm} allows "
            f"{MAX_STATIC_SHARED_BYTES:,} B; declare it extern and give it at the launch"
        )
    shared = kernel.static_shared_bytes + dynamic_shared_bytes
    if shared > target.shared_per_block_bytes:
        return (
            f"{kernel.name}: {shared:,} B of shared memory per block ({dynamic_shared_bytes:,} B "
            f"dynamic), {sm} allows {target.shared_per_block_bytes:,} B"
        )
    return None


def geometry_problem(
    name: str, grid: tuple[int, int, int], block: tuple[int, int, int]
) -> str | None:
    """Why no GPU launches a kernel with these blocks (x, y, z) of threads; None: all do."""
    for what, sizes, limits in (("grid", grid, MAX_GRID), ("block", block, MAX_BLOCK)):
        for axis, size, limit in zip("xyz", sizes, limits, strict=True):
            if not 0 < size <= limit:
                return f"{name}: {what}.{axis} is {size:,}; 1 to {limit:,} are allowed"
    return None


def blocks_per_sm(
    target: CudaTarget, kernel: KernelResources, num_threads: int, dynamic_shared_bytes: int = 0
) -> int:
    """Blocks of a kernel that one SM holds at once; 0 when it cannot be launched.

    Source: the occupancy rules of `cuda_occupancy.h` with all shared memory configured as such.
    """
    if launch_problem(target, kernel, num_threads, dynamic_shared_bytes) is not None:
        return 0
    warps = -(-num_threads // WARP_THREADS)
    limits = [target.max_blocks_per_sm, target.max_threads_per_sm // (warps * WARP_THREADS)]
    per_warp = _round_up(max(kernel.num_registers, 1) * WARP_THREADS, _REGISTERS_PER_WARP_UNIT)
    warps_per_partition = 64 * 1024 // _SM_PARTITIONS // per_warp
    limits.append(warps_per_partition * _SM_PARTITIONS // warps)
    reserved = _RESERVED_SHARED_BYTES if target.compute_capability >= (8, 0) else 0
    shared = kernel.static_shared_bytes + dynamic_shared_bytes + reserved
    if shared:
        limits.append(target.shared_per_sm_bytes // _round_up(shared, _SHARED_UNIT_BYTES))
    return min(limits)


def _registers_per_block(num_registers: int, num_threads: int) -> int:
    warps = _round_up(-(-num_threads // WARP_THREADS), _SM_PARTITIONS)
    return warps * _round_up(num_registers * WARP_THREADS, _REGISTERS_PER_WARP_UNIT)


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _sections(cubin: bytes) -> Iterator[tuple[str, bytes]]:
    """Sections by name; those without content in the file come as empty."""
    (offset,) = struct.unpack_from("<Q", cubin, 40)
    size, number, names_index = struct.unpack_from("<HHH", cubin, 58)
    headers = [struct.unpack_from("<IIQQQQ", cubin, offset + i * size) for i in range(number)]
    names = _content(cubin, headers[names_index])
    for header in headers:
        yield _c_string(names, header[0]), _content(cubin, header)


def _content(cubin: bytes, header: tuple[int, ...]) -> bytes:
    _, kind, _, _, offset, size = header
    return b"" if kind == 8 else cubin[offset : offset + size]  # 8: SHT_NOBITS


def _symbols(sections: Mapping[str, bytes]) -> list[str]:
    table, texts = sections.get(".symtab", b""), sections.get(".strtab", b"")
    return [
        _c_string(texts, struct.unpack_from("<I", table, start)[0])
        for start in range(0, len(table) - 23, 24)
    ]


def _c_string(texts: bytes, offset: int) -> str:
    return texts[offset : texts.index(b"\0", offset)].decode()


def _attributes(section: bytes) -> Iterator[tuple[int, bytes]]:
    """Entries of a `.nv.info` section: format, attribute, then a value or a sized payload."""
    at = 0
    while at + 4 <= len(section):
        kind, attribute, value = struct.unpack_from("<BBH", section, at)
        at += 4
        if kind == _EIFMT_SIZED:
            yield attribute, section[at : at + value]
            at += value
        else:
            yield attribute, b""


_ENTRY = re.compile(r"Compiling entry function '([^']+)'")
_PROPERTIES = re.compile(r"Function properties for (\S+)")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


def _parse_log(log: str) -> dict[str, dict[str, int]]:
    """What `ptxas -v` says of each kernel, by name."""
    kernels: dict[str, dict[str, int]] = {}
    kernel = function = ""
    for line in log.splitlines():
        if match := _ENTRY.search(line):
            kernel = match[1]
            kernels[kernel] = dict.fromkeys(("registers", "shared", "stack", "stores", "loads"), 0)
        elif match := _PROPERTIES.search(line):
            function = match[1]
        elif (match := _SPILLS.search(line)) and kernel and function == kernel:
            stack, stores, loads = map(int, match.groups())
            kernels[kernel] |= {"stack": stack, "stores": stores, "loads": loads}
        elif (match := _USED.search(line)) and kernel:
            shared = _SHARED.search(line)
            kernels[kernel] |= {
                "registers": int(match[1]),
                "shared": int(shared[1]) if shared else 0,
            }
    return kernels
