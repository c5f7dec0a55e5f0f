"""Dynamic dimensions: bound by shapes, defaulted for a lone batch, else reported."""

from __future__ import annotations

import logging

import pytest
from onnx import helper
from support.onnx_models import model, problems_of

from builder_host.importers.onnx import import_onnx


def relu(shape: list[int | str | None]) -> object:
    return model([helper.make_node("Relu", ["x"], ["y"])], {"x": shape}, ["y"])


@pytest.mark.parametrize("dim", ["batch", None, 0, -1])
def test_lone_batch_dimension_becomes_one_with_a_note(
    dim: int | str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        network = import_onnx(relu([dim, 3, 4]))  # type: ignore[arg-type]
    assert network.inputs[0].shape == (1, 3, 4)
    assert "input 'x': batch dimension" in caplog.text
    assert "becomes 1; --shapes sets another" in caplog.text


def test_unknown_dimensions_are_named_with_the_option() -> None:
    assert problems_of(relu(["n", 3, "height", None])) == (
        "input 'x': dimension 0 ('n'), 2 ('height'), 3 is not known; "
        "state it with --shapes x:Nx3xNxN",
    )


def test_shapes_bind_and_reach_other_inputs_by_name() -> None:
    add = model(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        {"a": ["n", "width"], "b": ["n", "width"]},
        ["y"],
    )
    network = import_onnx(add, shapes={"a": (2, 5)})
    assert [t.shape for t in network.inputs] == [(2, 5), (2, 5)]
    assert network.outputs[0].shape == (2, 5)


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        ({"x": (1, 4, 4)}, "dimension 1 is 4 but the model (nx3x4) fixes it to 3"),
        ({"x": (1, 3)}, "has 2 dimensions, the model's input has 3"),
        ({"x": (0, 3, 4)}, "every dimension must be from 1"),
        ({"z": (1, 3, 4)}, "names 'z', which is no input of the model; its inputs are: x"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes: dict[str, tuple[int, ...]], text: str) -> None:
    problems = problems_of(relu(["n", 3, 4]), shapes=shapes)
    assert any(text in p for p in problems), problems


def test_contradicting_symbols_are_refused() -> None:
    add = model([helper.make_node("Add", ["a", "b"], ["y"])], {"a": ["n"], "b": ["n"]}, ["y"])
    problems = problems_of(add, shapes={"a": (2,), "b": (3,)})
    assert problems[0] == "--shapes b:3: dimension 0 is 3 but the model (n) fixes it to 2"


def test_huge_dimension_is_refused() -> None:
    problems = problems_of(relu([1, 2**40]))
    assert problems == (
        "input 'x': dimension 1,099,511,627,776 is over the limit of 2,147,483,647",
    )


def test_huge_input_is_refused() -> None:
    problems = problems_of(relu([1, 2**20, 2**20]))
    assert problems == (
        "input 'x': shape 1x1048576x1048576 has 1,099,511,627,776 elements, the limit is "
        "2,147,483,647",
    )


def test_input_without_a_shape_needs_one() -> None:
    broken = relu([1, 2])
    broken.graph.input[0].type.tensor_type.ClearField("shape")  # type: ignore[attr-defined]
    assert "state it with --shapes x:" in problems_of(broken)[0]
    network = import_onnx(broken, shapes={"x": (2, 3, 4)})  # type: ignore[arg-type]
    assert network.outputs[0].shape == (2, 3, 4)
