"""The cases of a data folder's cases.json: networks, inputs as they take them, expected outputs."""

from __future__ import annotations

import json
import re
import wave
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import builder_host as bh

Array = np.ndarray[Any, Any]
Row = dict[str, Array]

# Networks that are run step by step: which output is which input of the next step.
_STATES = {
    "rnn/dtln/yes": {"input_3": "tf_op_layer_stack_2"},
    "rnn/silero/three_words": {"state": "stateN"},
}
_LAST_ROW_ONLY = {"tf_op_layer_stack_2", "stateN"}
_STORED_SHAPES = {"onnx/tract/byte_sb_bidi_lstm", "onnx/teams_seg/onnxjs"}
_NUMBERS = r"(\[[\d., -]+\]|[\d.]+)"
_FORMULA = re.compile(
    rf"x = (?:float16)?(?P<bare>float)?\(*u8(?: ?/ ?(?P<first>[\d.]+))?\)?"
    rf"(?: - (?P<mean>{_NUMBERS}))?(?: \(BGR\))?\)*(?: / (?P<divisor>{_NUMBERS}))?"
)


class UnusableCaseError(Exception):
    """The case cannot be run by this script; the text says why."""


@dataclass(frozen=True)
class Case:
    """One case, ready to build and run.

    Attributes:
        network: imported; rows: inputs of each inference, in order.
        states: input -> output that it takes in the next inference.
        expected: by output; `name[:,:,::4,::2]` stores a part of it.
        atol: largest absolute error that passes; labels: classes that are counted instead.
    """

    id: str
    network: bh.Network
    rows: list[Row]
    expected: dict[str, Array]
    atol: float
    states: Mapping[str, str] = field(default_factory=dict)
    labels: Array | None = None
    num_right: int = 0

    def part(self, key: str, results: list[Row]) -> Array:
        """What the plan computed for one expected output, cut to what is stored of it."""
        name, _, cut = key.partition("[")
        if name in _LAST_ROW_ONLY:
            return results[-1][name]
        name = name if name in results[0] else next(iter(results[0]))
        values = np.concatenate([row[name] for row in results])
        if cut:
            steps = [part.rpartition(":")[2] for part in cut.rstrip("]").split(",")]
            values = values[tuple(slice(None, None, int(step or 1)) for step in steps)]
        if values.shape[1:2] > self.expected[key].shape[1:2] and self.id == "caffe/conv_bn/cat":
            values = values[:, : self.expected[key].shape[1]]  # so many channels were kept
        return values


def case_rows(data: Path) -> list[dict[str, Any]]:
    """The rows of cases.json."""
    rows: list[dict[str, Any]] = json.loads((data / "cases.json").read_text())["cases"]
    return rows


def load_case(row: dict[str, Any], data: Path) -> Case:
    """Import a case's network and prepare its inputs.

    Raises:
        UnusableCaseError: it is no network with inputs and outputs, or its files are elsewhere.
    """
    name = row["id"]
    if "model" not in row:
        raise UnusableCaseError("an archive of operators: scripts/onnx_suite.py")
    models = [data / path for path in row["model"]]
    if missing := [path.name for path in models if not path.is_file()]:
        raise UnusableCaseError(f"{', '.join(missing)} is not in this folder")
    if models[0].suffix == ".json":
        raise UnusableCaseError("weights without a graph: built by calls in tests/conformance")
    if name == "rnn/silero/three_words":
        return _speech_case(row, data, models[0])
    stored = {key: _read(data, path) for key, path in row["input"].items()}
    labels = None
    if "outputs" not in row or not row["outputs"]:
        ((key, arrays),) = stored.items()
        labels = next(a for a in arrays.values() if a.ndim == 1)
        stored = {key: next(a for a in arrays.values() if a.ndim == 3)[:, None]}
    formula = row["preprocess"]
    if formula.startswith("as "):
        other = formula.split()[1]
        formula = next(r["preprocess"] for r in case_rows(data) if r["id"] == other)
    inputs = {key: preprocessed(formula, values) for key, values in stored.items()}
    network, rows = _imported(name, models, inputs, row)
    wanted = re.match(r"(\d+) of", row.get("expect") or "")
    return Case(
        name,
        network,
        rows,
        {key: _read(data, path) for key, path in (row.get("outputs") or {}).items()},
        float(row.get("atol") or 0.0),
        _STATES.get(name, {}),
        labels,
        int(wanted[1]) if wanted and labels is not None else 0,
    )


def _imported(
    name: str, models: list[Path], inputs: Row, row: dict[str, Any]
) -> tuple[bh.Network, list[Row]]:
    """The network for these inputs, and the inputs as it takes them: all at once, or one by one."""
    shapes = {key: values.shape for key, values in inputs.items()}
    outputs = [key.partition("[")[0] for key in row.get("outputs") or {}]
    if models[0].suffix == ".prototxt":
        network = bh.import_caffe(*models, shapes=shapes, outputs=outputs or None)
    elif models[0].suffix == ".uff":
        network = bh.import_uff(models[0], shapes=shapes, order="NHWC")
    elif models[0].suffix == ".pb":
        one = {key: (1, *shape[1:]) for key, shape in shapes.items()}
        network = bh.import_tensorflow(models[0], shapes=one)
    else:
        network = bh.import_onnx(models[0], shapes=shapes if name in _STORED_SHAPES else None)
    types = {tensor.name: tensor for tensor in network.inputs}
    count = max((len(values) for values in inputs.values()), default=1)
    if name in _STATES:
        return network, [{key: v[None, i] for key, v in inputs.items()} for i in range(count)]
    if all(types[key].shape == values.shape for key, values in inputs.items()):
        return network, [inputs]
    return network, [{key: v[i : i + 1] for key, v in inputs.items()} for i in range(count)]


def _speech_case(row: dict[str, Any], data: Path, model: Path) -> Case:
    """Speech in chunks of 512 samples, each behind the 64 samples before it."""
    samples = np.concatenate([_samples(data / path) for path in row["input"]["audio"]])
    padded = np.concatenate([np.zeros(64, np.float32), samples])
    chunks = [padded[None, i : i + 576] for i in range(0, len(samples) - 511, 512)]
    network = bh.import_onnx(model, shapes={"input": (1, 576), "state": (2, 1, 128)})
    rate = {"sr": np.asarray(16000, np.int64)} if len(network.inputs) == 3 else {}
    expected = {key: _read(data, path) for key, path in row["outputs"].items()}
    rows = [{"input": chunk, **rate} for chunk in chunks]
    return Case(row["id"], network, rows, expected, row["atol"], _STATES[row["id"]])


def _samples(path: Path) -> Array:
    with wave.open(str(path)) as clip:
        frames = clip.readframes(clip.getnframes())
    return np.frombuffer(frames, np.int16).astype(np.float32) / 32768


def _read(data: Path, relative: str) -> Any:
    """An .npy array, one of an .npz (`file.npz#name`) or all of them, or an ONNX TensorProto."""
    path, _, member = relative.partition("#")
    if path.endswith(".pb"):
        import onnx
        from onnx import numpy_helper

        return numpy_helper.to_array(onnx.TensorProto.FromString((data / path).read_bytes()))
    content = np.load(data / path)
    if not path.endswith(".npz"):
        return content
    return content[member] if member else {key: content[key] for key in content.files}


def preprocessed(formula: str, values: Array) -> Array:
    """Pixels after a formula of cases.json such as `x = (u8 - 127.5) / 128`; `none` leaves them.

    Raises:
        UnusableCaseError: another kind of text.
    """
    found = _FORMULA.search(formula)
    if found is None:
        if values.dtype == np.uint8 and not formula.startswith("none"):
            raise UnusableCaseError(f"no formula is known for '{formula}'")
        return values
    if formula.startswith("reverse channels"):
        values = values[:, ::-1]
    result = values.astype(np.float32)
    for sign, text in (("/", found["first"]), ("-", found["mean"]), ("/", found["divisor"])):
        if text:
            numbers = np.asarray(json.loads(re.sub(r"(?<!\d)\.", "0.", text)), np.float32)
            operand = numbers.reshape(-1, 1, 1) if numbers.ndim else numbers
            result = result / operand if sign == "/" else result - operand
    return np.ascontiguousarray(result, np.float16 if "float16" in formula else np.float32)


def largest_error(case: Case, results: list[Row]) -> float:
    """Largest absolute difference over all outputs; detections are compared as far as filled."""
    return max(_differences(case, results), default=float("inf"))


def _differences(case: Case, results: list[Row]) -> Iterator[float]:
    for key, expected in case.expected.items():
        actual = case.part(key, results)
        if key == "detection_output":  # engines fill rows without a box differently
            actual, expected = (a[0, 0][a[0, 0, :, 2] > 0] for a in (actual, expected))
        if actual.size != expected.size:
            yield float("inf")
        else:
            wide = actual.reshape(expected.shape).astype(np.float64)
            yield float(np.abs(wide - expected.astype(np.float64)).max())
