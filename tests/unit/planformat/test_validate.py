"""Every rule of SPEC.md section 5 has its rejection, when writing and when reading."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.plans import patched, rehash, sample_plan, section_range, tiny_plan

from planformat.container import SectionKind
from planformat.datatypes import DataType, TensorFormat
from planformat.errors import PlanFormatError
from planformat.fingerprint import DeviceFingerprint
from planformat.plan import Argument, ArgumentKind, Binding, CodeKind, Kernel, Plan
from planformat.reader import read_plan
from planformat.validate import check_plan
from planformat.writer import plan_bytes


def with_variant(index: int = 0, **changes) -> Plan:
    plan = sample_plan()
    variants = list(plan.variants)
    variants[index] = replace(variants[index], **changes)
    return replace(plan, variants=tuple(variants))


def with_profile(variant: int = 0, profile: int = 0, **changes) -> Plan:
    profiles = list(sample_plan().variants[variant].profiles)
    profiles[profile] = replace(profiles[profile], **changes)
    return with_variant(variant, profiles=tuple(profiles))


def with_step(variant: int = 0, step: int = 0, **changes) -> Plan:
    steps = list(sample_plan().variants[variant].profiles[0].steps)
    steps[step] = replace(steps[step], **changes)
    return with_profile(variant, steps=tuple(steps))


def with_argument(kind: ArgumentKind, value: int, offset: int = 0) -> Plan:
    return with_step(arguments=(Argument(kind, value, offset),))


def with_canary(**changes) -> Plan:
    canary = sample_plan().variants[0].profiles[0].canary
    return with_profile(canary=replace(canary, **changes))


def with_bindings(*bindings: Binding) -> Plan:
    return replace(tiny_plan(), bindings=bindings)


def with_code(**changes) -> Plan:
    codes = sample_plan().variants[0].code_objects
    return with_variant(code_objects=(replace(codes[0], **changes), *codes[1:]))


def with_shapes(*shapes: tuple[int, ...]) -> Plan:
    return with_profile(shapes=shapes)


F32 = DataType.FLOAT32
X, Y = Binding("x", True, F32), Binding("y", False, F32)
CPU = sample_plan().variants[0]
STEP = CPU.profiles[0].steps[0]
BLOCKED = Binding("y", False, F32, TensorFormat.NCHW8C)

BROKEN = {
    "empty name": (replace(tiny_plan(), name=""), "name has 0 bytes"),
    "long name": (replace(tiny_plan(), name="é" * 129), "name has 258 bytes, allowed are 1 to 256"),
    "control character": (replace(tiny_plan(), name="a\0b"), "control character"),
    "surrogate": (replace(tiny_plan(), name="\udc80"), "no UTF-8"),
    "name of a wrong type": (replace(tiny_plan(), name=5), "name is a int"),
    "provenance value": (replace(tiny_plan(), provenance={"a": "\n"}), "provenance 'a'"),
    "provenance key": (replace(tiny_plan(), provenance={"": "x"}), "key in provenance"),
    "provenance count": (
        replace(tiny_plan(), provenance={str(i): "" for i in range(257)}),
        "number of provenance fields is 257, allowed are 0 to 256",
    ),
    "no variant": (replace(tiny_plan(), variants=()), "number of variants is 0"),
    "many variants": (replace(tiny_plan(), variants=tiny_plan().variants * 65), "is 65, allowed"),
    "equal variants": (
        replace(tiny_plan(), variants=tiny_plan().variants * 2),
        "variant 1: .*merge",
    ),
    "no bindings": (with_bindings(), "number of bindings is 0"),
    "no output": (with_bindings(X), "no binding is an output"),
    "input after output": (with_bindings(Y, X), "binding 1 'x' is an input after an output"),
    "binding names": (with_bindings(replace(X, name="y"), Y), "two bindings are named 'y'"),
    "chunk sum": (replace(sample_plan(), chunk_lengths=(4096,)), "sum to 4,096 .* have 5,000"),
    "chunk multiple": (replace(sample_plan(), chunk_lengths=(904, 4096)), "chunk 0 has 904 bytes"),
    "empty chunk": (replace(sample_plan(), chunk_lengths=(4096, 0, 904)), "length of chunk 1 is 0"),
    "negative chunk": (replace(sample_plan(), chunk_lengths=(8192, -3192)), "chunk 1 is -3,192"),
    "no chunks": (replace(sample_plan(), chunk_lengths=()), "sum to 0"),
    "device kind": (with_variant(fingerprint=DeviceFingerprint("tpu")), "device kind is 'tpu'"),
    "field name": (
        with_variant(fingerprint=DeviceFingerprint("cpu", {"CPU model": "x"})),
        "fingerprint field 'CPU model'",
    ),
    "field value": (
        with_variant(fingerprint=DeviceFingerprint("cpu", {"cpu.model": "x" * 4097})),
        "has 4,097 bytes",
    ),
    "code kind": (with_code(kind=CodeKind.CUBIN), "code object 0 is a CUBIN, .* 'cpu'"),
    "architecture": (with_code(architecture="x86-64"), "architecture of code object 0 is 'x86-64'"),
    "toolchain": (with_code(toolchain=""), "toolchain of code object 0"),
    "empty code": (with_code(data=b""), "bytes of code object 0 is 0"),
    "symbol": (with_variant(kernels=(Kernel("1f", 0),) * 2), "symbol of kernel 0 is '1f'"),
    "symbol characters": (with_variant(kernels=(Kernel("f()", 0),) * 2), "must be an identifier"),
    "kernel's code": (with_variant(kernels=(Kernel("f", 2),) * 2), "code object of kernel 0 is 2"),
    "no profile": (with_variant(profiles=()), "number of profiles is 0"),
    "profile names": (with_variant(profiles=CPU.profiles[:1] * 2), "two profiles are named 'b1'"),
    "shape count": (with_shapes((1,)), "profile 'b1': has 1 shapes for 4 bindings"),
    "dimension 0": (with_shapes((1, 0), (), (), (1, 1, 1, 1)), r"binding 'data' \[1, 0\] is 0"),
    "dimension": (with_shapes((1 << 31,), (), (), (1, 1, 1, 1)), "2,147,483,648, allowed"),
    "rank": (with_shapes((1,) * 9, (), (), (1, 1, 1, 1)), "number of dimensions .* is 9"),
    "size": (with_shapes((1 << 30, 1 << 30), (), (), (1, 1, 1, 1)), "bytes of binding 'data' is"),
    "rank of a format": (with_shapes((1,), (), (), (8,)), "format NHWC holds rank-4"),
    "arena": (with_profile(arena_bytes=-1), "arena bytes is -1"),
    "arena type": (with_profile(arena_bytes=1.0), r"arena bytes is 1.0 \(float\)"),
    "lower bound": (with_profile(arena_lower_bound_bytes=1 << 41), "arena lower bound bytes is"),
    "no workers": (with_profile(num_workers=0), "workers on 'cpu' is 0"),
    "workers": (
        with_profile(num_workers=1025),
        "workers on 'cpu' is 1,025, allowed are 1 to 1,024",
    ),
    "cuda workers": (with_profile(2, num_workers=2), "workers on 'cuda' is 2, allowed are 1 to 1"),
    "step names": (with_profile(steps=(STEP, STEP)), "two steps are named 'conv1"),
    "step name": (with_step(name=""), "step 0 '': name has 0 bytes"),
    "tactic": (with_step(tactic="x" * 4097), "tactic has 4,097 bytes"),
    "kernel": (with_step(kernel=2), r"step 0 'conv1 \+ relu1': kernel is 2, there are 2"),
    "negative kernel": (with_step(kernel=-1), "kernel is -1"),
    "grid": (with_step(grid=(0, 1, 1)), r"grid \(0, 1, 1\) is 0"),
    "grid size": (with_step(grid=(1 << 31, 1, 1)), "is 2,147,483,648"),
    "grid length": (with_step(grid=(1, 1)), "grid is .* must have 3 values"),
    "cpu grid": (with_step(grid=(1, 2, 1)), "not possible on 'cpu'"),
    "cpu block": (with_step(block=(2, 1, 1)), "not possible on 'cpu'"),
    "cpu cluster": (with_step(cluster=(2, 1, 1)), "not possible on 'cpu'"),
    "cpu shared memory": (with_step(shared_memory_bytes=1), "not possible on 'cpu'"),
    "cpu dependent launch": (with_step(is_dependent_launch=True), "not possible on 'cpu'"),
    "scratch": (with_step(scratch_bytes_per_worker=1 << 33), "scratch bytes per worker is"),
    "cuda scratch": (with_step(2, scratch_bytes_per_worker=1), "'cuda' has no workers"),
    "block": (with_step(2, block=(1024, 2, 1)), "threads per block is 2,048"),
    "cluster": (with_step(2, cluster=(8, 4, 1)), "blocks per cluster is 32"),
    "shared memory": (with_step(2, shared_memory_bytes=1 << 21), "shared memory bytes is"),
    "time": (with_step(measured_us=-1.0), "measured time in microseconds is -1.0"),
    "time is nan": (with_step(predicted_us=float("nan")), "predicted time .* is nan"),
    "arguments": (with_step(arguments=STEP.arguments * 300), "number of arguments is 1,500"),
    "binding index": (with_argument(ArgumentKind.BINDING, 4), "argument 0: binding 4 of 4"),
    "binding offset": (with_argument(ArgumentKind.BINDING, 0, 192), "offset 192 .* its 192 bytes"),
    "arena offset": (with_argument(ArgumentKind.ARENA, 1024), "byte 1024 .* arena .* 1,024 bytes"),
    "weights offset": (with_argument(ArgumentKind.WEIGHTS, 5000), "byte 5000 .* weights .* 5,000"),
    "negative offset": (with_argument(ArgumentKind.WEIGHTS, -1), "byte -1 lies outside"),
    "immediate": (with_argument(ArgumentKind.IMMEDIATE, 1 << 63), "argument 0: immediate is"),
    "offset of an arena": (
        with_argument(ArgumentKind.ARENA, 0, 4),
        "offset 4 is only for bindings",
    ),
    "strides": (with_canary(strides=(1,)), "has 1 strides and 2 expected outputs for 2 output"),
    "stride": (with_canary(strides=(0, 1)), "canary: stride of output 'prob' is 0"),
    "expected": (with_canary(strides=(2, 100)), "'prob' has 16 expected bytes, .* needs 20"),
    "seed": (with_canary(seed=-1), "seed is -1"),
    "tolerance": (with_canary(absolute_tolerance=float("inf")), "absolute tolerance is inf"),
    "relative": (with_canary(relative_tolerance=-0.1), "relative tolerance is -0.1"),
    "latency": (with_canary(latency_us=-5.0), "latency in microseconds is -5.0"),
    "blocked output": (
        replace(
            sample_plan(),
            bindings=(*sample_plan().bindings[:3], replace(BLOCKED, dtype=DataType.INT64)),
        ),
        "format NCHW8C, whose padded lanes are unspecified",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_rule(name):
    plan, message = BROKEN[name]
    with pytest.raises(PlanFormatError, match=message) as caught:
        check_plan(plan, source="p.plan")
    assert str(caught.value).startswith("plan p.plan")
    with pytest.raises(PlanFormatError, match=message):
        plan_bytes(plan)


def test_rules_hold_for_what_is_read():
    data = plan_bytes(sample_plan())
    begin, end = section_range(data, SectionKind.MANIFEST)
    at = data.index(b"conv_direct_f32", begin, end)
    changed = rehash(patched(data, at, b"1"), SectionKind.MANIFEST)
    with pytest.raises(
        PlanFormatError, match=r"plan q\.plan, variant 0: symbol of kernel 0 is '1onv"
    ):
        read_plan(changed, source="q.plan")


def test_offsets_reach_into_padded_channels():
    plan = replace(tiny_plan(), bindings=(X, BLOCKED))
    profile = replace(tiny_plan().variants[0].profiles[0], shapes=((1, 4), (1, 3, 2, 2)))
    steps = tuple(
        replace(STEP, name=str(offset), arguments=(Argument(ArgumentKind.BINDING, 1, offset),))
        for offset in (124, 128)
    )

    def plan_with(num_steps: int) -> Plan:
        variant = replace(CPU, profiles=(replace(profile, steps=steps[:num_steps]),))
        return replace(plan, variants=(variant,))

    check_plan(plan_with(1))
    with pytest.raises(PlanFormatError, match="offset 128 lies outside binding 1 with its 128"):
        check_plan(plan_with(2))
