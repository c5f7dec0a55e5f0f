"""The fields of manifest.proto as tables for `wire.decode_message`; a test compares the two."""

from __future__ import annotations

from planformat import limits
from planformat.wire import Field, FieldType, Message

KEY_VALUE = Message(
    "KeyValue",
    {
        1: Field("key", FieldType.STRING),
        2: Field("value", FieldType.STRING),
    },
)
BINDING = Message(
    "Binding",
    {
        1: Field("name", FieldType.STRING),
        2: Field("is_input", FieldType.BOOL),
        3: Field("dtype", FieldType.ENUM),
        4: Field("format", FieldType.ENUM),
    },
)
CODE_OBJECT = Message(
    "CodeObject",
    {
        1: Field("kind", FieldType.ENUM),
        2: Field("architecture", FieldType.STRING),
        3: Field("toolchain", FieldType.STRING),
        4: Field("section", FieldType.UINT32),
    },
)
KERNEL = Message(
    "Kernel",
    {
        1: Field("symbol", FieldType.STRING),
        2: Field("code_object", FieldType.UINT32),
    },
)
SHAPE = Message(
    "Shape",
    {
        1: Field("dims", FieldType.UINT64, max_count=limits.MAX_RANK),
    },
)
ARGUMENT = Message(
    "Argument",
    {
        1: Field("kind", FieldType.ENUM),
        2: Field("value", FieldType.SINT64),
        3: Field("offset_bytes", FieldType.UINT64),
    },
)
STEP = Message(
    "Step",
    {
        1: Field("name", FieldType.STRING),
        2: Field("kernel", FieldType.UINT32),
        3: Field("grid", FieldType.UINT32, max_count=3),
        4: Field("block", FieldType.UINT32, max_count=3),
        5: Field("cluster", FieldType.UINT32, max_count=3),
        6: Field("arguments", FieldType.MESSAGE, max_count=limits.MAX_ARGUMENTS, message=ARGUMENT),
        7: Field("shared_memory_bytes", FieldType.UINT64),
        8: Field("scratch_bytes_per_worker", FieldType.UINT64),
        9: Field("is_concurrent", FieldType.BOOL),
        10: Field("is_dependent_launch", FieldType.BOOL),
        11: Field("tactic", FieldType.STRING),
        12: Field("measured_us", FieldType.DOUBLE, is_optional=True),
        13: Field("predicted_us", FieldType.DOUBLE, is_optional=True),
    },
)
CANARY = Message(
    "Canary",
    {
        1: Field("seed", FieldType.UINT64),
        2: Field("strides", FieldType.UINT64, max_count=limits.MAX_BINDINGS),
        3: Field("outputs", FieldType.BYTES, max_count=limits.MAX_BINDINGS),
        4: Field("absolute_tolerance", FieldType.DOUBLE),
        5: Field("relative_tolerance", FieldType.DOUBLE),
        6: Field("latency_us", FieldType.DOUBLE, is_optional=True),
    },
)
PROFILE = Message(
    "Profile",
    {
        1: Field("name", FieldType.STRING),
        2: Field("shapes", FieldType.MESSAGE, max_count=limits.MAX_BINDINGS, message=SHAPE),
        3: Field("steps", FieldType.MESSAGE, max_count=limits.MAX_STEPS, message=STEP),
        4: Field("arena_bytes", FieldType.UINT64),
        5: Field("arena_lower_bound_bytes", FieldType.UINT64),
        6: Field("num_workers", FieldType.UINT32),
        7: Field("canary", FieldType.MESSAGE, message=CANARY),
    },
)
VARIANT = Message(
    "Variant",
    {
        1: Field("device_kind", FieldType.STRING),
        2: Field(
            "fingerprint",
            FieldType.MESSAGE,
            max_count=limits.MAX_FINGERPRINT_FIELDS,
            message=KEY_VALUE,
        ),
        3: Field(
            "code_objects",
            FieldType.MESSAGE,
            max_count=limits.MAX_CODE_OBJECTS,
            message=CODE_OBJECT,
        ),
        4: Field("kernels", FieldType.MESSAGE, max_count=limits.MAX_KERNELS, message=KERNEL),
        5: Field("profiles", FieldType.MESSAGE, max_count=limits.MAX_PROFILES, message=PROFILE),
    },
)
MANIFEST = Message(
    "Manifest",
    {
        1: Field("name", FieldType.STRING),
        2: Field("bindings", FieldType.MESSAGE, max_count=limits.MAX_BINDINGS, message=BINDING),
        3: Field("variants", FieldType.MESSAGE, max_count=limits.MAX_VARIANTS, message=VARIANT),
        4: Field(
            "provenance",
            FieldType.MESSAGE,
            max_count=limits.MAX_PROVENANCE_FIELDS,
            message=KEY_VALUE,
        ),
    },
)
