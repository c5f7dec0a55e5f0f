"""A plan in memory: frozen dataclasses. `reader` makes them, `writer` takes them.

Every offset and length is in bytes. Nothing here refers to a file position: weights are one
region, code objects are byte strings, steps refer to kernels and kernels to code objects by index.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from planformat.datatypes import DataType, TensorFormat
from planformat.fingerprint import DeviceFingerprint

Buffer = bytes | memoryview


class ArgumentKind(enum.Enum):
    """Where the value of one kernel argument comes from. `value` is the number in the plan."""

    BINDING = 1  # value: binding index, offset_bytes into it
    ARENA = 2  # value: byte offset in the activation arena
    WEIGHTS = 3  # value: byte offset in the weights region
    IMMEDIATE = 4  # value: signed 64-bit integer passed as it is


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a step; see `ArgumentKind` for the meaning of `value`."""

    kind: ArgumentKind
    value: int
    offset_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Binding:
    """An engine input or output. Its shape is stated per profile."""

    name: str
    is_input: bool
    dtype: DataType
    format: TensorFormat = TensorFormat.LINEAR


class CodeKind(enum.Enum):
    """What a code object holds. `value` is the number in the plan."""

    SHARED_OBJECT = 1
    CUBIN = 2
    PTX = 3


@dataclass(frozen=True, slots=True)
class CodeObject:
    """One loadable piece of machine code.

    architecture: `x86_64`, `aarch64` or `sm_XX`. toolchain: compiler name and version.
    """

    kind: CodeKind
    architecture: str
    toolchain: str
    data: Buffer


@dataclass(frozen=True, slots=True)
class Kernel:
    """A function in a code object of the same variant."""

    symbol: str
    code_object: int


@dataclass(frozen=True, slots=True)
class Step:
    """One launch.

    On the CPU `grid[0]` is the number of work units and block is (1, 1, 1).

    Attributes:
        name: the layers that the step computes, joined by ` + `; unique in its profile.
        kernel: index into `Variant.kernels`.
        grid, block, cluster: launch geometry, x y z.
        arguments: in the order in which the kernel takes them.
        shared_memory_bytes: dynamic shared memory per block (CUDA).
        scratch_bytes_per_worker: private scratch of each worker thread (CPU).
        is_concurrent: may run beside the step before it (no barrier in between).
        is_dependent_launch: programmatic dependent launch (CUDA).
        tactic: canonical text of the tactic chosen.
        measured_us: median time at build in microseconds, or None when it was predicted.
        predicted_us: time from the cost model in microseconds, or None.
    """

    name: str
    kernel: int
    grid: tuple[int, int, int]
    arguments: tuple[Argument, ...]
    block: tuple[int, int, int] = (1, 1, 1)
    cluster: tuple[int, int, int] = (1, 1, 1)
    shared_memory_bytes: int = 0
    scratch_bytes_per_worker: int = 0
    is_concurrent: bool = False
    is_dependent_launch: bool = False
    tactic: str = ""
    measured_us: float | None = None
    predicted_us: float | None = None


@dataclass(frozen=True, slots=True)
class Canary:
    """A self-test: deterministic inputs (SPEC.md section 9), expected outputs, latency.

    outputs: for each output binding, in binding order, the expected little-endian elements at
        indices 0, stride, 2*stride ... of the flat output.
    latency_us: median of one inference on the fingerprinted device, None if never measured.
    """

    seed: int
    strides: tuple[int, ...]
    outputs: tuple[bytes, ...]
    absolute_tolerance: float
    relative_tolerance: float
    latency_us: float | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """One set of fixed binding shapes and the steps that compute it.

    Attributes:
        shapes: one shape per binding, in binding order.
        arena_bytes: size of the activation arena; arena_lower_bound_bytes: largest sum of
            tensors alive together.
        num_workers: threads for which the tactics were tuned (CPU), 1 on CUDA.
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    steps: tuple[Step, ...]
    arena_bytes: int
    arena_lower_bound_bytes: int
    num_workers: int = 1
    canary: Canary | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """Everything that depends on the exact device: fingerprint, code, kernels, steps."""

    fingerprint: DeviceFingerprint
    code_objects: tuple[CodeObject, ...]
    kernels: tuple[Kernel, ...]
    profiles: tuple[Profile, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole plan.

    Attributes:
        name: network name.
        bindings: inputs first, then outputs.
        variants: at least one.
        weights: the weights region, chunk after chunk.
        chunk_lengths: length of each content-addressed chunk; every one but the last is a
            multiple of 4096; their sum is len(weights).
        provenance: text facts about how the plan was made (no time, no path, no host name).
        details: what `planformat.details` reads; empty when the plan carries none.
    """

    name: str
    bindings: tuple[Binding, ...]
    variants: tuple[Variant, ...]
    weights: Buffer
    chunk_lengths: tuple[int, ...]
    provenance: Mapping[str, str] = field(default_factory=dict)
    details: Buffer = b""
