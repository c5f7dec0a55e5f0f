"""The details of a plan: round trip, hostile content, and readers that ignore them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support.plans import sample_details, sample_plan

from planformat import limits
from planformat.details import PlanDetails, encode_details, plan_details
from planformat.errors import PlanFormatError
from planformat.reader import read_container, read_plan
from planformat.recipe import BuildRecipe, ModelFile
from planformat.writer import plan_bytes, sign_plan


def test_round_trip_through_a_file():
    plan = read_plan(plan_bytes(sample_plan()))
    assert plan_details(plan) == sample_details()
    assert plan_details(replace(plan, details=b"")) is None


def test_the_section_may_be_ignored_and_survives_signing():
    data = plan_bytes(sample_plan())
    (entry,) = (e for e in read_container(data).entries if e.name == "details")
    assert entry.flags == 2
    signed = sign_plan(data, bytes(range(32)))
    assert plan_details(read_plan(signed)) == sample_details()


def change(path, value):
    """Details with one value changed; the path is of keys and indices."""
    tree = json.loads(sample_plan().details)
    *parents, last = path
    place = tree
    for key in parents:
        place = place[key]
    place[last] = value
    return replace(sample_plan(), details=json.dumps(tree).encode())


OPERATION = ("variants", 0, 0, "operations", 0)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (replace(sample_plan(), details=b"{"), "section 'details': Expecting"),
        (replace(sample_plan(), details=b"[" * 100_000), "section 'details'"),
        (replace(sample_plan(), details=b"\xff"), "section 'details'"),
        (replace(sample_plan(), details=b"[]"), "expected an object with 'variants'"),
        (replace(sample_plan(), details=b"{}"), "the field 'variants' is missing"),
        (change(("variants",), []), "tells of 0 variants, the plan has 3"),
        (change(("variants", 0, 0, "name"), "b9"), "its profiles are not b1, b2"),
        (change((*OPERATION, "steps"), [1]), "does not list its 2 steps once each"),
        (change((*OPERATION, "steps"), [-1]), "a step is -1"),
        (change((*OPERATION, "kind"), 3), "'kind' is int, not a text"),
        (change((*OPERATION, "num_operations"), 1.5), "'num_operations' is 1.5"),
        (change((*OPERATION, "inputs"), {}), "expected a list, got dict"),
        (change((*OPERATION, "inputs", 0, "scale"), 10**400), "int too large"),
        (change((*OPERATION, "inputs", 0, "scale"), float("nan")), "'scale' is nan"),
        (change((*OPERATION, "inputs", 0, "is_constant"), 1), "is_constant is 1"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(plan, message):
    with pytest.raises(PlanFormatError, match=message):
        plan_details(plan, source="x")


RECIPE = BuildRecipe(
    files=(ModelFile("größe.onnx", 12, "ab" * 32),),
    outputs=("prob",),
    image_order="NHWC",
    precision="int8",
    layer_rules=(("*head*", "fp16"),),
    tensor_rules=(("data", "fp32"),),
    scales={"data": 0.0078125},
    largest={"data": 1.0},
    hardware={"memory_gbps": 204.8, "memory_bytes": 1 << 33},
)


def with_recipe(**changes):
    """The sample plan with a recipe, fields of which are changed in its JSON."""
    details = encode_details(PlanDetails(sample_details().variants, RECIPE))
    tree = json.loads(details)
    tree["recipe"] |= changes
    return replace(sample_plan(), details=json.dumps(tree).encode())


def test_recipe_round_trip():
    assert plan_details(with_recipe()).recipe == RECIPE
    assert plan_details(sample_plan()).recipe is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"files": [{"name": "x"}]}, "the field 'num_bytes' is missing"),
        ({"files": {}}, "expected a list"),
        (
            {"files": [{"name": "\x1b[2J", "num_bytes": 1, "sha256": "0" * 64}]},
            r"file, '\\x1b\[2J', holds what cannot be printed",
        ),
        (
            {"files": [{"name": "x", "num_bytes": 1, "sha256": "\x1b"}]},
            r"the SHA-256 of 'x' is '\\x1b'",
        ),
        ({"outputs": [1]}, "an output is int, not a text"),
        ({"precision": None}, "'precision' is NoneType"),
        ({"layer_rules": [["a"]]}, "'layer_rules' has a row of 1 texts, not of 2"),
        ({"tensor_rules": [["a", 2]]}, "a part of 'tensor_rules' is int"),
        ({"scales": {"x": -1.0}}, "'scales' of 'x' is -1.0, not a finite number"),
        ({"scales": {"x": float("inf")}}, "'scales' of 'x' is inf"),
        ({"largest": []}, "expected an object"),
        ({"hardware": {"memory_bytes": -1}}, "'hardware' 'memory_bytes' is -1"),
        ({"hardware": {"memory_bytes": True}}, "'hardware' 'memory_bytes' is True"),
        (
            {"hardware": {"memory_bytes": 1 << 64}},
            "'hardware' 'memory_bytes' is 18446744073709551616",
        ),
    ],
)
def test_a_recipe_that_is_none_is_refused_by_name(changes, message):
    with pytest.raises(PlanFormatError, match=message):
        plan_details(with_recipe(**changes), source="x")


def test_size_is_bounded():
    plan = replace(sample_plan(), details=bytes(limits.MAX_DETAILS_BYTES + 1))
    with pytest.raises(PlanFormatError, match="details have 16,777,217 bytes, allowed are"):
        plan_bytes(plan)
