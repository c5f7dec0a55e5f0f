from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support.cases import DATA
from support.commands import edgeplan
from support.cuda_toolkits import need_toolkit
from support.plans import sample_plan

from builder_host.inspection.difference import plan_differences
from builder_host.measure.local import local_fingerprint
from planformat.fingerprint import DeviceFingerprint, fingerprint_to_json

MNIST = DATA / "onnx" / "mnist" / "mnist-8.onnx"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one.plan for this machine and orin.plan for a Jetson."""
    need_toolkit()
    made = tmp_path_factory.mktemp("plans")
    options = ("--measure", "none", "--no-check")
    edgeplan("build", MNIST, "-o", "one.plan", "--threads", 1, *options, cwd=made)
    edgeplan("build", MNIST, "-o", "orin.plan", "--target", "jetson-agx-orin", *options, cwd=made)
    return made


def test_a_plan_does_not_differ_from_itself(folder):
    assert edgeplan("diff", "one.plan", "one.plan", cwd=folder).stdout == "no differences\n"


def test_what_two_builds_did_differently(folder):
    done = edgeplan("diff", "one.plan", "orin.plan", "--json", cwd=folder, status=1)
    rows = {row["subject"]: (row["first"], row["second"]) for row in json.loads(done.stdout)}
    assert rows["device cpu.architecture"] == ("x86_64", "")
    assert rows["device cuda.compute_capability"] == ("", "8.7")
    tactics = [pair for subject, pair in rows.items() if subject.endswith(": tactic")]
    assert tactics
    assert all(second.startswith("cuda_") for _, second in tactics)
    assert "in chunks of the first" in rows["weights"][1]


@pytest.mark.parametrize("part", ["code", "launch", "canary"])
def test_what_has_the_same_size_is_compared_too(part):
    plan = sample_plan()
    variant = plan.variants[0]
    profile = variant.profiles[0]
    if part == "code":
        code = variant.code_objects[0]
        changed = replace(code, data=bytes(code.data)[:-1] + b"!")
        variant = replace(variant, code_objects=(changed, *variant.code_objects[1:]))
    elif part == "launch":
        step = replace(profile.steps[0], grid=(profile.steps[0].grid[0] + 1, 1, 1))
        profile = replace(profile, steps=(step, *profile.steps[1:]))
    else:
        outputs = (bytes(len(profile.canary.outputs[0])), *profile.canary.outputs[1:])
        profile = replace(profile, canary=replace(profile.canary, outputs=outputs))
    variant = replace(variant, profiles=(profile, *variant.profiles[1:]))
    other = replace(plan, variants=(variant, *plan.variants[1:]))
    assert plan_differences(plan, plan, ("a", "b")) == []
    (found,) = plan_differences(plan, other, ("a", "b"))
    where = {"code": "code content", "launch": "b1 launches", "canary": "b1 canary"}[part]
    assert found.subject.endswith(where)
    assert found.first != found.second


def test_this_machine(folder):
    done = edgeplan("explain", "one.plan", cwd=folder)
    assert "variant 0 (cpu): runs there; every fingerprint field matches" in done.stdout


def test_another_board_says_why_and_what_to_do(folder):
    done = edgeplan("explain", "orin.plan", "--device", "jetson-agx-thor", cwd=folder, status=4)
    assert "does not run there" in done.stdout
    assert "cuda.compute_capability: the plan has '8.7', the device has '11.0'" in done.stdout
    assert "do:  rebuild the plan with this device as its target" in done.stdout
    done = edgeplan("explain", "one.plan", "--device", "jetson-agx-orin", cwd=folder, status=4)
    assert "it is for a cpu device, that one is of kind cuda" in done.stdout
    assert (
        "runs there"
        in edgeplan("explain", "orin.plan", "--device", "jetson-agx-orin", cwd=folder).stdout
    )


def test_a_difference_that_may_be_allowed(folder):
    here = local_fingerprint()
    other = DeviceFingerprint("cpu", {**here.fields, "cpu.num_cores": "64"})
    (folder / "other.json").write_text(fingerprint_to_json(other))
    done = edgeplan("explain", "one.plan", "--device", "other.json", cwd=folder, status=3)
    assert "runs there if you allow what differs (cpu.num_cores)" in done.stdout


def test_verify_looks_at_the_device_that_the_plan_is_for(folder):
    assert "is for this device" in edgeplan("verify", "one.plan", "--device", cwd=folder).stdout
    done = edgeplan("verify", "orin.plan", "--device", cwd=folder, status=1)
    assert "cuda" in done.stderr.lower()
    assert "cpu.architecture" not in done.stderr


def test_explain_as_json(folder):
    done = edgeplan(
        *("explain", "orin.plan", "--device", "jetson-agx-thor", "--json"), cwd=folder, status=4
    )
    (row,) = json.loads(done.stdout)["variants"]
    assert (row["device_kind"], row["runs"]) == ("cuda", "no")
    assert "cuda.compute_capability" in row["text"]
