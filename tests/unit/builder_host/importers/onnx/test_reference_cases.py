"""Real networks: imported, evaluated in float64, compared with the stored outputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from builder_host.importers.onnx import import_onnx
from builder_host.network.evaluate import evaluate_network

DATA = Path(__file__).parents[4] / "data"
Array = np.ndarray[Any, Any]


def per_channel(values: list[float]) -> Array:
    return np.asarray(values).reshape(1, 3, 1, 1)


def normalized(x: Array, mean: list[float], deviation: list[float]) -> Array:
    return np.asarray((x - per_channel(mean)) / per_channel(deviation))


PREPROCESS: dict[str, Callable[[Array], Array]] = {
    "onnx/samplenet/two_rgb": lambda x: normalized(
        x, [125.307, 122.961, 113.8575], [51.5865, 50.847, 51.255]
    ),
    "onnx/ultraface/pair": lambda x: (x - 127.0) / 128,
    "onnx/mnist/test_data_0": lambda x: x,
    "onnx/mnist/test_data_1": lambda x: x,
    "onnx/mnist/test_data_2": lambda x: x,
    "onnx/super_resolution/zoo": lambda x: x,
    "onnx/classify/squeezenet_fp16": lambda x: (x[:, ::-1] - per_channel([104, 117, 123])).astype(
        np.float16
    ),
    "onnx/yunet/pair": lambda x: x,
    "onnx/fastestdet/dog": lambda x: x / 255,
    "onnx/selfie_seg/pair": lambda x: x / 255,
    "onnx/tract/deconv_group": lambda x: x,
    "onnx/tract/averagepool_count_include_pad": lambda x: x,
    "onnx/trt_polygraphy/qdq_conv": lambda x: x,
}
CASES = {case["id"]: case for case in json.loads((DATA / "cases.json").read_text())["cases"]}
LIGHT = ("bvlc_alexnet", "inception_v1", "resnet50", "shufflenet", "squeezenet", "vgg19")


def stored(path: str) -> Array:
    """An array of the case table: .npy, an ONNX .pb tensor, or `file.npz#name`."""
    file, _, member = path.partition("#")
    if file.endswith(".pb"):
        tensor = onnx.TensorProto.FromString((DATA / file).read_bytes())
        return np.asarray(numpy_helper.to_array(tensor))
    loaded = np.load(DATA / file)
    return np.asarray(loaded[member] if member else loaded)


@pytest.mark.parametrize("name", PREPROCESS)
def test_network_gives_the_stored_outputs(name: str) -> None:
    case = CASES[name]
    path = DATA / case["model"][0]
    if not path.is_file():
        pytest.skip(f"{case['model'][0]} is not part of the test data")
    network = import_onnx(path)
    inputs = {
        key: PREPROCESS[name](stored(file).astype(np.float64))
        for key, file in case["input"].items()
    }
    images = max((len(x) for x in inputs.values()), default=1)  # the networks take one at a time
    results = [
        evaluate_network(network, {k: x[i : i + 1] for k, x in inputs.items()})
        for i in range(images)
    ]
    names = [t.name for t in network.outputs]
    for key, file in case["outputs"].items():
        output, _, part = key.partition("[")
        got = np.concatenate([r[output if output in names else names[0]] for r in results])
        if part:  # the table stores every fourth row and second column
            assert part == ":,:,::4,::2]"
            got = got[:, :, ::4, ::2]
        expected = stored(file)
        np.testing.assert_allclose(got.reshape(expected.shape), expected, rtol=0, atol=case["atol"])


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n == "vgg19" else []) for n in LIGHT]
)
def test_light_model_gives_the_stored_output(name: str) -> None:
    network = import_onnx(DATA / f"onnx/light/light_{name}.onnx")
    (data,) = network.inputs
    expected = stored(f"onnx/light/light_{name}_output_0.pb")
    x = np.linspace(-1, 1, data.type.num_elems).reshape(data.shape)
    (got,) = evaluate_network(network, {data.name: x}).values()
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-6)


def test_tensor_names_and_origins_are_those_of_the_model() -> None:
    network = import_onnx(DATA / "onnx/mnist/mnist-8.onnx")
    assert [t.name for t in network.inputs] == ["Input3"]
    assert [t.name for t in network.outputs] == ["Plus214_Output_0"]
    first = network.layers[0]
    assert (first.kind, first.origin) == ("convolution", "ONNX node 1 Conv 'Convolution28'")
    assert first.outputs[0].name == "Convolution28_Output_0"
    assert [layer.kind for layer in network.layers] == [
        *("convolution", "elementwise", "activation", "pooling") * 2,
        "reshape",
        "fully_connected",
        "elementwise",
    ]


def test_shape_arithmetic_leaves_no_layers() -> None:
    network = import_onnx(DATA / "onnx/yunet/face_detection_yunet_2022mar.onnx")
    kinds = {layer.kind for layer in network.layers}
    assert (
        kinds
        == {
            "activation",
            "concatenation",
            "convolution",
            "pooling",
            "reshape",
            "slice",
            "softmax",
            "transpose",
        }
        & kinds
    )
    assert all(not t.is_constant for layer in network.layers for t in layer.outputs)
