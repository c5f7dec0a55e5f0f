"""import_caffe: names, outputs, inputs, rules, random weights, and one report of all problems."""

import numpy as np
import pytest
from support.caffe_models import import_text, with_inputs, write_model

from builder_host.errors import ImportModelError
from builder_host.importers.caffe import registry, schema
from builder_host.importers.caffe.model import import_caffe
from builder_host.network.evaluate import evaluate_network
from planformat.datatypes import DataType

RELU = 'layer {{ name: "{0}" type: "ReLU" bottom: "{1}" top: "{2}" }}\n'
POWER = (
    'layer {{ name: "{0}" type: "Power" bottom: "{1}" top: "{2}" power_param {{ shift: {3} }} }}\n'
)
X = np.float32([[-3.0, -1.0, 0.5, 2.0]])


def problems(folder, text, blobs=None, **options):
    with pytest.raises(ImportModelError) as caught:
        import_text(folder, text, blobs, **options)
    return list(caught.value.problems)


def in_place_chain():
    return with_inputs(
        {"x": X.shape},
        POWER.format("a", "x", "a", 1)
        + POWER.format("b", "a", "a", 10)
        + RELU.format("r", "a", "a"),
    )


# --- names and outputs -----------------------------------------------------------------------


def test_in_place_blob_stands_for_its_last_state(tmp_path):
    network = import_text(tmp_path, in_place_chain())
    assert [t.name for t in network.outputs] == ["a"]
    assert [layer.name for layer in network.layers] == ["a", "b", "r"]
    np.testing.assert_allclose(evaluate_network(network, {"x": X})["a"], np.maximum(X + 11, 0))


def test_outputs_name_a_blob_a_state_or_a_layer(tmp_path):
    network = import_text(tmp_path, in_place_chain(), outputs=["a@a", "b", "a"])
    results = evaluate_network(network, {"x": X})
    assert list(results) == ["a@a", "b", "a"]
    np.testing.assert_allclose(results["a@a"], X + 1)
    np.testing.assert_allclose(results["b"], X + 11)
    np.testing.assert_allclose(results["a"], np.maximum(X + 11, 0))


def test_in_place_on_a_network_input(tmp_path):
    network = import_text(tmp_path, with_inputs({"x": X.shape}, POWER.format("p", "x", "x", 1)))
    assert [t.name for t in network.inputs] == ["x"]
    (result,) = evaluate_network(network, {"x": X}).values()
    np.testing.assert_allclose(result, X + 1)


def test_layers_that_no_output_needs_are_left_out(tmp_path):
    text = with_inputs(
        {"x": X.shape, "unused": (1,)},
        RELU.format("r", "x", "r")
        + 'layer { name: "own" type: "MyLayer" bottom: "r" bottom: "unused" top: "o" made_up: 1 }',
    )
    network = import_text(tmp_path, text, outputs=["r"])
    assert [layer.name for layer in network.layers] == ["r"]
    assert [t.name for t in network.inputs] == ["x"]


def test_silence_takes_a_blob_out_of_the_outputs(tmp_path):
    text = with_inputs(
        {"x": X.shape},
        RELU.format("r", "x", "r")
        + RELU.format("s", "x", "s")
        + 'layer { name: "q" type: "Silence" bottom: "s" }',
    )
    assert [t.name for t in import_text(tmp_path, text).outputs] == ["r"]


def test_dropout_is_another_name(tmp_path):
    text = with_inputs(
        {"x": X.shape},
        RELU.format("r", "x", "r")
        + 'layer { name: "d" type: "Dropout" bottom: "r" top: "dropped" }\n',
    )
    network = import_text(tmp_path, text)
    assert [layer.kind for layer in network.layers] == ["activation"]
    assert [t.name for t in network.outputs] == ["dropped"]


def test_origin_names_line_type_and_layer(tmp_path):
    network = import_text(tmp_path, in_place_chain())
    assert network.layers[2].origin == "m.prototxt:4 ReLU 'r'"


# --- inputs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "declared",
    [
        'input: "x" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4',
        'input: "x" input_shape { dim: 1 dim: 2 dim: 3 dim: 4 }',
        'layer { name: "i" type: "Input" top: "x" input_param { shape { dim: [1, 2, 3, 4] } } }',
        'layer { name: "i" type: "data" top: "x" input_param { shape { dim: [1, 2, 3, 4] } } }',
        'layer { name: "i" type: "MemoryData" top: "x" top: "label" memory_data_param '
        "{ batch_size: 1 channels: 2 height: 3 width: 4 } }",
        'layer { name: "i" type: "DummyData" top: "x" dummy_data_param { num: 1 channels: 2 '
        "height: 3 width: 4 } }",
    ],
)
def test_ways_to_declare_an_input(tmp_path, declared):
    text = declared + "\n" + RELU.format("r", "x", "r")
    network = import_text(tmp_path, text)
    assert [(t.name, t.shape, t.dtype) for t in network.inputs] == [
        ("x", (1, 2, 3, 4), DataType.FLOAT32)
    ]
    network = import_text(tmp_path, text, shapes={"x": (5, 2, 8, 8)})
    assert network.inputs[0].shape == (5, 2, 8, 8)
    assert network.outputs[0].shape == (5, 2, 8, 8)


TRAIN_VAL = """\
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  data_param { batch_size: 64 } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  data_param { batch_size: 50 } transform_param { crop_size: 8 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 } param { lr_mult: 1 decay_mult: 0 } }
layer { name: "acc" type: "Accuracy" bottom: "ip" bottom: "label" top: "acc"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def test_train_val_file_needs_the_shape_of_its_data_alone(tmp_path):
    (problem,) = problems(tmp_path, TRAIN_VAL)
    assert problem.startswith("m.prototxt:3 Data 'data': ")
    assert "shapes={'data': (50, 3, 8, 8)}" in problem
    network = import_text(tmp_path, TRAIN_VAL, shapes={"data": (2, 3, 8, 8)})
    assert [t.name for t in network.inputs] == ["data"]
    assert [(t.name, t.shape) for t in network.outputs] == [("loss", (2, 3))]
    assert [layer.kind for layer in network.layers] == ["fully_connected", "softmax"]


def test_phase_and_stage_choose_layers(tmp_path):
    text = with_inputs(
        {"x": X.shape},
        'layer { name: "a" type: "ReLU" bottom: "x" top: "y" include { phase: TRAIN } }\n'
        'layer { name: "b" type: "AbsVal" bottom: "x" top: "y" include { stage: "abs" } }\n'
        'layer { name: "c" type: "TanH" bottom: "x" top: "y" '
        'include { phase: TEST not_stage: "abs" } }\n',
    )
    names = [
        import_text(tmp_path, text, **options).layers[0].name
        for options in ({}, {"phase": "TRAIN"}, {"stages": ["abs"]})
    ]
    assert names == ["c", "a", "b"]


def test_blob_of_a_layer_that_the_rules_leave_out(tmp_path):
    text = with_inputs(
        {"x": X.shape},
        'layer { name: "a" type: "ReLU" bottom: "x" top: "y" include { stage: "s" } }\n'
        + RELU.format("r", "y", "r"),
    )
    (problem,) = problems(tmp_path, text)
    assert problem == (
        "m.prototxt:3 ReLU 'r': bottom 'y' is made by m.prototxt:2 ReLU 'a', which its include "
        "or exclude rules leave out; state another phase, stages or level"
    )


def test_v1_layers(tmp_path):
    text = (
        'input: "x"\ninput_dim: 2 input_dim: 1 input_dim: 1 input_dim: 4\n'
        'layers { name: "ip" type: INNER_PRODUCT bottom: "x" top: "ip" blobs_lr: 1 '
        "weight_decay: 1 inner_product_param { num_output: 2 } }\n"
        'layers { name: "s" type: SOFTMAX bottom: "ip" top: "s" }\n'
    )
    net = schema.message_class("NetParameter")()
    layer = net.layers.add(name="ip")
    weights, bias = np.arange(8, dtype=np.float32) / 8, np.float32([1, -1])
    for values, shape in ((weights, (1, 1, 2, 4)), (bias, (1, 1, 1, 2))):
        blob = layer.blobs.add()
        blob.num, blob.channels, blob.height, blob.width = shape
        blob.data.extend(values.tolist())
    prototxt, _ = write_model(tmp_path, text)
    caffemodel = tmp_path / "v1.caffemodel"
    caffemodel.write_bytes(net.SerializeToString())
    x = np.arange(8, dtype=np.float32).reshape(2, 1, 1, 4)
    network = import_caffe(prototxt, caffemodel, outputs=["ip"])
    result = evaluate_network(network, {"x": x})["ip"]
    np.testing.assert_allclose(result, x.reshape(2, 4) @ weights.reshape(2, 4).T + bias)


# --- weights ---------------------------------------------------------------------------------

IP = with_inputs(
    {"x": (1, 4)},
    'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" '
    "inner_product_param { num_output: 2 } }\n",
)
GOOD = [np.ones((2, 4), np.float32), np.zeros(2, np.float32)]


def constants(network):
    return {t.name: t.values for t in network.tensors() if t.is_constant}


def test_random_weights_depend_on_seed_and_name_alone(tmp_path):
    first, again, other = (
        constants(import_text(tmp_path, IP, random_seed=seed)) for seed in (1, 1, 2)
    )
    assert first.keys() == again.keys() == {"ip.weights", "ip.bias"}
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
        assert values.dtype == np.float32
    assert not np.array_equal(first["ip.weights"], other["ip.weights"])


def test_shared_parameters_share_random_weights(tmp_path):
    text = with_inputs(
        {"x": (1, 4)},
        "".join(
            f'layer {{ name: "{name}" type: "InnerProduct" bottom: "x" top: "{name}" '
            f'param {{ name: "w" }} inner_product_param {{ num_output: 2 bias_term: false }} }}\n'
            for name in ("left", "right")
        ),
    )
    found = constants(import_text(tmp_path, text))
    np.testing.assert_array_equal(found["left.weights"], found["right.weights"])


def test_random_weights_keep_a_deep_network_finite(tmp_path):
    layers, bottom = "", "x"
    for i in range(40):
        layers += (
            f'layer {{ name: "c{i}" type: "Convolution" bottom: "{bottom}" top: "c{i}" '
            "convolution_param { num_output: 8 kernel_size: 3 pad: 1 } }\n"
            + RELU.format(f"r{i}", f"c{i}", f"c{i}")
        )
        bottom = f"c{i}"
    network = import_text(tmp_path, with_inputs({"x": (1, 8, 6, 6)}, layers))
    x = np.random.default_rng(0).standard_normal((1, 8, 6, 6)).astype(np.float32)
    (result,) = evaluate_network(network, {"x": x}).values()
    assert 1e-6 < np.abs(result).max() < 1e6


@pytest.mark.parametrize(
    ("blobs", "says"),
    [
        ({"ip2": GOOD}, "has no weights for layer 'ip'; nearest: ip2"),
        (
            {"ip": GOOD[:1]},
            "has 1 blobs (2x4) for this layer, the prototxt asks for 2 (weights 2x4, bias 2)",
        ),
        ({"ip": [GOOD[0].T, GOOD[1]]}, "blob 0 (weights) of shape 4x2, the prototxt makes it 2x4"),
        ({"ip": [GOOD[0], np.zeros(3)]}, "blob 1 (bias) of shape 3, the prototxt makes it 2"),
        ({"ip": [GOOD[0] * np.nan, GOOD[1]]}, "8 of 8 values in blob 0 (weights)"),
    ],
)
def test_weights_that_do_not_fit(tmp_path, blobs, says):
    (problem,) = problems(tmp_path, IP, blobs)
    assert problem.startswith("m.prototxt:2 InnerProduct 'ip': ")
    assert "m.caffemodel" in problem
    assert says in problem


def test_damaged_caffemodel_is_in_the_report_of_the_network(tmp_path):
    text = IP + 'layer { name: "o" type: "Softmaxx" bottom: "ip" top: "o" }\n'
    prototxt, caffemodel = write_model(tmp_path, text, {"ip": GOOD})
    caffemodel.write_bytes(caffemodel.read_bytes()[:-3])
    with pytest.raises(ImportModelError) as caught:
        import_caffe(prototxt, caffemodel)
    damage, unknown = caught.value.problems
    assert damage.startswith(f"{caffemodel}: byte ")
    assert "nearest: Softmax" in unknown


# --- one report ------------------------------------------------------------------------------


def test_all_problems_come_in_one_report(tmp_path):
    text = with_inputs(
        {"x": (1, 4, 8, 8)},
        'layer { name: "c" type: "Convolution" bottom: "x" top: "c" '
        "convolution_param { num_output: 4 kernel_size: 9 } }\n"
        + RELU.format("after", "c", "after")
        + 'layer { name: "own" type: "Pooling3D" bottom: "after" top: "own" }\n'
        'layer { name: "r" type: "ReLU" bottom: "xx" top: "r" }\n'
        'layer { name: "p" type: "Pooling" bottom: "x" top: "p"\n'
        "  pooling_param { kernel: 2 kernel_size: 2 } }\n"
        'layer { name: "u" type: "WarpCTC" bottom: "p" top: "u" }\n'
        'layer { name: "n" bottom: "p" top: "n" }\n'
        "debug: true\n",
    )
    found = problems(tmp_path, text, shapes={"y": (1,)})
    assert [p.partition(": ")[0] for p in found] == [
        "m.prototxt",
        "m.prototxt:2 Convolution 'c'",
        "m.prototxt:4 Pooling3D 'own'",
        "m.prototxt:5 ReLU 'r'",
        "m.prototxt:7 Pooling 'p'",
        "m.prototxt:8 WarpCTC 'u'",
        "m.prototxt:9 layer 'n'",
        "m.prototxt:10",
    ]
    report = "\n".join(found)
    assert "unknown field 'kernel' of PoolingParameter; nearest: kernel_" in report
    assert "layer type 'Pooling3D' cannot be imported; nearest: Pooling" in report
    assert "layer type 'WarpCTC' cannot be imported; supported: AbsVal, ArgMax" in report
    assert "shapes names 'y', which is no input; inputs: x" in report
    assert "unknown field 'debug' of NetParameter; nearest: debug_info" in report


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('input: "x" input_dim: 1 input_dim: 2\n' + RELU.format("r", "x", "y"), "2 input_dim"),
        (
            'input: "x" input: "z" input_shape { dim: 1 }\n' + RELU.format("r", "x", "y"),
            "2 input but 1 input_shape",
        ),
        (with_inputs({"x": (0, 3)}, RELU.format("r", "x", "y")), "dimensions of at least 1"),
        (with_inputs({"x": (1, 3)}, ""), "no layer makes an output"),
        (
            with_inputs({"x": (1, 3)}, RELU.format("r", "x", "y") + RELU.format("s", "x", "y")),
            "top 'y' is already made by m.prototxt:2 ReLU 'r'",
        ),
        (
            with_inputs(
                {"x": (1, 3)}, 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" top: "z" }'
            ),
            "makes 1 tops, has 2; remove top 'z'",
        ),
        (
            with_inputs(
                {"x": (1, 3)},
                'layer { name: "r" type: "ReLU" bottom: "x" top: "y" include { } exclude { } }',
            ),
            "both include and exclude",
        ),
        ("", "no layer makes an output"),
    ],
)
def test_rules_of_a_net(tmp_path, text, says):
    assert any(says in problem for problem in problems(tmp_path, text))


def test_unknown_output(tmp_path):
    (problem,) = problems(tmp_path, in_place_chain(), outputs=["aa"])
    assert problem == "m.prototxt: output 'aa' is made by no layer; nearest: a"


def test_registry_has_no_gaps():
    found = registry.converters()
    assert {"Convolution", "DetectionOutput", "LRN", "Silence", "Split"} <= found.keys()
    assert list(found) == sorted(found)


@pytest.mark.parametrize(
    "layer",
    [
        'type: "InnerProduct" inner_product_param { num_output: 4000000000 }',
        'type: "Tile" tile_param { tiles: 2000000000 }',
    ],
)
def test_sizes_beyond_reason_are_refused_before_they_are_allocated(tmp_path, layer):
    text = with_inputs({"x": (1, 64)}, f'layer {{ name: "t" bottom: "x" top: "y" {layer} }}')
    (problem,) = problems(tmp_path, text)
    assert "over the limit of 536870912" in problem


def test_unknown_fields_of_a_data_layer_do_not_matter(tmp_path):
    text = 'layer { name: "d" type: "Data" top: "x" my_db_param { a: 1 } }\n'
    text += RELU.format("r", "x", "y")
    assert import_text(tmp_path, text, shapes={"x": (1, 2)}).outputs[0].shape == (1, 2)
