"""Targets: the exact device that a plan is built for, with the limits that kernels must respect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from boards.spec import BoardSpec, BoardSpecError, board_names, load_board
from builder_host.errors import TargetError
from planformat.datatypes import TensorFormat
from planformat.errors import PlanFormatError
from planformat.fingerprint import DeviceFingerprint, fingerprint_from_json


@dataclass(frozen=True, slots=True)
class CpuTarget:
    """A CPU as code generation sees it.

    Attributes:
        architecture: `x86_64` or `aarch64`.
        isa: `avx512`, `avx2` or `neon`: which vector header is compiled in.
        features: sorted ISA features, those that kernels use as the compiler names them
            (e.g. `avx512vnni`, `dotprod`), the others as the fingerprint does.
        num_cores: physical cores usable by a plan.
        l1d_bytes, l2_bytes: per core; l3_bytes: shared, 0 when unknown.
        fma_gflops_per_core: estimated float32 peak of one core, for cost models only.
        memory_gbps: estimated single-core memory bandwidth, for cost models only.
    """

    architecture: str
    isa: str
    features: tuple[str, ...]
    num_cores: int
    l1d_bytes: int
    l2_bytes: int
    l3_bytes: int
    fma_gflops_per_core: float = 100.0
    memory_gbps: float = 20.0

    @property
    def vector_elems(self) -> int:
        """Float32 lanes of one vector register."""
        return {"avx512": 16, "avx2": 8, "neon": 4}[self.isa]

    @property
    def num_vector_registers(self) -> int:
        """Architectural vector registers."""
        return 16 if self.isa == "avx2" else 32

    @property
    def int8_dot(self) -> str:
        """How four int8 products are summed into one int32 lane.

        `vnni`: one instruction, activations unsigned. `sdot`: one instruction, both sides signed.
        `wide`: products of 16-bit integers, made from either sign.
        """
        if self.isa == "neon":
            return "sdot" if "dotprod" in self.features else "wide"
        needed = {"avx512": {"avx512vnni"}, "avx2": {"avxvnni"}}[self.isa]
        return "vnni" if needed <= set(self.features) else "wide"

    @property
    def has_bf16_dot(self) -> bool:
        """Whether pairs of bfloat16 products are summed into float32 by one instruction."""
        return self.isa == "avx512" and "avx512bf16" in self.features

    def flush_bytes(self, weights_bytes: int) -> int:
        """Memory to overwrite before a kernel is timed, given a network's constants.

        From one inference to the next the weights leave the level-2 cache, and the level-3 cache
        too when they fill half of it: packed for Winograd they are up to four times as large.
        """
        if self.l3_bytes and weights_bytes > self.l3_bytes // 2:
            return 2 * self.l3_bytes
        return 2 * self.l2_bytes

    @property
    def blocked_format(self) -> TensorFormat:
        """The blocked activation format: one vector of channels innermost."""
        return {
            16: TensorFormat.NCHW16C,
            8: TensorFormat.NCHW8C,
            4: TensorFormat.NCHW4C,
        }[self.vector_elems]


def target_fingerprint(target: str) -> DeviceFingerprint | None:
    """Fingerprint that a board name or fingerprint file states; None: probe this machine.

    Args:
        target: board, board and software (`jetson-agx-orin@jetpack5`), or path of a fingerprint.

    Raises:
        TargetError: no such board, software or file, or one that cannot be read.
    """
    spec = _board(target)
    if spec is not None:
        return None if spec.is_probed else DeviceFingerprint(spec.device_kind, spec.fingerprint)
    path = Path(target)
    if not path.is_file():
        raise TargetError(
            f"target '{target}' is neither a board ({', '.join(board_names())}) nor a fingerprint "
            "file; write one on the device with 'edgeplan probe --json'"
        )
    try:
        return fingerprint_from_json(path.read_text(encoding="utf-8"), source=target)
    except (OSError, UnicodeDecodeError, PlanFormatError) as error:
        raise TargetError(f"target '{target}': {error}") from error


def target_hardware(target: str) -> Mapping[str, int | float]:
    """Numbers of a board file for cost models (`memory_gbps` ...); empty for other targets.

    Raises:
        TargetError: a board file that cannot be read.
    """
    spec = _board(target)
    if spec is None:
        return {}
    return {name: fact for name, fact in spec.hardware.items() if not isinstance(fact, str)}


def hardware_of_gpu(fingerprint: DeviceFingerprint) -> Mapping[str, int | float]:
    """Numbers of the board file with this GPU's name and number of SMs; empty without one."""
    wanted = [fingerprint.fields.get(field) for field in ("cuda.name", "cuda.num_sms")]
    for name in board_names():
        spec = load_board(name)
        if wanted == [spec.fingerprint.get(field) for field in ("cuda.name", "cuda.num_sms")]:
            return target_hardware(name)
    return {}


def _board(target: str) -> BoardSpec | None:
    if target.partition("@")[0] not in board_names():
        return None
    try:
        return load_board(target)
    except BoardSpecError as error:
        raise TargetError(str(error)) from error


def cpu_target(fingerprint: DeviceFingerprint) -> CpuTarget:
    """The CPU that a fingerprint describes.

    Raises:
        TargetError: not a CPU fingerprint, a field is missing or unreadable, or the instruction
            set lacks what the kernels need (AVX2 with FMA on x86_64, NEON on aarch64).
    """
    if fingerprint.device_kind != "cpu":
        raise TargetError(
            f"the fingerprint is of a '{fingerprint.device_kind}' device; expected 'cpu'"
        )
    architecture = _field(fingerprint, "cpu.architecture")
    names = _field(fingerprint, "cpu.features").split()
    features = tuple(sorted(_COMPILER_NAMES.get(name, name) for name in names))
    isa = _isa(architecture, frozenset(features))
    return CpuTarget(
        architecture=architecture,
        isa=isa,
        features=features,
        num_cores=_positive(fingerprint, "cpu.num_cores"),
        l1d_bytes=_size(fingerprint, "cpu.l1d_bytes", 32 * 1024),
        l2_bytes=_size(fingerprint, "cpu.l2_bytes", 512 * 1024),
        l3_bytes=_size(fingerprint, "cpu.l3_bytes", 0),
        fma_gflops_per_core=_FMA_GFLOPS[isa],
        memory_gbps=_MEMORY_GBPS[isa],
    )


# Orders of magnitude for cost models only: they rank candidates, no time is promised.
_FMA_GFLOPS = {"avx512": 110.0, "avx2": 90.0, "neon": 16.0}
_MEMORY_GBPS = {"avx512": 20.0, "avx2": 15.0, "neon": 8.0}
_AVX512 = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma"})
_AVX2 = frozenset({"avx2", "fma"})
# Features that generated code uses, named otherwise by Linux than by compilers.
_COMPILER_NAMES = {
    "avx512_vnni": "avx512vnni",
    "avx512_bf16": "avx512bf16",
    "avx_vnni": "avxvnni",
    "asimddp": "dotprod",
    "asimdhp": "fullfp16",
}


def _isa(architecture: str, features: frozenset[str]) -> str:
    if architecture == "x86_64":
        if features >= _AVX512:
            return "avx512"
        if features >= _AVX2:
            return "avx2"
        missing = ", ".join(sorted(_AVX2 - features))
        raise TargetError(f"the CPU lacks {missing}; x86_64 kernels need AVX2 and FMA (Haswell on)")
    if architecture == "aarch64":
        if "asimd" in features:
            return "neon"
        raise TargetError("the CPU lacks asimd (NEON), which aarch64 kernels need")
    raise TargetError(f"no kernels for the architecture '{architecture}'; x86_64 and aarch64 exist")


def _field(fingerprint: DeviceFingerprint, name: str) -> str:
    value = fingerprint.fields.get(name)
    if value is None:
        raise TargetError(f"the fingerprint has no field '{name}'; probe the device again")
    return value


def _positive(fingerprint: DeviceFingerprint, name: str) -> int:
    text = _field(fingerprint, name)
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise TargetError(f"fingerprint field '{name}' is '{text}'; expected a positive number")
    return int(text)


def _size(fingerprint: DeviceFingerprint, name: str, when_unknown: int) -> int:
    text = fingerprint.fields.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else when_unknown
