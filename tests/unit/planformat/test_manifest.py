"""The manifest: schema, strict decoding, and agreement with the protobuf package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from support.plans import patched, reseal, sample_plan, section_range, tiny_plan, with_manifest

from planformat.container import SectionKind
from planformat.errors import PlanFormatError, PlanVersionError
from planformat.manifest_messages import message_class
from planformat.reader import read_plan
from planformat.sections.manifest import encode_manifest
from planformat.sections.manifest_fields import MANIFEST
from planformat.wire import Message
from planformat.writer import plan_bytes

ROOT = Path(__file__).resolve().parents[3]
TYPE_NAMES = {
    number: name.removeprefix("TYPE_")
    for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}
TINY = plan_bytes(tiny_plan())
TINY_MANIFEST = encode_manifest(tiny_plan(), [[]])


def read_manifest(manifest: bytes, *, minor: int = 0):
    data = with_manifest(TINY, manifest)
    return read_plan(reseal(patched(data, 10, minor.to_bytes(2, "little"))))


def test_descriptor_is_compiled_from_the_proto():
    spec = importlib.util.spec_from_file_location("m", ROOT / "scripts" / "make_manifest.py")
    make_manifest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_manifest)
    compiled = descriptor_pb2.FileDescriptorProto.FromString(
        make_manifest.compile_manifest(ROOT / "planformat" / "manifest.proto")
    )
    shipped = descriptor_pb2.FileDescriptorProto.FromString(
        (ROOT / "planformat" / "manifest.binpb").read_bytes()
    )
    for file in (compiled, shipped):
        for message in file.message_type:
            for row in message.field:
                row.ClearField("json_name")
    assert shipped == compiled


def test_field_tables_agree_with_the_descriptor():
    seen: dict[str, Message] = {}

    def check(table: Message) -> None:
        if table.name in seen:
            assert seen[table.name] is table
            return
        seen[table.name] = table
        descriptor = message_class(table.name).DESCRIPTOR
        assert {f.number for f in descriptor.fields} == set(table.fields)
        proto = descriptor_pb2.DescriptorProto()
        descriptor.CopyToProto(proto)
        repeated = {f.name for f in proto.field if f.label == f.LABEL_REPEATED}
        assert {f.name for f in table.fields.values() if f.max_count} == repeated
        for row in descriptor.fields:
            entry = table.fields[row.number]
            assert entry.name == row.name
            assert entry.type.name == TYPE_NAMES[row.type]
            assert entry.is_optional == (row.has_presence and row.message_type is None)
            if row.message_type is not None:
                assert entry.message.name == row.message_type.name
                check(entry.message)

    check(MANIFEST)
    names = {
        row.name for row in message_class("Manifest").DESCRIPTOR.file.message_types_by_name.values()
    }
    assert set(seen) == names


@pytest.mark.parametrize("make", [sample_plan, tiny_plan])
def test_protobuf_reads_the_same_manifest(make):
    data = plan_bytes(make())
    begin, end = section_range(data, SectionKind.MANIFEST)
    message = message_class("Manifest").FromString(data[begin:end])
    plan = read_plan(data)
    assert message.name == plan.name
    assert [b.name for b in message.bindings] == [b.name for b in plan.bindings]
    for row, variant in zip(message.variants, plan.variants, strict=True):
        assert {p.key: p.value for p in row.fingerprint} == variant.fingerprint.fields
        for step_rows, profile in zip(row.profiles, variant.profiles, strict=True):
            assert [tuple(s.dims) for s in step_rows.shapes] == list(profile.shapes)
            for step_row, step in zip(step_rows.steps, profile.steps, strict=True):
                assert [a.value for a in step_row.arguments] == [a.value for a in step.arguments]
                assert step_row.HasField("measured_us") == (step.measured_us is not None)


def test_unknown_field():
    manifest = TINY_MANIFEST + b"\xa0\x06\x01"
    with pytest.raises(PlanFormatError, match=r"'manifest', byte \d+: Manifest has no field 100"):
        read_manifest(manifest)
    with pytest.raises(PlanVersionError, match=r"format 1\.3, this reader knows 1\.2"):
        read_manifest(manifest, minor=3)


def test_unknown_enumerator():
    manifest = TINY_MANIFEST.replace(b"\x0a\x01x\x10\x01\x18\x01", b"\x0a\x01x\x10\x01\x18\x63")
    assert manifest != TINY_MANIFEST
    with pytest.raises(PlanFormatError, match="dtype is 99, known are 1 FLOAT32"):
        read_manifest(manifest)
    with pytest.raises(PlanVersionError, match="dtype is 99"):
        read_manifest(manifest, minor=3)
    missing = message_class("Manifest").FromString(TINY_MANIFEST)
    missing.bindings[0].ClearField("format")
    with pytest.raises(PlanFormatError, match="format is 0"):
        read_manifest(missing.SerializeToString(), minor=3)


def tiny_step(step: bytes) -> bytes:
    """A manifest whose only profile holds one step."""
    message = message_class("Manifest").FromString(TINY_MANIFEST)
    profile = message.variants[0].profiles[0]
    profile.ClearField("steps")
    rest = profile.SerializeToString() + b"\x1a" + bytes([len(step)]) + step
    del message.variants[0].profiles[:]
    variant = message.variants[0].SerializeToString() + b"\x2a" + bytes([len(rest)]) + rest
    del message.variants[:]
    return message.SerializeToString() + b"\x1a" + bytes([len(variant)]) + variant


GRID = b"\x1a\x03\x01\x01\x01"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (b"\x0a\x01s\x10\x00" + GRID, "kernel is 0, there are 0"),
        (b"\x0a\x01s" + GRID + GRID, "Step.grid occurs twice"),
        (b"\x0a\x01s\x0a\x01s" + GRID, "Step.name occurs twice"),
        (b"\x0a\x01s\x18\x01\x18\x01\x18\x01", "Step.grid has wire type 0"),
        (b"\x0a\x01s", "grid has 0 values, must have 3"),
        (b"\x0a\x01s\x1a\x02\x01\x01", "grid has 2 values, must have 3"),
        (b"\x0a\x01s\x1a\x04\x01\x01\x01\x01", "more than 3 grid"),
        (b"\x0a\x01s\x22\x01\x01" + GRID, "block has 1 values"),
        (b"\x0a\x01\xff" + GRID, "name' is no UTF-8|name.* is no UTF-8"),
        (b"\x0a\x05s", "Step.name has 5 bytes, 1 are left"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01s", "18,446,744,073,709,551,615 bytes"),
        (b"\x0a\x01s\x10\x80\x00" + GRID, "longer than it needs to be"),
        (b"\x0a\x01s\x10" + b"\xff" * 9 + b"\x02", "exceeds 64 bits"),
        (b"\x0a\x01s\x10" + b"\xff" * 10 + b"\x01", "longer than 10 bytes"),
        (b"\x0a\x01s\x10\x80", "cut short"),
        (b"\x0a\x01s\x10\x80\x80\x80\x80\x10", "it has 32 bits"),
        (b"\x0a\x01s\x48\x02", "a bool is 0 or 1"),
        (b"\x0a\x01s\x61\x00\x00", "Step.measured_us is cut short"),
        (b"\x0a\x01s\x60\x01", "wire type 0"),
        (b"\x0b", "Step.name has wire type 3"),
        (b"\x0e", "wire type 6"),
        (b"\x00", "has no field 0"),
        (b"\x32\x02\x08\x07" + GRID, "kind is 7, known are 1 BINDING"),
    ],
)
def test_malformed_step(step, message):
    with pytest.raises(
        PlanFormatError, match=rf"section 'manifest', byte \d+.*({message})|{message}"
    ):
        read_manifest(tiny_step(step))


def test_error_names_the_byte():
    manifest = tiny_step(b"\x0a\x01s\x48\x02")
    offset = 192 + manifest.index(b"\x48\x02")
    with pytest.raises(PlanFormatError, match=rf"section 'manifest', byte {offset}: "):
        read_manifest(manifest)


@pytest.mark.parametrize("keys", [("b", "a"), ("a", "a")])
def test_keys_must_ascend(keys):
    message = message_class("Manifest").FromString(TINY_MANIFEST)
    for key in keys:
        message.provenance.add(key=key, value="1")
    with pytest.raises(PlanFormatError, match="keys must ascend"):
        read_manifest(message.SerializeToString())


def test_repeated_messages_are_limited_while_decoding():
    message = message_class("Manifest").FromString(TINY_MANIFEST)
    for _ in range(65):
        message.variants.add()
    with pytest.raises(PlanFormatError, match="more than 64 variants"):
        read_manifest(message.SerializeToString())


def test_manifest_of_too_many_bytes_is_not_decoded():
    manifest = TINY_MANIFEST + bytes(16 << 20)
    with pytest.raises(PlanFormatError, match=r"section 'manifest' has 16,\d+,\d+ bytes, allowed"):
        read_manifest(manifest)
