"""Plugins in models: an ONNX operator, a Caffe layer type, a UFF operation; plugin files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.caffe_models import import_text, with_inputs, write_model
from support.uff_models import HWCK, NHWC, UffFile

import builder_host as bh
from builder_host.errors import ImportModelError, PluginError
from builder_host.importers.caffe.model import import_caffe
from builder_host.importers.onnx.model import import_onnx
from builder_host.importers.uff.model import import_uff
from builder_host.network.evaluate import evaluate_network
from builder_host.plugins import Plugin, PluginRegistry, load_plugins
from examples.plugins.snake import PLUGINS as SNAKE
from examples.plugins.snake import Snake
from examples.plugins.yolov2 import PLUGINS as YOLO

EXAMPLES = Path(__file__).resolve().parents[4] / "examples" / "plugins"
RNG = np.random.default_rng(11)


def snake(x, alpha):
    return x + np.sin(alpha * x) ** 2 / alpha


def onnx_model(op_type="Snake", domain="example.audio", **attributes):
    node = helper.make_node(op_type, ["x"], ["y"], "wave", domain=domain, **attributes)
    relu = helper.make_node("Relu", ["y"], ["z"])
    graph = helper.make_graph(
        [node, relu],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3))],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, (2, 3))],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("example.audio", 1)]
    return helper.make_model(graph, opset_imports=opsets)


def test_onnx_operator_of_another_domain():
    network = import_onnx(onnx_model(alpha=0.5), plugins=SNAKE)
    assert [layer.kind for layer in network.layers] == ["plugin", "activation"]
    assert network.layers[0].outputs[0].name == "y"
    assert network.layers[0].params.plugin == Snake(0.5)
    x = RNG.standard_normal((2, 3))
    result = evaluate_network(network, {"x": x})["z"]
    np.testing.assert_allclose(result, np.maximum(snake(x, 0.5), 0), rtol=1e-12)


def test_onnx_operator_without_its_plugin_says_what_to_do():
    with pytest.raises(ImportModelError, match=r"docs/plugins\.md"):
        import_onnx(onnx_model(alpha=0.5))


def test_a_plugin_comes_before_the_built_in_operator():
    registry = PluginRegistry()
    seen = []

    @registry.onnx("", "Relu")
    def make(node):
        seen.append(node)
        return Snake()

    model = onnx_model(alpha=0.5)
    network = import_onnx(model, plugins=both(registry, SNAKE))
    assert [layer.kind for layer in network.layers] == ["plugin", "plugin"]
    assert (seen[0].operation, seen[0].inputs[0].shape) == ("Relu", (2, 3))


def both(*registries):
    joined = PluginRegistry()
    for registry in registries:
        joined.merge(registry)
    return joined


def test_all_kinds_of_onnx_attributes_reach_the_creator():
    registry = PluginRegistry()
    seen = {}

    @registry.onnx("example.audio", "Snake")
    def make(node):
        seen.update(node.attributes)
        return Snake()

    tensor = onnx.numpy_helper.from_array(np.arange(3, dtype=np.int64), "t")
    model = onnx_model(
        i=1, f=0.5, s="text", ints=[1, 2], floats=[0.5], strings=["a", "b"], t=tensor
    )
    import_onnx(model, plugins=registry)
    assert seen.pop("t").tolist() == [0, 1, 2]
    assert seen == {
        "i": 1,
        "f": 0.5,
        "s": "text",
        "ints": (1, 2),
        "floats": (0.5,),
        "strings": ("a", "b"),
    }


HEAD = with_inputs(
    {"fine": (1, 8, 6, 6), "coarse": (1, 4, 3, 3)},
    """
layer { name: "reorg" type: "Reorg" bottom: "fine" top: "reorg" reorg_param { stride: 2 } }
layer { name: "both" type: "Concat" bottom: "reorg" bottom: "coarse" top: "both" }
layer { name: "maps" type: "Convolution" bottom: "both" top: "maps"
        convolution_param { num_output: 16 kernel_size: 1 } }
layer { name: "boxes" type: "Region" bottom: "maps" top: "boxes"
        region_param { classes: 3 num: 2 coords: 4 softmax: true } }
""",
)


def test_caffe_head_of_yolov2(tmp_path):
    network = import_text(tmp_path, HEAD, plugins=YOLO)
    kinds = [layer.kind for layer in network.layers]
    assert kinds == ["plugin", "concatenation", "convolution", "plugin"]
    assert network.layers[0].params.identity == 'Reorg/1{"stride": 2}'
    assert network.layers[3].params.identity == 'Region/1{"anchors": 2, "classes": 3}'
    assert network.outputs[0].shape == (1, 16, 3, 3)
    assert ":4 " in network.layers[0].origin  # the line of the prototxt
    built = bh.build(network, bh.BuilderConfig(measure="none", num_threads=1))
    assert built.report.accuracy["boxes"] < 1e-5


def test_caffe_blobs_become_constant_inputs(tmp_path):
    class Tables(Plugin):
        name = "Tables"

        def output_types(self, inputs):
            return [inputs[0]]

        def reference(self, inputs):
            return [inputs[0] * inputs[1] + inputs[2]]

    registry = PluginRegistry()
    shapes = []

    @registry.caffe("Tables")
    def make(node):
        shapes.extend(w.shape for w in node.weights)
        return Tables()

    scale, shift = RNG.standard_normal((2, 1, 4, 1, 1)).astype(np.float32)
    text = with_inputs(
        {"x": (1, 4, 2, 2)}, 'layer { name: "t" type: "Tables" bottom: "x" top: "y" }'
    )
    network = import_text(tmp_path, text, {"t": [scale, shift]}, plugins=registry)
    assert shapes == [(1, 4, 1, 1)] * 2
    x = RNG.standard_normal((1, 4, 2, 2))
    np.testing.assert_allclose(evaluate_network(network, {"x": x})["y"], x * scale + shift)


def test_fields_that_the_schema_lacks_reach_the_creator(tmp_path):
    registry = PluginRegistry()
    seen = {}

    @registry.caffe("Snake")
    def make(node):
        seen.update(node.attributes)
        return Snake()

    text = with_inputs(
        {"x": (1, 2)},
        """layer { name: "t" type: 'Snake' bottom: "x" top: "y"  # a comment { with braces
  odd_param < on: true ratio: -2.5e-1f size: 3 size: 4 hex: 0x10 mode: FAST
              inner { text: "a\\"b" "c" } inner { } list: [1, 2] >
  param { lr_mult: 1 } phase: TEST }""",
    )
    import_caffe(*write_model(tmp_path, text), plugins=registry)
    assert seen["odd_param"] == {
        "on": True,
        "ratio": -0.25,
        "size": (3, 4),
        "hex": 16,
        "mode": "FAST",
        "inner": ({"text": 'a"bc'}, {}),
        "list": (1, 2),
    }
    assert (seen["name"], seen["bottom"], seen["phase"]) == ("t", "x", "TEST")


def test_wrong_plugins_are_problems_of_their_line(tmp_path):
    text = HEAD.replace("stride: 2", "stride: 5").replace("num: 2", "")
    with pytest.raises(ImportModelError) as caught:
        import_text(tmp_path, text, plugins=YOLO)
    (problem,) = caught.value.problems  # the region is not reached: its bottom is missing
    assert problem.startswith("m.prototxt:4 Reorg 'reorg': ")
    assert "stride 5 does not divide" in problem
    text = HEAD.replace("num: 2", "")
    with pytest.raises(ImportModelError, match=r"m.prototxt:8 Region 'boxes'.*'num'"):
        import_text(tmp_path, text, plugins=YOLO)


def test_uff_operation_sees_images_channels_first(tmp_path):
    file = UffFile()
    x, kernel = RNG.standard_normal((1, 4, 6, 2)), RNG.standard_normal((1, 1, 2, 4))
    file.input("x", x.shape)
    file.constant("k", kernel.astype(np.float32))
    file.node("conv", "Conv", "x", "k", inputs_orders=[NHWC, HWCK], strides=[1, 1])
    file.node("reorg", "_Reorg", "conv", stride=2)
    file.node("y", "_Snake", "reorg", alpha=0.25)
    file.output("y")
    network = import_uff(file.save(tmp_path), order="NHWC", plugins=both(YOLO, SNAKE))
    assert network.layers[-1].inputs[0].producer.params.plugin.name in ("Reorg", "Snake")
    (y,) = evaluate_network(network, {"x": x}).values()
    first = np.einsum("nhwc,ck->nkhw", x, kernel.astype(np.float32)[0, 0].astype(np.float64))
    grids = first.reshape(1, 1, 4, 2, 6, 2).transpose(0, 3, 5, 1, 2, 4).reshape(1, 16, 2, 3)
    expected = snake(grids, 0.25).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(y, expected, atol=1e-6)


def test_plugin_files(tmp_path):
    assert len(load_plugins([EXAMPLES / "snake.py", EXAMPLES / "yolov2.py"])) == 9
    cases = {
        "absent.py": (None, "no such plugin file"),
        "empty.py": ("", "binds no PLUGINS"),
        "broken.py": ("import absent_module\n", "ModuleNotFoundError"),
        "syntax.py": ("def (\n", "SyntaxError"),
        "text.txt": ("PLUGINS = 1", r"ends in \.py"),
    }
    for name, (text, words) in cases.items():
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(PluginError, match=words):
            load_plugins([tmp_path / name])
    with pytest.raises(PluginError, match="two plugins"):
        load_plugins([EXAMPLES / "snake.py", EXAMPLES / "snake.py"])


def test_creators_that_make_no_plugin():
    registry = PluginRegistry()
    registry.onnx("example.audio", "Snake")(lambda _node: "snake")
    with pytest.raises(ImportModelError, match="made str, not a Plugin"):
        import_onnx(onnx_model(), plugins=registry)
