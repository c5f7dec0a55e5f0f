"""Fingerprints differ field by field, with reasons; allowances name fields."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.plans import CPU_FIELDS

import planformat
from planformat.errors import FingerprintMismatchError, PlanFormatError
from planformat.fingerprint import (
    AARCH64_FEATURES,
    FIELD_RULES,
    X86_FEATURES,
    DeviceFingerprint,
    Rule,
    compare,
    describe_differences,
    fingerprint_from_json,
    fingerprint_to_json,
    require_match,
    select_match,
)

PLAN = DeviceFingerprint("cpu", CPU_FIELDS)


def device(**changes) -> DeviceFingerprint:
    fields = {**CPU_FIELDS, **{name.replace("_", ".", 1): v for name, v in changes.items()}}
    return DeviceFingerprint("cpu", {k: v for k, v in fields.items() if v is not None})


def names(differences) -> list[str]:
    return [difference.field for difference in differences]


def test_equal_devices_match():
    assert compare(PLAN, device()) == ()
    require_match(PLAN, device())


def test_every_differing_field_is_listed_with_both_values():
    other = device(cpu_model="Other 1/2/3", cpu_num_cores="8", os_glibc=None)
    differences = compare(PLAN, other)
    assert [(d.field, d.plan_value, d.device_value) for d in differences] == [
        ("cpu.model", "Example 9000 25/17/1", "Other 1/2/3"),
        ("cpu.num_cores", "4", "8"),
        ("os.glibc", "2.28", None),
    ]
    text = describe_differences(differences)
    for difference in differences:
        assert difference.why in text
        assert difference.what_to_do in text
    with pytest.raises(FingerprintMismatchError, match=r"(?s)plan p: .* 3 fields differ.*no such"):
        require_match(PLAN, other, source="p")


def test_fields_that_only_the_device_has_are_not_compared():
    assert compare(PLAN, device(board_model="Example board")) == ()


def test_device_kind_is_always_compared():
    other = replace(device(), device_kind="cuda")
    assert names(compare(PLAN, other, allow=["*"])) == ["device_kind"]


@pytest.mark.parametrize(
    ("value", "is_enough"),
    [("2.28", True), ("2.28.0", True), ("2.35", True), ("3.0", True), ("2.9", False), ("x", False)],
)
def test_at_least(value, is_enough):
    assert (compare(PLAN, device(os_glibc=value)) == ()) == is_enough


def test_at_least_of_a_text_that_is_no_number():
    plan = DeviceFingerprint("cpu", {"os.glibc": "musl"})
    assert names(compare(plan, device(os_glibc="2.28"))) == ["os.glibc"]
    assert compare(plan, device(os_glibc="musl")) == ()


def test_allow_names_fields_or_groups():
    other = device(cpu_model="Other", cpu_num_cores="8")
    assert names(compare(PLAN, other, allow=["cpu.model"])) == ["cpu.num_cores"]
    assert compare(PLAN, other, allow=["cpu.model", "cpu.num_cores"]) == ()
    assert compare(PLAN, other, allow=["cpu.*"]) == ()
    assert names(compare(PLAN, other, allow=["cpu"])) == ["cpu.model", "cpu.num_cores"]


def test_what_cannot_run_cannot_be_allowed():
    assert names(compare(PLAN, device(cpu_architecture="aarch64"), allow=["*"])) == [
        "cpu.architecture"
    ]
    more, fewer = device(cpu_features="avx2 avx512f fma"), device(cpu_features="fma")
    assert names(compare(PLAN, more)) == ["cpu.features"]
    assert compare(PLAN, more, allow=["cpu.features"]) == ()
    assert names(compare(PLAN, fewer, allow=["cpu.features"])) == ["cpu.features"]
    assert names(compare(PLAN, device(cpu_features=None), allow=["*"])) == ["cpu.features"]


def test_field_that_the_format_does_not_name_is_exact():
    plan = DeviceFingerprint("cpu", {"x.new": "1"})
    assert names(compare(plan, DeviceFingerprint("cpu", {"x.new": "2"}))) == ["x.new"]
    assert compare(plan, DeviceFingerprint("cpu", {"x.new": "2"}), allow=["x.new"]) == ()


def test_best_variant_is_chosen():
    eight = replace(PLAN, fields={**CPU_FIELDS, "cpu.num_cores": "8"})
    newer = replace(PLAN, fields={**CPU_FIELDS, "cpu.model": "Other"})
    assert select_match([PLAN, eight], device(cpu_num_cores="8")) == 1
    assert select_match([newer, PLAN], device(), allow=["cpu.model"]) == 1
    assert select_match([PLAN, PLAN], device()) == 0
    with pytest.raises(
        FingerprintMismatchError, match=r"(?s)variant 0 was .*1 field differs.*variant 1 was"
    ):
        select_match([PLAN, eight], device(cpu_num_cores="2"))


def test_json_round_trip():
    text = fingerprint_to_json(PLAN)
    assert fingerprint_from_json(text) == PLAN
    assert text == fingerprint_to_json(fingerprint_from_json(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"device_kind": "cpu"}',
        '{"device_kind": 1, "fields": {}}',
        '{"device_kind": "tpu", "fields": {}}',
        '{"device_kind": "cpu", "fields": {"a": 1}}',
        '{"device_kind": "cpu", "fields": []}',
        '{"device_kind": "cpu", "fields": {}, "more": 1}',
        "[" * 100_000,
    ],
)
def test_json_that_is_no_fingerprint(text):
    with pytest.raises(PlanFormatError, match=r"^f\.json: "):
        fingerprint_from_json(text, source="f.json")


def test_specification_lists_the_same_fields_and_features():
    spec = Path(planformat.__file__).with_name("SPEC.md").read_text(encoding="utf-8")
    section = spec.split("## 6.")[1].split("## 7.")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    listed = {name: row for row in rows for name in re.findall(r"`([a-z0-9_.]+)`", row[1])}
    assert set(listed) == set(FIELD_RULES)
    for name, row in listed.items():
        rule = FIELD_RULES[name]
        assert row[3].strip() == ("at least" if rule.rule is Rule.AT_LEAST else "exact")
        allowed = "never" if not rule.can_relax else "only" if rule.rule is Rule.SUPERSET else "yes"
        assert row[6].strip().split()[0] == allowed
    words = set(re.findall(r"[a-z0-9_]+", section.split("Features on x86_64")[1]))
    assert words >= X86_FEATURES | AARCH64_FEATURES
