"""Frozen graphs: trained ones against TensorFlow's outputs, small ones against numpy."""

import numpy as np
import pytest
from support.cases import DATA, case, load, preprocessed

from builder_host.errors import ImportModelError
from builder_host.importers.tensorflow import schema
from builder_host.importers.tensorflow.model import import_tensorflow
from builder_host.network.evaluate import evaluate_network
from builder_host.plugins import PluginRegistry
from examples.plugins.snake import Snake

TF = DATA / "uff" / "tf"
RNG = np.random.default_rng(23)
TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}


# --- trained graphs ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CNN_S", "GRU_S"])
def test_keyword_spotter_cut_behind_its_audio_front_end(name):
    """GRU_S has a while loop of 25 steps over tensor arrays."""
    one = case(f"uff/tf/kws/{name}")
    clips, expected = load(one.inputs["Mfcc"]), load(one.outputs["labels_softmax"])
    network = import_tensorflow(TF / "kws" / f"{name}.pb", shapes={"Mfcc": (1, *clips.shape[1:])})
    assert [t.name for t in network.inputs] == ["Mfcc"]
    assert [t.name for t in network.outputs] == ["labels_softmax"]
    constants = [t for t in network.tensors() if t.values is not None]
    stored = sum(t.values.size for t in constants if t.values.ndim == 2)
    assert stored * 4 < 1.2 * (TF / "kws" / f"{name}.pb").stat().st_size  # not once per iteration
    for clip, row in zip(clips, expected, strict=True):
        (prob,) = evaluate_network(network, {"Mfcc": clip[None]}).values()
        np.testing.assert_allclose(prob[0], row, rtol=0, atol=one.atol)


def test_softmax_regression():
    digits = load("caffe/lenet/digits.in.npy").reshape(10, 784) / 255
    network = import_tensorflow(TF / "simple_mnist_tf.pb", shapes={"Placeholder": (10, 784)})
    (prob,) = evaluate_network(network, {"Placeholder": digits}).values()
    stored = load("uff/tf/simple_mnist.out.Softmax.npy")
    np.testing.assert_allclose(prob, stored, rtol=0, atol=1e-5)
    assert prob.argmax(1).tolist() == list(range(10))


def test_channels_first_graph():
    one = case("onnx/samplenet/two_rgb")
    values = preprocessed(one, load(one.inputs["data"]))
    network = import_tensorflow(TF / "samplenet.pb")
    assert network.inputs[0].shape == (1, 3, 32, 32)
    for image, expected in zip(values, load(one.outputs["fc3"]), strict=True):
        (scores,) = evaluate_network(network, {"data": image[None]}).values()
        np.testing.assert_allclose(scores.ravel(), expected.ravel(), rtol=0, atol=one.atol)


def test_policy_network_equals_its_uff_twin():
    values = load("uff/ppo/random8.in.npy")
    shapes = {"input_state_placeholder": values.shape}
    network = import_tensorflow(DATA / "uff" / "ppo" / "model.pb", shapes=shapes)
    (action,) = evaluate_network(network, {"input_state_placeholder": values}).values()
    stored = load("uff/ppo/random8.out.policy_output.npy")
    np.testing.assert_allclose(action, stored, rtol=0, atol=1e-4)


# --- small graphs --------------------------------------------------------------------------


class GraphFile:
    """A GraphDef under construction."""

    def __init__(self):
        self.message = schema.message_class("GraphDef")()

    def node(self, name, op, *inputs, **attributes):
        node = self.message.node.add(name=name, op=op, input=inputs)
        for key, value in attributes.items():
            attribute = node.attr[key]
            if isinstance(value, bool):
                attribute.b = value
            elif isinstance(value, int):
                attribute.i = value
            elif isinstance(value, float):
                attribute.f = value
            elif isinstance(value, str):
                attribute.s = value.encode()
            else:
                attribute.list.i.extend(value)
        return node

    def placeholder(self, name, shape):
        node = self.node(name, "Placeholder")
        node.attr["dtype"].type = 1
        for extent in shape:
            node.attr["shape"].shape.dim.add(size=extent)

    def constant(self, name, values):
        array = np.asarray(values)
        tensor = self.node(name, "Const").attr["value"].tensor
        tensor.dtype = TYPES[array.dtype.name]
        for extent in array.shape:
            tensor.tensor_shape.dim.add(size=extent)
        tensor.tensor_content = array.tobytes()
        return tensor

    def save(self, folder):
        path = folder / "g.pb"
        path.write_bytes(self.message.SerializeToString())
        return path


def run(folder, op, x, *constants, output="y", **attributes):
    """Output of one node with one computed input, given first."""
    file = GraphFile()
    file.placeholder("x", x.shape)
    names = []
    for index, values in enumerate(constants):
        file.constant(f"c{index}", values)
        names.append(f"c{index}")
    file.node("y", op, "x", *names, "^x", **attributes)
    network = import_tensorflow(file.save(folder), outputs=[output])
    (result,) = evaluate_network(network, {"x": x}).values()
    return result


def random(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def conv_nhwc(x, kernel, stride, pads):
    x = np.pad(x.astype(np.float64), ((0, 0), *pads, (0, 0)))
    size = kernel.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(x, size, axis=(1, 2))
    return np.einsum("nhwcij,ijck->nhwk", windows[:, ::stride, ::stride], kernel)


@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_conv(tmp_path, data_format, padding):
    x, kernel = random(2, 7, 8, 3), random(3, 3, 3, 4)
    # SAME with stride 2: 7 -> 4 needs 2 cells, 8 -> 4 needs 1, the odd one behind
    pads = ((1, 1), (0, 1)) if padding == "SAME" else ((0, 0), (0, 0))
    expected = conv_nhwc(x, kernel, 2, pads)
    strides = (1, 2, 2, 1)
    if data_format == "NCHW":
        x, expected = x.transpose(0, 3, 1, 2), expected.transpose(0, 3, 1, 2)
        strides = (1, 1, 2, 2)
    options = {"strides": strides, "padding": padding, "data_format": data_format}
    np.testing.assert_allclose(run(tmp_path, "Conv2D", x, kernel, **options), expected, atol=1e-5)


@pytest.mark.parametrize(("op", "reduce"), [("MaxPool", np.max), ("AvgPool", np.mean)])
def test_pool(tmp_path, op, reduce):
    x = random(1, 6, 6, 2)
    y = run(tmp_path, op, x, ksize=(1, 2, 3, 1), strides=(1, 2, 3, 1), padding="VALID")
    cells = x.astype(np.float64).reshape(1, 3, 2, 2, 3, 2)
    np.testing.assert_allclose(y, reduce(cells, axis=(2, 4)), atol=1e-7)


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_matmul(tmp_path, transpose_a, transpose_b):
    x, w = random(3, 5), random(5, 4)
    y = run(
        tmp_path,
        "MatMul",
        np.ascontiguousarray(x.T) if transpose_a else x,
        np.ascontiguousarray(w.T) if transpose_b else w,
        transpose_a=transpose_a,
        transpose_b=transpose_b,
    )
    np.testing.assert_allclose(y, x.astype(np.float64) @ w, atol=1e-6)


def test_bias_of_channels_first(tmp_path):
    x, bias = random(1, 3, 4, 5), random(3)
    y = run(tmp_path, "BiasAdd", x, bias, data_format="NCHW")
    np.testing.assert_allclose(y, x.astype(np.float64) + bias[:, None, None])


def test_fused_batch_norm(tmp_path):
    x, (g, b, m) = random(2, 3, 4, 5), random(3, 5)
    v = np.abs(random(5))
    y = run(tmp_path, "FusedBatchNormV3", x, g, b, m, v, epsilon=0.01, is_training=False)
    expected = (x.astype(np.float64) - m) / np.sqrt(v + np.float32(0.01)) * g + b
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("op", "constants", "attributes", "expected"),
    [
        ("Mean", [np.int32([1, 2])], {"keep_dims": True}, lambda x: x.mean((1, 2), keepdims=True)),
        ("Sum", [np.int32(-1)], {}, lambda x: x.sum(-1)),
        ("ArgMax", [np.int32(3)], {}, lambda x: x.argmax(3)),
        ("Squeeze", [], {"squeeze_dims": (1,)}, lambda x: x[:, 0]),
        ("ExpandDims", [np.int32(1)], {}, lambda x: x[:, None]),
        ("Transpose", [np.int32([0, 3, 1, 2])], {}, lambda x: x.transpose(0, 3, 1, 2)),
        ("Maximum", [np.float32(0.1)], {}, lambda x: np.maximum(x, np.float32(0.1))),
        ("SquaredDifference", [np.float32(2)], {}, lambda x: (x - 2) ** 2),
        ("LeakyRelu", [], {"alpha": 0.25}, lambda x: np.where(x > 0, x, x / 4)),
        ("Rsqrt", [], {}, lambda x: 1 / np.sqrt(x)),
        ("LogSoftmax", [], {}, lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))),
        ("Pad", [np.int64([[0, 0], [0, 0], [1, 2], [0, 0]])], {}, None),
    ],
)
def test_operations(tmp_path, op, constants, attributes, expected):
    x = np.abs(random(2, 1, 3, 4)) + 0.1
    wide = x.astype(np.float64)
    wanted = np.pad(wide, constants[0]) if expected is None else expected(wide)
    y = run(tmp_path, op, x, *constants, **attributes)
    np.testing.assert_allclose(y, wanted, atol=1e-6)


def test_split_and_concat(tmp_path):
    x = random(2, 6)
    file = GraphFile()
    file.placeholder("x", x.shape)
    file.constant("axis", np.int32(1))
    file.node("parts", "Split", "axis", "x", num_split=3)
    file.node("y", "ConcatV2", "parts:2", "parts", "parts:1", "axis")
    network = import_tensorflow(file.save(tmp_path))
    (y,) = evaluate_network(network, {"x": x}).values()
    np.testing.assert_array_equal(y, np.concatenate([x[:, 4:], x[:, :2], x[:, 2:4]], axis=1))


def test_constants_stored_value_by_value(tmp_path):
    file = GraphFile()
    file.placeholder("x", (2, 3))
    tensor = file.node("c", "Const").attr["value"].tensor
    tensor.dtype = TYPES["float32"]
    for extent in (2, 3):
        tensor.tensor_shape.dim.add(size=extent)
    tensor.float_val.extend([1.0, 2.0])  # the last one stands for the rest
    file.node("y", "Add", "x", "c")
    network = import_tensorflow(file.save(tmp_path))
    (y,) = evaluate_network(network, {"x": np.zeros((2, 3))}).values()
    np.testing.assert_array_equal(y, [[1, 2, 2], [2, 2, 2]])


def loop_file(*, is_known=True, limit=4):
    """Y[t] = s[t], s[t + 1] = s[t] * x[t] + 1, for t < limit; s[0] = x[0], x has 4 rows of 3."""
    file = GraphFile()
    file.placeholder("x", (4, 3))
    for name, value in (("zero", 0), ("one", 1), ("limit", limit), ("size", 4)):
        file.constant(name, np.int32(value))
    file.constant("one_f", np.float32(1))
    file.constant("rows", np.arange(4, dtype=np.int32))
    file.constant("row0", np.int32([0]))
    file.node("start", "GatherV2", "x", "row0", "zero")
    if not is_known:
        file.node("computed", "ArgMax", "x", "zero")
    file.node("source", "TensorArrayV3", "size")
    file.node("scatter", "TensorArrayScatterV3", "source", "rows", "x", "source:1")
    file.node("target", "TensorArrayV3", "size")
    for name, value, is_constant in (
        ("t_in", "zero", False),
        ("s_in", "start", False),
        ("flow_in", "target:1", False),
        ("limit_in", "limit" if is_known else "computed", True),
        ("source_in", "source", True),
        ("scatter_in", "scatter", True),
        ("target_in", "target", True),
        ("step_in", "one", True),
        ("one_in", "one_f", True),
    ):
        file.node(name, "Enter", value, frame_name="loop", is_constant=is_constant)
    for name in ("t", "s", "flow"):
        file.node(f"{name}_merge", "Merge", f"{name}_in", f"{name}_next")
        file.node(f"{name}_switch", "Switch", f"{name}_merge", "cond")
        file.node(f"{name}_body", "Identity", f"{name}_switch:1")
        file.node(f"{name}_exit", "Exit", f"{name}_switch")
    file.node("less", "Less", "t_merge", "limit_in")
    file.node("cond", "LoopCond", "less")
    file.node("row", "TensorArrayReadV3", "source_in", "t_body", "scatter_in")
    file.node("product", "Mul", "s_body", "row")
    file.node("sum", "Add", "product", "one_in")
    file.node("write", "TensorArrayWriteV3", "target_in", "t_body", "s_body", "flow_body")
    file.node("t_add", "Add", "t_body", "step_in")
    file.node("t_next", "NextIteration", "t_add")
    file.node("s_next", "NextIteration", "sum")
    file.node("flow_next", "NextIteration", "write")
    file.node("y", "TensorArrayGatherV3", "target", "rows", "flow_exit")
    return file


def test_loops_of_known_length_are_unrolled(tmp_path):
    network = import_tensorflow(loop_file().save(tmp_path), outputs=["y", "s_exit"])
    x = random(4, 3).astype(np.float64)
    results = evaluate_network(network, {"x": x})
    states = [x[0]]
    for row in x:
        states.append(states[-1] * row + 1)
    np.testing.assert_allclose(results["y"][:, 0], states[:4], rtol=1e-12)
    np.testing.assert_allclose(results["s_exit"][0], states[4], rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "output", "words"),
    [
        ({"is_known": False}, "s_exit", "its end depends on 'x' (Placeholder)"),
        ({"limit": 100_000}, "s_exit", "more than 4096 times"),
        ({"limit": 5}, "s_exit", "element 4 of the array is not written"),
        ({"limit": 3}, "y", "element 3 is never written"),
    ],
)
def test_loops_that_cannot_be_unrolled_say_why(tmp_path, options, output, words):
    problems = problems_of(loop_file(**options).save(tmp_path), outputs=[output])
    assert any(words in problem for problem in problems), problems


def test_plugins_have_the_names_of_uff(tmp_path):
    registry = PluginRegistry()
    registry.uff("_Snake")(lambda node: Snake(float(node.attributes["alpha"])))
    file = GraphFile()
    file.placeholder("x", (2, 3))
    file.node("y", "Snake", "x", alpha=0.5)
    network = import_tensorflow(file.save(tmp_path), plugins=registry)
    assert network.layers[0].params.plugin == Snake(0.5)


# --- reports -------------------------------------------------------------------------------


def problems_of(path, **options):
    with pytest.raises(ImportModelError) as caught:
        import_tensorflow(path, **options)
    return caught.value.problems


def test_five_unsupported_nodes_make_one_report(tmp_path):
    file = GraphFile()
    file.placeholder("x", (1, 4))
    before = "x"
    for number in range(5):
        file.node(f"n{number}", f"Odd{number}", before)
        before = f"n{number}:1" if number == 2 else f"n{number}"
    problems = problems_of(file.save(tmp_path))
    named = dict.fromkeys(p.partition(":")[0] for p in problems)
    assert list(named) == [f"TensorFlow node 'n{n}' (Odd{n})" for n in range(5)]


@pytest.mark.parametrize(
    ("op", "attributes", "words"),
    [
        ("FusedBatchNorm", {}, "is_training is true"),
        ("MaxPool", {"ksize": (1, 2, 2, 2), "strides": (1, 1, 1, 1)}, "batch and channels"),
        ("MaxPool", {"ksize": (1, 2, 2, 1), "padding": "EXPLICIT"}, "SAME or VALID"),
        ("Mean", {}, "has 1 inputs"),
    ],
)
def test_nodes_that_cannot_be_converted(tmp_path, op, attributes, words):
    file = GraphFile()
    file.placeholder("x", (1, 4, 4, 2))
    inputs = ["x"] * (5 if op == "FusedBatchNorm" else 1)
    file.node("y", op, *inputs, **attributes)
    (problem,) = problems_of(file.save(tmp_path))
    assert problem.startswith(f"TensorFlow node 'y' ({op}): ")
    assert words in problem


@pytest.mark.parametrize("op", ["Fill", "Range", "ConcatV2", "Add"])
def test_constants_that_grow_without_end_are_refused(tmp_path, op):
    file = GraphFile()
    file.placeholder("x", (4,))
    file.constant("zero", np.int32(0))
    file.constant("one", np.int32(1))
    file.constant("huge", np.int32([1 << 20, 1 << 20]))
    file.constant("many", np.int32(1 << 30))
    file.constant("column", np.zeros((1 << 14, 1), np.float32))
    file.constant("row", np.zeros((1, 1 << 14), np.float32))
    if op == "Fill":
        file.node("c", "Fill", "huge", "zero")
    elif op == "Range":
        file.node("c", "Range", "zero", "many", "one")
    elif op == "Add":
        file.node("c", "Add", "column", "row")
    else:
        file.node("c0", "Pack", *["row"] * 2)
        for number in range(30):
            file.node(f"c{number + 1}", "ConcatV2", *[f"c{number}"] * 2, "zero")
        file.node("c", "Identity", "c30")
    file.node("y", "Add", "x", "c")
    assert problems_of(file.save(tmp_path))


def test_damaged_constants_and_other_files(tmp_path):
    file = GraphFile()
    file.placeholder("x", (4,))
    file.constant("c", np.zeros(4, np.float32)).tensor_content = b"123"
    file.node("y", "Add", "x", "c")
    (problem,) = problems_of(file.save(tmp_path))
    assert "needs 16 bytes, the file holds 3" in problem
    for content in (b"", b"\x89PNG\r\n\x1a\n" * 9, b"\xff" * 20):
        (tmp_path / "other.pb").write_bytes(content)
        assert problems_of(tmp_path / "other.pb")
    assert "cannot be read" in problems_of(tmp_path / "absent.pb")[0]
    assert problems_of(DATA / "uff" / "ppo" / "model.uff")
