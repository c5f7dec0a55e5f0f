"""The reference cases of `tests/data`: models, inputs, expected outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).resolve().parents[1] / "data"


@dataclass(frozen=True)
class Case:
    """One reference case; paths are relative to `DATA`."""

    id: str
    models: tuple[str, ...]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    preprocess: str
    atol: float


@cache
def _rows() -> dict[str, dict[str, Any]]:
    rows = json.loads((DATA / "cases.json").read_text())["cases"]
    return {row["id"]: row for row in rows}


def case(case_id: str) -> Case:
    """One case by id."""
    row = _rows()[case_id]
    return Case(
        case_id,
        tuple(row["model"]),
        row["input"],
        row.get("outputs") or {},
        row["preprocess"],
        row.get("atol") or 0.0,
    )


def load(relative: str) -> np.ndarray:
    """An `.npy` array, an array of an `.npz` (`file.npz#name`), or an ONNX TensorProto (`.pb`)."""
    path, _, member = relative.partition("#")
    if path.endswith(".pb"):
        import onnx
        from onnx import numpy_helper

        tensor = onnx.TensorProto()
        tensor.ParseFromString((DATA / path).read_bytes())
        return numpy_helper.to_array(tensor)
    content = np.load(DATA / path)
    return content[member] if member else content


def _per_channel(values: list[float]) -> np.ndarray:
    return np.asarray(values, dtype=np.float32).reshape(1, -1, 1, 1)


BGR_MEAN = _per_channel([104, 117, 123])
_PREPROCESS = {
    "x = u8 / 256": lambda u8: u8.astype(np.float32) / 256,
    "x = u8 / 255": lambda u8: u8.astype(np.float32) / 255,
    "x = (u8 - [125.307,122.961,113.8575]) / [51.5865,50.847,51.255], RGB": lambda u8: (
        (u8.astype(np.float32) - _per_channel([125.307, 122.961, 113.8575]))
        / _per_channel([51.5865, 50.847, 51.255])
    ),
    "x = (u8 - 127.5) / 128": lambda u8: (u8.astype(np.float32) - np.float32(127.5)) / 128,
    "x = (u8 - 127) / 128": lambda u8: (u8.astype(np.float32) - 127) / 128,
    "x = (u8 - 127) / 64": lambda u8: (u8.astype(np.float32) - 127) / 64,
    "x = u8 - [104,117,123]": lambda u8: u8.astype(np.float32) - BGR_MEAN,
    "reverse channels to BGR; x = float16(u8 - [104,117,123] (BGR))": lambda u8: (
        u8[:, ::-1].astype(np.float32) - BGR_MEAN
    ).astype(np.float16),
    "x = float(u8)": lambda u8: u8.astype(np.float32),
    "none": lambda values: values,
}


def preprocessed(one: Case, raw: np.ndarray) -> np.ndarray:
    """The network input of a case: the formula that its `preprocess` text starts with."""
    text = one.preprocess
    if text.startswith("as caffe/samplenet/two"):
        text = case("caffe/samplenet/two").preprocess
    matches = [formula for formula in _PREPROCESS if text.startswith(formula)]
    if not matches:
        raise KeyError(f"{one.id}: no formula for '{text}'")
    return np.ascontiguousarray(_PREPROCESS[max(matches, key=len)](raw))


def model_paths(one: Case) -> Iterator[Path]:
    """Absolute paths of the model's files."""
    return (DATA / relative for relative in one.models)
