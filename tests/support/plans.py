"""Small plans for tests, and tools to damage their bytes."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

from planformat.container import ENTRY, HEADER, SectionKind, seal_head
from planformat.datatypes import DataType, TensorFormat
from planformat.details import (
    ArenaDetails,
    OperationDetails,
    PlanDetails,
    ProfileDetails,
    TensorDetails,
    encode_details,
)
from planformat.fingerprint import DeviceFingerprint
from planformat.plan import (
    Argument,
    ArgumentKind,
    Binding,
    Canary,
    CodeKind,
    CodeObject,
    Kernel,
    Plan,
    Profile,
    Step,
    Variant,
)

GOLDEN_KEY = bytes(range(32))
"""Private key of the golden plans; worthless anywhere else."""

CPU_FIELDS = {
    "cpu.architecture": "x86_64",
    "cpu.features": "avx2 fma",
    "cpu.model": "Example 9000 25/17/1",
    "cpu.num_cores": "4",
    "os.glibc": "2.28",
}


def sample_details() -> PlanDetails:
    """Details of `sample_plan`, one operation per step."""
    tensor = TensorDetails("data", "1x3x4x4:f32:LINEAR", 192, False)
    weights = TensorDetails("w", "10x48:f32:LINEAR", 1920, True)
    first = OperationDetails(
        *("conv1 + relu1", "convolution", "model.onnx: node 0 'größe'", "p(1)", "max(x0, 0)"),
        *(960, (tensor, weights), (tensor,), (0,), 12),
    )
    second = replace(first, name="fc", kind="fully_connected", epilogue="", steps=(1,))
    arena = (ArenaDetails("conv1", 256, 512, 0, 1),)
    both = ProfileDetails("b1", (first, second), arena)
    only = ProfileDetails("b2", (first,), ())
    return PlanDetails(((both, only), (both,), (replace(only, name="b1"),)))


def sample_plan() -> Plan:
    """A plan that uses every field of the format; two variants share one code object."""
    bindings = (
        Binding("data", True, DataType.FLOAT32),
        Binding("mask", True, DataType.BOOL),
        Binding("prob", False, DataType.FLOAT32),
        Binding("größe", False, DataType.INT64, TensorFormat.NHWC),
    )
    shapes = ((1, 3, 4, 4), (), (1, 10), (1, 2, 2, 2))
    arguments = (
        Argument(ArgumentKind.BINDING, 0, 64),
        Argument(ArgumentKind.ARENA, 256),
        Argument(ArgumentKind.WEIGHTS, 4096),
        Argument(ArgumentKind.IMMEDIATE, -(1 << 63)),
        Argument(ArgumentKind.BINDING, 2),
    )
    cpu_steps = (
        Step("conv1 + relu1", 0, (7, 1, 1), arguments, tactic="direct|k=4", measured_us=12.5),
        Step(
            "fc",
            1,
            (1, 1, 1),
            arguments[1:],
            scratch_bytes_per_worker=4096,
            is_concurrent=True,
            predicted_us=0.25,
        ),
    )
    canary = Canary(
        seed=0xFFFF_FFFF_FFFF_FFFF,
        strides=(3, 100),
        outputs=(bytes(range(16)), bytes(8)),
        absolute_tolerance=1e-5,
        relative_tolerance=1e-3,
        latency_us=20.0,
    )
    shared = CodeObject(CodeKind.SHARED_OBJECT, "x86_64", "zig 0.13", b"\x7fELF" + bytes(60))
    other = CodeObject(CodeKind.SHARED_OBJECT, "x86_64", "zig 0.13", b"\x7fELF" + b"\x01" * 20)
    profiles = (
        Profile("b1", shapes, cpu_steps, 1024, 900, num_workers=4, canary=canary),
        Profile("b2", ((2, 3, 4, 4), (), (2, 10), (2, 2, 2, 2)), cpu_steps[:1], 2048, 0),
    )
    cuda_step = Step(
        "conv1 + relu1",
        0,
        (16, 2, 1),
        arguments,
        block=(128, 1, 1),
        cluster=(2, 1, 1),
        shared_memory_bytes=49152,
        is_dependent_launch=True,
    )
    variants = (
        Variant(
            DeviceFingerprint("cpu", CPU_FIELDS),
            (shared, other),
            (Kernel("conv_direct_f32", 0), Kernel("fc_f32", 1)),
            profiles,
        ),
        Variant(
            DeviceFingerprint("cpu", {**CPU_FIELDS, "cpu.num_cores": "8"}),
            (shared,),
            (Kernel("conv_direct_f32", 0), Kernel("fc_f32", 0)),
            profiles[:1],
        ),
        Variant(
            DeviceFingerprint("cuda", {"cuda.compute_capability": "8.7"}),
            (CodeObject(CodeKind.CUBIN, "sm_87", "nvrtc 12.6", b"cubin"),),
            (Kernel("conv_igemm_f16", 0),),
            (Profile("b1", shapes, (cuda_step,), 512, 512),),
        ),
    )
    return Plan(
        "sample",
        bindings,
        variants,
        weights=bytes(i * 7 % 256 for i in range(5000)),
        chunk_lengths=(4096, 904),
        provenance={"builder": "edgeplan 0.1.0", "model": "sample.onnx"},
        details=encode_details(sample_details()),
    )


def tiny_plan() -> Plan:
    """A few hundred bytes: no weights, no code, one copy-less profile."""
    return Plan(
        "tiny",
        (Binding("x", True, DataType.FLOAT32), Binding("y", False, DataType.FLOAT32)),
        (
            Variant(
                DeviceFingerprint("cpu", {"cpu.architecture": "x86_64"}),
                (),
                (),
                (Profile("b1", ((1, 4), (1, 4)), (), 0, 0),),
            ),
        ),
        weights=b"",
        chunk_lengths=(),
    )


def num_sections(data: bytes) -> int:
    """Number of sections that the header states."""
    return int(struct.unpack_from("<I", data, 48)[0])


def reseal(data: bytes) -> bytes:
    """The same bytes with the head hash made right again, so that later checks are reached."""
    head_length = HEADER.size + num_sections(data) * ENTRY.size
    return seal_head(bytes(data[:head_length])) + data[head_length:]


def section_index(data: bytes, kind: SectionKind) -> int:
    """Row of the first section of a kind."""
    for index in range(num_sections(data)):
        if struct.unpack_from("<I", data, HEADER.size + index * ENTRY.size)[0] == kind:
            return index
    raise KeyError(kind)


def section_range(data: bytes, kind: SectionKind) -> tuple[int, int]:
    """First byte of the first section of a kind and the byte after its last."""
    at = HEADER.size + section_index(data, kind) * ENTRY.size
    offset, length = struct.unpack_from("<QQ", data, at + 8)
    return offset, offset + length


def rehash(data: bytes, kind: SectionKind) -> bytes:
    """The same bytes with the hash of the first section of a kind, and the head hash, right."""
    begin, end = section_range(data, kind)
    at = HEADER.size + section_index(data, kind) * ENTRY.size + 32
    digest = hashlib.sha256(data[begin:end]).digest()
    return reseal(data[:at] + digest + data[at + 32 :])


def patched(data: bytes, offset: int, new: bytes) -> bytes:
    """The same bytes with some replaced."""
    return data[:offset] + new + data[offset + len(new) :]


def with_manifest(data: bytes, manifest: bytes) -> bytes:
    """A plan of one section, the manifest given, with all hashes right and data's version."""
    from planformat.container import SectionEntry, encode_head

    digest = hashlib.sha256(manifest).digest()
    entry = SectionEntry(SectionKind.MANIFEST, 0, 192, len(manifest), 64, digest)
    head = encode_head([entry])
    return reseal(patched(head, 8, data[8:12]) + manifest)
