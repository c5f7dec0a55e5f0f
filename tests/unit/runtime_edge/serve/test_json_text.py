"""JSON of clients: what is refused, and large tensors against json and numpy."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planformat.datatypes import DataType
from runtime_edge.serve.errors import RequestError
from runtime_edge.serve.json_text import LARGE_BYTES, NumberRun, parse_json
from runtime_edge.serve.tensor_types import elements_from_json, json_text


def large(array: np.ndarray, **more: object) -> bytes:
    text = json.dumps({"id": "[1,2,3]", "data": array.tolist(), **more}).encode()
    assert len(text) >= LARGE_BYTES
    return text


@pytest.mark.parametrize("shape", [(8000,), (10, 800), (4, 5, 400), (1, 3, 50, 60)])
def test_large_tensors_are_those_of_json(shape):
    array = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    value = parse_json(large(array, tail=[[1, 2], [3]]), "it")
    assert isinstance(value["data"], NumberRun)
    assert value["id"] == "[1,2,3]"
    assert value["tail"] == [[1, 2], [3]]
    got = elements_from_json(value["data"], shape, DataType.FLOAT32, "x")
    assert got == array.tobytes()
    flat = parse_json(large(array.reshape(-1)), "it")
    assert elements_from_json(flat["data"], shape, DataType.FLOAT32, "x") == array.tobytes()


def test_tensors_in_a_list_of_objects_are_found_whole():
    array = np.arange(20000, dtype=np.int32).reshape(2, 10000)
    content = {"inputs": [{"data": array.tolist()}, {"data": array.reshape(-1).tolist()}]}
    value = parse_json(json.dumps(content, indent=1).encode(), "it")
    for entry in value["inputs"]:
        got = elements_from_json(entry["data"], (2, 10000), DataType.INT32, "x")
        assert got == array.tobytes()


@pytest.mark.parametrize(
    "broken",
    [
        '{"data": [NUMBERS 1 2]}',
        '{"data": [NUMBERS 1,]}',
        '{"data": [[NUMBERS 1]2,[3]]}',
        '{"data": [NUMBERS NaN]}',
        '{"data": [NUMBERS Infinity]}',
        '{"data": [NUMBERS 1], "x": -Infinity}',
        '{"x": -Infinity, "data": [NUMBERS 1]}',
        '{"data": [NUMBERS 1]',
        '{"data": [NUMBERS 1, -]}',
        '{"data": [NUMBERS 01]}',
        '{"data": [NUMBERS 1e999]}',
    ],
)
def test_broken_numbers_are_refused_however_large(broken):
    for num in (3, 40000):
        numbers = "1.5, " * num
        text = broken.replace("NUMBERS", numbers).encode()
        with pytest.raises(RequestError) as caught:
            read_tensor(text, num + 1)
        assert caught.value.status == 400


def read_tensor(text, num):
    value = parse_json(text, "it")
    return elements_from_json(value["data"], (num,), DataType.FLOAT32, "x")


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 9])
def test_deep_nesting_is_refused(text):
    with pytest.raises(RequestError):
        parse_json(text, "it")


def test_a_made_up_shape_allocates_nothing():
    array = np.zeros(20000, np.float32)
    value = parse_json(large(array), "it")
    with pytest.raises(RequestError, match="20,000 elements"):
        elements_from_json(value["data"], (1 << 40, 1 << 40), DataType.FLOAT32, "x")


def test_wrong_nesting_is_refused():
    rows = [[1, 2, 3], [4, 5]]
    with pytest.raises(RequestError):
        elements_from_json(rows, (2, 3), DataType.INT32, "x")
    with pytest.raises(RequestError):
        elements_from_json([[1, 2], [3, 4]], (4, 1), DataType.INT32, "x")


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        ([1, 300], DataType.UINT8),
        ([1.5, 2], DataType.INT32),
        ([1, -1], DataType.UINT64),
        ([True, 1], DataType.FLOAT32),
        ([1, 0], DataType.BOOL),
        (["1", "2"], DataType.FLOAT32),
        ([None, 1], DataType.FLOAT32),
        ([1e39, 1], DataType.FLOAT32),
        ([1, 2], DataType.FLOAT16),
    ],
)
def test_elements_that_do_not_fit_are_refused(data, dtype):
    with pytest.raises(RequestError):
        elements_from_json(data, (2,), dtype, "x")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=50))
@settings(max_examples=100, deadline=None)
def test_any_json_beside_a_large_tensor_stays_what_it_is(extra):
    array = np.arange(20000, dtype=np.float32)
    value = parse_json(large(array, extra=extra), "it")
    assert value["extra"] == extra


@pytest.mark.parametrize("num", [0, 1, 5, 5000])
def test_json_text_is_read_back_exactly(num):
    array = np.random.default_rng(3).standard_normal(num).astype(np.float32)
    text = json_text(array.tobytes(), DataType.FLOAT32, "y")
    assert np.array_equal(np.array(json.loads(text), np.float32), array)


def test_not_finite_outputs_need_the_binary_form():
    array = np.zeros(5000, np.float32)
    array[4321] = np.nan
    with pytest.raises(RequestError, match="element 4,321 is nan"):
        json_text(array.tobytes(), DataType.FLOAT32, "y")
