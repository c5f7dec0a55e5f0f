"""CUDA targets: GPU architectures, one row per SM, and which toolkit makes code for a driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from builder_host.errors import TargetError
from planformat.datatypes import TensorFormat
from planformat.fingerprint import DeviceFingerprint

CudaVersion = tuple[int, int]
"""CUDA version, major and minor."""

TOOLKITS: tuple[CudaVersion, ...] = ((11, 8), (12, 2), (12, 6), (12, 9), (13, 0))
"""Toolkits that can be installed and asked for code, ascending."""

WARP_THREADS = 32
MAX_THREADS_PER_BLOCK = 1024
MAX_BLOCK = (1024, 1024, 64)
MAX_GRID = (2**31 - 1, 65535, 65535)
MAX_REGISTERS_PER_THREAD = 255
MAX_STATIC_SHARED_BYTES = 48 * 1024

_KIB = 1024


@dataclass(frozen=True, slots=True)
class GpuArchitecture:
    """One row of the table of architectures.

    Sizes follow the tables of the CUDA C++ Programming Guide ("Technical Specifications per Compute
    Capability") and `cuda_occupancy.h`; those of the Tegra parts what their `deviceQuery` prints.

    Attributes:
        name: the number in `sm_NN`.
        compute_capability: as the driver reports it.
        family: marketing name of the architecture.
        shared_per_sm_bytes: shared memory of one SM.
        shared_per_block_bytes: what one block may have when it opts in.
        registers_per_block: 32-bit registers that one block may hold.
        max_threads_per_sm, max_blocks_per_sm: residency limits.
        first_toolkit, last_toolkit: those of `TOOLKITS` that know the architecture.
        first_specific_toolkit: first toolkit that knows `sm_NNa` (wgmma, TMA, tcgen05); None:
            there is no such variant.
    """

    name: str
    compute_capability: tuple[int, int]
    family: str
    shared_per_sm_bytes: int
    shared_per_block_bytes: int
    registers_per_block: int
    max_threads_per_sm: int
    max_blocks_per_sm: int
    first_toolkit: CudaVersion
    last_toolkit: CudaVersion
    first_specific_toolkit: CudaVersion | None = None


def _row(
    name: str,
    family: str,
    shared_kib: tuple[int, int],
    threads_blocks: tuple[int, int],
    toolkits: tuple[CudaVersion, CudaVersion],
    specific: CudaVersion | None = None,
    registers_per_block: int = 64 * _KIB,
) -> GpuArchitecture:
    return GpuArchitecture(
        name=name,
        compute_capability=(int(name[:-1]), int(name[-1])),
        family=family,
        shared_per_sm_bytes=shared_kib[0] * _KIB,
        shared_per_block_bytes=shared_kib[1] * _KIB,
        registers_per_block=registers_per_block,
        max_threads_per_sm=threads_blocks[0],
        max_blocks_per_sm=threads_blocks[1],
        first_toolkit=toolkits[0],
        last_toolkit=toolkits[1],
        first_specific_toolkit=specific,
    )


_OLD = ((11, 8), (12, 9))  # CUDA 13 dropped Maxwell, Pascal and Volta
_ALL = ((11, 8), (13, 0))
_NEW = ((12, 9), (13, 0))

ARCHITECTURES: Mapping[str, GpuArchitecture] = MappingProxyType(
    {
        row.name: row
        for row in (
            _row("53", "Maxwell", (64, 48), (2048, 32), _OLD, registers_per_block=32 * _KIB),
            _row("61", "Pascal", (96, 48), (2048, 32), _OLD),
            _row("62", "Pascal", (64, 48), (2048, 32), _OLD, registers_per_block=32 * _KIB),
            _row("72", "Volta", (96, 96), (2048, 32), _OLD),
            _row("75", "Turing", (64, 64), (1024, 16), _ALL),
            _row("80", "Ampere", (164, 163), (2048, 32), _ALL),
            _row("86", "Ampere", (100, 99), (1536, 16), _ALL),
            _row("87", "Ampere", (164, 163), (1536, 16), _ALL),
            _row("89", "Ada", (100, 99), (1536, 24), _ALL),
            _row("90", "Hopper", (228, 227), (2048, 32), _ALL, (12, 2)),
            _row("100", "Blackwell", (228, 227), (2048, 32), _NEW, (12, 9)),
            _row("101", "Blackwell", (228, 227), (1536, 24), ((12, 9), (12, 9)), (12, 9)),
            _row("103", "Blackwell", (228, 227), (2048, 32), _NEW, (12, 9)),
            _row("110", "Blackwell", (228, 227), (1536, 24), ((13, 0), (13, 0)), (13, 0)),
            _row("120", "Blackwell", (100, 99), (1536, 24), _NEW, (12, 9)),
            _row("121", "Blackwell", (100, 99), (1536, 24), _NEW, (12, 9)),
        )
    }
)
"""All architectures by the number in `sm_NN`. Thor is 101 to CUDA 12 and 110 to CUDA 13."""

_PTX_OF_DRIVER: Mapping[CudaVersion, str] = MappingProxyType(
    {(9, 0): "6.0", (9, 1): "6.1", (9, 2): "6.2", (10, 0): "6.3", (10, 1): "6.4", (10, 2): "6.5"}
)  # newest PTX version that a driver reads; newer drivers are given cubins

_PTX_OF_ARCHITECTURE = MappingProxyType(
    {"53": "4.2", "61": "5.0", "62": "5.0", "72": "6.1", "75": "6.3"}
)
# oldest PTX version that knows the architecture; the rest came after CUDA 10


@dataclass(frozen=True, slots=True)
class ToolkitChoice:
    """How code for a driver is made.

    Attributes:
        version: toolkit that compiles.
        ptx_version: None for cubins; else the PTX version (`6.5`) that the board's driver reads,
            because no toolkit that can be installed makes cubins for it.
    """

    version: CudaVersion
    ptx_version: str | None = None


@dataclass(frozen=True, slots=True)
class CudaTarget:
    """A GPU as code generation sees it.

    Attributes:
        sm: what stands behind `sm_`: `87`, or `90a` where the toolkit knows the variant that
            unlocks all instructions of the chip.
        architecture: row of `ARCHITECTURES`.
        num_sms: multiprocessors in the present power mode.
        is_integrated: CPU and GPU share memory.
        driver_cuda: newest CUDA version that the driver supports.
        toolkit: toolkit to compile with.
        ptx_version: PTX version to carry instead of cubins, else None.
        l2_bytes, memory_bytes, core_clock_hz: 0 when neither fingerprint nor board file tells.
        memory_gbps: memory bandwidth in 1e9 bytes/s, for cost models only; 0.0 when unknown.
        shared_per_sm_bytes, shared_per_block_bytes: as the fingerprint says, else the table.
    """

    sm: str
    architecture: GpuArchitecture
    num_sms: int
    is_integrated: bool
    driver_cuda: CudaVersion
    toolkit: CudaVersion
    ptx_version: str | None
    l2_bytes: int
    memory_bytes: int
    core_clock_hz: int
    memory_gbps: float
    shared_per_sm_bytes: int
    shared_per_block_bytes: int

    def flush_bytes(self, weights_bytes: int) -> int:
        """Memory to overwrite before a kernel is timed: twice an L2 that the weights overflow."""
        return 2 * self.l2_bytes if weights_bytes > self.l2_bytes else 0

    @property
    def blocked_format(self) -> TensorFormat:
        """Format of image tensors inside a plan: channels innermost."""
        return TensorFormat.NHWC

    @property
    def registers_per_block(self) -> int:
        """32-bit registers that one block may hold."""
        return self.architecture.registers_per_block

    @property
    def max_threads_per_sm(self) -> int:
        """Resident threads of one SM."""
        return self.architecture.max_threads_per_sm

    @property
    def max_blocks_per_sm(self) -> int:
        """Resident blocks of one SM."""
        return self.architecture.max_blocks_per_sm

    @property
    def compute_capability(self) -> tuple[int, int]:
        """As the driver reports it."""
        return self.architecture.compute_capability

    @property
    def is_specific(self) -> bool:
        """Code is for exactly this chip (`sm_NNa`), with all its instructions."""
        return self.sm.endswith("a")

    @property
    def has_fp16(self) -> bool:
        """Half-precision arithmetic at twice the float rate. sm_61 has it at 1/64: too slow."""
        return self.architecture.name != "61"

    @property
    def has_dp4a(self) -> bool:
        """Four int8 products in one instruction. sm_53 lacks it, sm_62 emulates it."""
        return self.architecture.name not in ("53", "62")

    @property
    def has_wmma(self) -> bool:
        """Fp16 tensor cores through `wmma` (m16n16k16); sm_72 has these but no `mma.m16n8k8`."""
        return self.compute_capability >= (7, 0)

    @property
    def has_mma_f16(self) -> bool:
        """`mma.sync.m16n8k8` on fp16 and `ldmatrix`."""
        return self.compute_capability >= (7, 5)

    @property
    def has_mma_s8(self) -> bool:
        """`mma.sync.m8n8k16` on int8."""
        return self.compute_capability >= (7, 5)

    @property
    def has_mma_k16(self) -> bool:
        """`mma.sync` m16n8k16 on fp16 and bf16, m16n8k8 on tf32, m16n8k32 on int8; `cp.async`."""
        return self.compute_capability >= (8, 0)

    @property
    def has_bf16(self) -> bool:
        """Bfloat16 arithmetic and tensor cores."""
        return self.compute_capability >= (8, 0)

    @property
    def has_clusters(self) -> bool:
        """Thread block clusters with distributed shared memory."""
        return self.compute_capability >= (9, 0)

    @property
    def has_dependent_launch(self) -> bool:
        """Programmatic dependent launch (`griddepcontrol`)."""
        return self.compute_capability >= (9, 0)

    @property
    def has_tma(self) -> bool:
        """Bulk tensor copies (`cp.async.bulk.tensor`); CUDA 11.8 does not know them."""
        return self.compute_capability >= (9, 0) and self.toolkit >= (12, 2)

    @property
    def has_wgmma(self) -> bool:
        """Warp-group matrix instructions: `sm_90a` only, later chips dropped them."""
        return self.sm == "90a"


def cuda_target(
    fingerprint: DeviceFingerprint, hardware: Mapping[str, int | float] | None = None
) -> CudaTarget:
    """The GPU that a fingerprint describes.

    Args:
        fingerprint: needs `cuda.compute_capability`, `cuda.num_sms` and `cuda.cuda_version`.
        hardware: facts of the board file that are not compared between devices: `memory_bytes`,
            `memory_gbps`, `core_clock_hz`; the fingerprint's own values come first.

    Raises:
        TargetError: no GPU fingerprint, a field is missing or unreadable, an architecture without
            kernels, or no toolkit makes code that the driver takes.
    """
    if fingerprint.device_kind != "cuda":
        raise TargetError(
            f"the fingerprint is of a '{fingerprint.device_kind}' device; expected 'cuda'"
        )
    facts = hardware or {}
    row = _architecture(_version(fingerprint, "cuda.compute_capability"))
    driver = _version(fingerprint, "cuda.cuda_version")
    choice = choose_toolkit(row, driver)
    specific = row.first_specific_toolkit
    is_specific = specific is not None and choice.version >= specific
    memory_clock = _count(fingerprint, "cuda.memory_clock_hz")
    bus_bits = _count(fingerprint, "cuda.memory_bus_bits")
    # Two transfers per clock on every kind of memory, in the units that the driver reports.
    gbps = memory_clock * bus_bits * 2 / 8e9 or float(facts.get("memory_gbps", 0.0))
    return CudaTarget(
        sm=row.name + "a" * is_specific,
        architecture=row,
        num_sms=_required(fingerprint, "cuda.num_sms"),
        is_integrated=_flag(fingerprint, "cuda.is_integrated"),
        driver_cuda=driver,
        toolkit=choice.version,
        ptx_version=choice.ptx_version,
        l2_bytes=_count(fingerprint, "cuda.l2_bytes"),
        memory_bytes=_count(fingerprint, "cuda.memory_bytes") or int(facts.get("memory_bytes", 0)),
        core_clock_hz=_count(fingerprint, "cuda.core_clock_hz")
        or int(facts.get("core_clock_hz", 0)),
        memory_gbps=gbps,
        shared_per_sm_bytes=_count(fingerprint, "cuda.shared_memory_per_sm_bytes")
        or row.shared_per_sm_bytes,
        shared_per_block_bytes=_count(fingerprint, "cuda.shared_memory_per_block_bytes")
        or row.shared_per_block_bytes,
    )


def choose_toolkit(row: GpuArchitecture, driver: CudaVersion) -> ToolkitChoice:
    """The toolkit whose code a driver takes.

    A driver runs cubins of every older toolkit, and of newer ones of its own major version
    (minor version compatibility), but none of a newer major version: CUDA 13 writes another
    container. So: the newest toolkit that is not newer than the driver, else the oldest of the
    driver's major version. Drivers before CUDA 11 get PTX in a version that they read.

    Raises:
        TargetError: no toolkit fits; the text says which the architecture and the driver allow.
    """
    known = [v for v in TOOLKITS if row.first_toolkit <= v <= row.last_toolkit]
    older = [v for v in known if v <= driver]
    if older:
        return ToolkitChoice(older[-1])
    same_major = [v for v in known if v[0] == driver[0]]
    if same_major:
        return ToolkitChoice(same_major[0])
    if driver < (11, 0) and row.name in _PTX_OF_ARCHITECTURE:
        readable = [ptx for version, ptx in _PTX_OF_DRIVER.items() if version <= driver]
        if readable and readable[-1] >= _PTX_OF_ARCHITECTURE[row.name]:
            return ToolkitChoice(known[0], readable[-1])
    raise TargetError(
        f"no toolkit makes code for sm_{row.name} that a driver of CUDA {version_text(driver)} "
        f"takes: sm_{row.name} needs {version_text(known[0])} to {version_text(known[-1])}, and a "
        f"driver takes no code of a newer major version; update the driver (on Jetson: the "
        "L4T release)"
    )


def version_text(version: CudaVersion) -> str:
    """`12.6` for (12, 6)."""
    return f"{version[0]}.{version[1]}"


def _architecture(capability: tuple[int, int]) -> GpuArchitecture:
    for row in ARCHITECTURES.values():
        if row.compute_capability == capability:
            return row
    known = ", ".join(version_text(row.compute_capability) for row in ARCHITECTURES.values())
    raise TargetError(
        f"no kernels for compute capability {version_text(capability)}; {known} exist"
    )


def _text(fingerprint: DeviceFingerprint, name: str) -> str:
    text = fingerprint.fields.get(name)
    if text is None:
        raise TargetError(
            f"the fingerprint has no field '{name}'; probe the device and give its fingerprint "
            "file as target, or name a board whose file states the field"
        )
    return text


def _version(fingerprint: DeviceFingerprint, name: str) -> CudaVersion:
    text = _text(fingerprint, name)
    parts = text.split(".")
    if len(parts) != 2 or not all(_is_number(part) for part in parts):
        raise TargetError(f"fingerprint field '{name}' is '{text}'; expected a version like 8.7")
    return int(parts[0]), int(parts[1])


def _required(fingerprint: DeviceFingerprint, name: str) -> int:
    text = _text(fingerprint, name)
    if not _is_number(text) or int(text) < 1:
        raise TargetError(f"fingerprint field '{name}' is '{text}'; expected a positive number")
    return int(text)


def _count(fingerprint: DeviceFingerprint, name: str) -> int:
    text = fingerprint.fields.get(name, "0")
    if not _is_number(text):
        raise TargetError(f"fingerprint field '{name}' is '{text}'; expected a number")
    return int(text)


def _flag(fingerprint: DeviceFingerprint, name: str) -> bool:
    text = fingerprint.fields.get(name, "0")
    if text not in ("0", "1"):
        raise TargetError(f"fingerprint field '{name}' is '{text}'; expected 0 or 1")
    return text == "1"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 19
