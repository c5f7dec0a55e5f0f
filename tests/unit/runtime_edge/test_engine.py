"""Loading: verification, choice of the variant, code, canary."""

from __future__ import annotations

import gc
import logging
import mmap
import os
import re
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from support import tiny_plans

import runtime_edge as rt
from planformat.errors import FingerprintMismatchError, PlanFormatError, PlanSignatureError
from planformat.fingerprint import DeviceFingerprint
from planformat.plan import CodeKind, CodeObject, Plan
from planformat.signing import generate_key, public_key_of
from planformat.writer import plan_bytes, save_plan

MAPS = Path("/proc/self/maps")


def bytes_of(plan: Plan) -> bytes:
    return plan_bytes(plan)


def with_code(data: bytes, architecture: str = os.uname().machine) -> bytes:
    code = CodeObject(CodeKind.SHARED_OBJECT, architecture, "zig", data)
    return bytes_of(tiny_plans.plan(code_object=code))


@pytest.fixture
def plan_path(tmp_path):
    path = tmp_path / "tiny.plan"
    save_plan(tiny_plans.plan(), path)
    return path


def test_facts_of_an_engine(plan_path):
    engine = rt.load(plan_path)
    assert engine.name == "tiny"
    assert [b.name for b in engine.bindings] == ["x", "y"]
    assert engine.profiles == ("fast", "slow")
    assert engine.weights_bytes == 8
    assert engine.arena_bytes() == 12224  # 8192 + 4000 rounded up to 64
    assert engine.scratch_bytes() == 448  # 400 rounded up, one worker
    assert engine.scratch_bytes(num_workers=3) == 3 * 448
    assert engine.context_bytes() == 12224 + 448
    assert engine.context_bytes("slow") == 0
    assert engine.binding_shape("y", "slow") == (1, 10)
    assert engine.binding_bytes("x") == 4000
    assert "every fingerprint field matches" in engine.selection


def test_path_and_bytes_give_the_same_engine(plan_path):
    np = pytest.importorskip("numpy")
    x = np.linspace(-1, 1, 1000, dtype=np.float32).reshape(1, 1000)
    from_path = rt.load(plan_path).create_context().execute({"x": x})["y"]
    from_bytes = rt.load(plan_path.read_bytes()).create_context().execute({"x": x})["y"]
    assert np.array_equal(from_path, x * np.float32(0.5) + np.float32(3))
    assert np.array_equal(from_path, from_bytes)


def test_weights_of_a_file_are_used_in_place(plan_path):
    engine = rt.load(plan_path)
    mapped = [
        (int(begin, 16), int(end, 16))
        for begin, end, path in re.findall(
            r"^(\w+)-(\w+) .* (/.*)$", MAPS.read_text(), re.MULTILINE
        )
        if path == str(plan_path)
    ]
    assert any(begin <= engine._weights_address < end for begin, end in mapped)
    assert engine._weights_address % 4096 == 0


def test_wrong_fingerprint_is_refused_with_every_field():
    device = rt.probe_device()
    fields = {**device.fields, "cpu.model": "Another 1/2/3", "cpu.l2_bytes": "12345"}
    data = bytes_of(tiny_plans.plan(fingerprint=DeviceFingerprint("cpu", fields)))
    with pytest.raises(FingerprintMismatchError) as caught:
        rt.load(data)
    text = str(caught.value)
    assert "cpu.model" in text
    assert "'Another 1/2/3'" in text
    assert f"'{device.fields['cpu.model']}'" in text
    assert "cpu.l2_bytes" in text
    assert "12345" in text
    assert "cpu.vendor" not in text


def test_allowed_fields_may_differ_and_the_reason_is_told():
    fields = {**rt.probe_device().fields, "cpu.model": "Another 1/2/3"}
    data = bytes_of(tiny_plans.plan(fingerprint=DeviceFingerprint("cpu", fields)))
    engine = rt.load(data, allow=["cpu.model"])
    assert "allowed fields: cpu.model (plan 'Another 1/2/3'" in engine.selection
    with pytest.raises(FingerprintMismatchError):
        rt.load(data, allow=["cpu.vendor"])


def test_the_fitting_variant_is_chosen():
    right = tiny_plans.plan()
    fields = {**rt.probe_device().fields, "cpu.model": "Another 1/2/3"}
    wrong = tiny_plans.plan(fingerprint=DeviceFingerprint("cpu", fields)).variants[0]
    both = replace(right, variants=(wrong, right.variants[0]))
    assert rt.load(bytes_of(both)).selection.startswith("variant 1 of 2: every")


def test_wrong_canary_is_refused_with_index_and_values():
    data = bytes_of(tiny_plans.plan(canary_error=0.25))
    with pytest.raises(rt.CanaryError, match=r"output 'y' element 0 is .*, at build it was "):
        rt.load(data)
    assert rt.load(data, canary=False).canary_report is None


def test_canary_report_has_both_latencies(caplog):
    with caplog.at_level(logging.INFO, "runtime_edge"):
        report = rt.load(bytes_of(tiny_plans.plan())).canary_report
    assert report.profile == "fast"
    assert report.num_compared == 100
    assert report.built_latency_us == 12.5
    assert report.latency_us > 0
    assert "canary passed, 100 values" in caplog.text


def test_plan_without_canary_loads():
    assert rt.load(bytes_of(tiny_plans.plan(canary=False))).canary_report is None


def test_signature_is_checked_when_a_key_is_given(tmp_path):
    key, other = generate_key(), generate_key()
    path = tmp_path / "signed.plan"
    save_plan(tiny_plans.plan(), path, signing_key=key)
    assert rt.load(path, public_key=public_key_of(key)).name == "tiny"
    assert rt.load(path).name == "tiny"
    with pytest.raises(PlanSignatureError):
        rt.load(path, public_key=public_key_of(other))
    with pytest.raises(PlanSignatureError):
        rt.load(bytes_of(tiny_plans.plan()), public_key=public_key_of(key))


def test_plan_made_here_is_loaded_in_place_and_checked():
    np = pytest.importorskip("numpy")
    memory = rt.load(bytes_of(tiny_plans.plan())).plan.weights
    aligned = mmap.mmap(-1, len(memory))
    aligned[:] = bytes(memory)
    plan = replace(tiny_plans.plan(), weights=memoryview(aligned))
    with rt.load(plan) as engine:
        address = np.frombuffer(aligned, np.uint8).__array_interface__["data"][0]
        assert engine._weights_address == address
        assert engine.canary_report is not None
    with pytest.raises(PlanFormatError, match="chunks sum to 8 bytes, the weights have 7"):
        rt.load(replace(plan, weights=bytes(memory)[:7]))
    with pytest.raises(ValueError, match="no signature to check"):
        rt.load(plan, public_key=bytes(32))


def test_damaged_plan_is_refused(plan_path):
    data = bytearray(plan_path.read_bytes())
    data[-1] ^= 1
    with pytest.raises(PlanFormatError, match="code"):
        rt.load(bytes(data))


def test_code_that_is_no_shared_object():
    with pytest.raises(rt.LoadError, match=r"code object 0: the dynamic linker refused it"):
        rt.load(with_code(b"not an ELF file" * 10))


def test_code_for_another_architecture():
    with pytest.raises(rt.LoadError, match=r"for riscv64, this device runs a SHARED_OBJECT for"):
        rt.load(with_code(tiny_plans.code(), "riscv64"))


def test_code_without_support_or_of_another_abi():
    with pytest.raises(rt.LoadError, match="does not contain the CPU support code"):
        rt.load(with_code(tiny_plans.code(with_support=False)))
    with pytest.raises(rt.LoadError, match=r"CPU ABI version 2, this runtime speaks 1; update"):
        rt.load(with_code(tiny_plans.code(2)))


def test_missing_symbol_is_named():
    plan = tiny_plans.plan()
    kernels = (replace(plan.variants[0].kernels[0], symbol="scael"), *plan.variants[0].kernels[1:])
    broken = replace(plan, variants=(replace(plan.variants[0], kernels=kernels),))
    with pytest.raises(rt.LoadError, match="symbol 'scael' is not exported"):
        rt.load(bytes_of(broken))


def test_the_same_code_loads_many_times_and_from_a_file(monkeypatch):
    from runtime_edge.device.cpu_native import CpuModule

    modules = [CpuModule(tiny_plans.code()) for _ in range(3)]
    assert len({module.address("scale") for module in modules}) == 3  # no copy is shared
    assert {module.loaded_from for module in modules} == {"memfd"}

    def refuse(*_: object) -> int:
        raise PermissionError(13, "memfd_noexec")

    monkeypatch.setattr(os, "memfd_create", refuse)
    module = CpuModule(tiny_plans.code())
    assert module.loaded_from == "file"
    assert module.address("scale") not in {m.address("scale") for m in modules}


def test_unknown_names_list_the_known_ones():
    engine = rt.load(bytes_of(tiny_plans.plan()))
    with pytest.raises(KeyError, match="no profile 'quick'; the plan has fast, slow"):
        engine.create_context(profile="quick")
    with pytest.raises(KeyError, match="no binding 'z'; the plan has x, y"):
        engine.binding_shape("z")


def test_smallest_profile_that_fits():
    plan = tiny_plans.plan(canary=False)
    variant = plan.variants[0]
    profiles = tuple(
        replace(variant.profiles[0], name=f"b{n}", shapes=((n, 1000), (n, 1000))) for n in (8, 1, 4)
    )
    data = bytes_of(replace(plan, variants=(replace(variant, profiles=profiles),)))
    engine = rt.load(data)
    assert engine.smallest_profile({"x": (1, 1000)}) == "b1"
    assert engine.smallest_profile({"x": (3, 1000)}) == "b4"
    assert engine.smallest_profile({"x": (8, 1000)}) == "b8"
    for shape in ((9, 1000), (1, 999), (1000,)):
        with pytest.raises(LookupError, match=r"no profile takes x \[.*; the plan has b8: x \[8"):
            engine.smallest_profile({"x": shape})


def test_close_needs_closed_contexts_and_unloads(plan_path):
    engine = rt.load(plan_path)
    context = engine.create_context()
    with pytest.raises(rt.ContextBusyError, match="1 contexts are still open"):
        engine.close()
    context.close()
    engine.close()
    assert str(plan_path) not in MAPS.read_text()
    engine.close()
    for make in (engine.create_context, engine.create_stream, engine.create_event):
        with pytest.raises(rt.ContextBusyError, match=r"tiny\.plan: the engine is closed"):
            make()
    assert engine.name == "tiny"


def test_nothing_stays_mapped_when_an_engine_is_garbage(plan_path):
    def num_code_files() -> int:
        return MAPS.read_text().count("memfd:edgeplan-code")

    gc.collect()  # what earlier tests left in cycles
    before = num_code_files()
    engine = rt.load(plan_path)
    stream = engine.create_stream()
    context = engine.create_context()
    out = bytearray(4000)
    context.enqueue({"x": bytes(4000), "y": out}, stream)
    assert num_code_files() > before
    del engine, context, stream
    assert num_code_files() == before
    assert struct.unpack("<f", out[:4]) == (3.0,)  # dropping a stream finishes its work


def test_fewer_cores_than_tuned_for_are_reported(caplog):
    cores = len(os.sched_getaffinity(0))
    data = bytes_of(tiny_plans.plan(num_workers=cores + 1))
    engine = rt.load(data)
    assert f"tuned for {cores + 1} threads, the process may use {cores} cores" in caplog.text
    assert engine.create_context().num_workers == cores
    assert engine.create_context(num_workers=cores + 2).num_workers == cores + 2
    with pytest.raises(ValueError, match="num_workers is 0"):
        engine.create_context(num_workers=0)
