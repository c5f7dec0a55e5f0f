"""Real networks: imported, evaluated in float64, compared with the stored outputs."""

from __future__ import annotations

import numpy as np
import pytest
from support.cases import DATA, case, load, model_paths, preprocessed

from builder_host.importers.onnx import import_onnx
from builder_host.network.evaluate import evaluate_network

CASES = (
    "onnx/samplenet/two_rgb",
    "onnx/ultraface/pair",
    "onnx/mnist/test_data_0",
    "onnx/mnist/test_data_1",
    "onnx/mnist/test_data_2",
    "onnx/super_resolution/zoo",
    "onnx/classify/squeezenet_fp16",
    "onnx/yunet/pair",
    "onnx/fastestdet/dog",
    "onnx/selfie_seg/pair",
    "onnx/tract/deconv_group",
    "onnx/tract/averagepool_count_include_pad",
    "onnx/trt_polygraphy/qdq_conv",
)
LIGHT = ("bvlc_alexnet", "inception_v1", "resnet50", "shufflenet", "squeezenet", "vgg19")


@pytest.mark.parametrize("name", CASES)
def test_network_gives_the_stored_outputs(name: str) -> None:
    one = case(name)
    (path,) = model_paths(one)
    network = import_onnx(path)
    inputs = {key: preprocessed(one, load(file)) for key, file in one.inputs.items()}
    images = max((len(x) for x in inputs.values()), default=1)  # the networks take one at a time
    results = [
        evaluate_network(network, {k: x[i : i + 1] for k, x in inputs.items()})
        for i in range(images)
    ]
    names = [t.name for t in network.outputs]
    for key, file in one.outputs.items():
        output, _, part = key.partition("[")
        got = np.concatenate([r[output if output in names else names[0]] for r in results])
        if part:  # the table stores every fourth row and second column
            assert part == ":,:,::4,::2]"
            got = got[:, :, ::4, ::2]
        expected = load(file)
        np.testing.assert_allclose(got.reshape(expected.shape), expected, rtol=0, atol=one.atol)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n == "vgg19" else []) for n in LIGHT]
)
def test_light_model_gives_the_stored_output(name: str) -> None:
    network = import_onnx(DATA / f"onnx/light/light_{name}.onnx")
    (data,) = network.inputs
    expected = load(f"onnx/light/light_{name}_output_0.pb")
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
