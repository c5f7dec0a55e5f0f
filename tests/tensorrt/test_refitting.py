"""Refitter and OnnxParserRefitter, in the style of TensorRT's samples of refitting."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from support import pycuda_cpu
from support.cases import DATA
from support.tensorrt_networks import floats

from builder_host import tensorrt as trt
from builder_host.importers.caffe.model import import_caffe
from runtime_edge.errors import RuntimeEdgeError

LENET = DATA / "caffe" / "lenet"
DIGITS = np.load(LENET / "digits.in.npy").astype(np.float32) / np.float32(256)
PROBABILITIES = np.load(LENET / "digits.out.prob.npy").reshape(10, 10)
EXPLICIT = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
KERNEL, BIAS = trt.WeightsRole.KERNEL, trt.WeightsRole.BIAS
MNIST = DATA / "onnx/mnist/mnist-8.onnx"


@pytest.fixture(autouse=True)
def cuda(monkeypatch):
    monkeypatch.setenv("EDGEPLAN_TARGET", "host-cpu")
    with pycuda_cpu.installed() as driver:
        yield driver


class Collecting(trt.ILogger):
    """Keeps messages of errors."""

    def __init__(self):
        self.messages = []

    def log(self, severity, msg):
        if severity <= trt.Logger.ERROR:
            self.messages.append(msg)


def trained():
    """Weights of the trained LeNet by layer and role."""
    network = import_caffe(LENET / "lenet.prototxt", LENET / "lenet_iter_9000.caffemodel")
    return {
        (layer.name, role): np.array(tensor.values)
        for layer in network.layers
        for tensor, role in zip(layer.own_inputs[1:], (KERNEL, BIAS), strict=False)
        if tensor.values is not None
    }


def config_with(builder, *flags):
    config = builder.create_builder_config()
    config.builder_optimization_level = 0
    for flag in flags:
        config.set_flag(flag)
    return config


def answers(engine, values, cuda, context=None):
    """Outputs of an engine with one input and one output."""
    context = context or engine.create_execution_context()
    out = np.zeros(engine.get_binding_shape(1), trt.nptype(engine.get_binding_dtype(1)))
    device = [cuda.mem_alloc(values.nbytes), cuda.mem_alloc(out.nbytes)]
    cuda.memcpy_htod(device[0], values)
    assert context.execute_v2([int(memory) for memory in device])
    cuda.memcpy_dtoh(out, device[1])
    return out


def lenet_of(network, kernels):
    """LeNet by the network API; all biases are zero, which makes them equal."""
    x = network.add_input("data", trt.float32, (10, 1, 28, 28))
    for name, maps in (("conv1", 20), ("conv2", 50)):
        zeros = np.zeros(maps, np.float32)
        conv = network.add_convolution_nd(x, maps, (5, 5), kernels[name, KERNEL], zeros)
        conv.name = name
        pool = network.add_pooling_nd(conv.get_output(0), trt.PoolingType.MAX, (2, 2))
        pool.stride_nd = (2, 2)
        x = pool.get_output(0)
    for name, maps in (("ip1", 500), ("ip2", 10)):
        zeros = np.zeros(maps, np.float32)
        layer = network.add_fully_connected(x, maps, kernels[name, KERNEL], zeros)
        layer.name, x = name, layer.get_output(0)
        if name == "ip1":
            x = network.add_activation(x, trt.ActivationType.RELU).get_output(0)
    prob = network.add_softmax(x).get_output(0)
    prob.name = "prob"
    network.mark_output(prob)


def test_a_network_with_placeholders_is_refitted_layer_by_layer(cuda):
    weights = trained()
    placeholders = {**weights, ("conv1", KERNEL): np.zeros((20, 1, 5, 5), np.float32)}
    builder = trt.Builder(trt.Logger())
    network = builder.create_network(EXPLICIT)
    lenet_of(network, placeholders)
    engine = builder.build_engine(network, config_with(builder, trt.BuilderFlag.REFIT))
    assert engine.refittable
    context = engine.create_execution_context_without_device_memory()
    memory = cuda.mem_alloc(engine.device_memory_size)
    context.device_memory = int(memory)
    before = answers(engine, DIGITS, cuda, context).reshape(10, 10)
    assert np.ptp(before, axis=0).max() < 1e-6  # nothing of the picture comes through
    with trt.Refitter(engine, trt.Logger()) as refitter:
        assert refitter.get_missing() == ([], [])
        layers, roles = refitter.get_all()
        assert {*zip(layers, roles, strict=True)} == {*weights}
        for (name, role), values in weights.items():
            assert refitter.set_weights(name, role, trt.Weights(values))
        assert refitter.refit_cuda_engine()
    # The context of before goes on, in the memory that it was given.
    after = answers(engine, DIGITS, cuda, context).reshape(10, 10)
    np.testing.assert_allclose(after, PROBABILITIES, atol=2e-5)
    again = trt.Runtime(trt.Logger()).deserialize_cuda_engine(bytes(engine.serialize()))
    assert np.array_equal(answers(again, DIGITS, cuda).reshape(10, 10), after)


def test_equal_constants_become_different_ones(cuda):
    kernel = floats(16, 16, 3, 3)
    builder = trt.Builder(trt.Logger())
    network = builder.create_network(EXPLICIT)
    x = network.add_input("x", trt.float32, (1, 16, 6, 6))
    for name in "abcd":
        layer = network.add_convolution_nd(x, 16, (3, 3), kernel, np.zeros(16, np.float32))
        layer.name, layer.padding_nd, x = name, (1, 1), layer.get_output(0)
    network.mark_output(x)
    others = {name: (floats(16, 16, 3, 3) / 12, floats(16)) for name in "abcd"}
    values = floats(1, 16, 6, 6)
    wanted = values[0].astype(np.float64)
    for kernel, bias in others.values():
        padded = np.pad(wanted, ((0, 0), (1, 1), (1, 1)))
        windows = np.stack([[padded[:, r : r + 6, s : s + 6] for s in range(3)] for r in range(3)])
        wanted = np.einsum("kcrs,rscij->kij", kernel, windows) + bias[:, None, None]
    engine = builder.build_engine(network, config_with(builder, trt.BuilderFlag.REFIT))
    refitter = trt.Refitter(engine, trt.Logger())
    for name, pair in others.items():
        for role, weights in zip((KERNEL, BIAS), pair, strict=True):
            assert refitter.set_weights(name, role, weights)
    assert refitter.refit_cuda_engine()
    np.testing.assert_allclose(answers(engine, values, cuda)[0], wanted, atol=1e-5)
    # Without the flag equal constants have one place, and the message says so.
    logger = Collecting()
    plan = builder.build_serialized_network(network, config_with(builder))
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    refitter = trt.Refitter(engine, logger, network)
    for name, pair in others.items():
        for role, weights in zip((KERNEL, BIAS), pair, strict=True):
            assert refitter.set_weights(name, role, weights)
    assert not refitter.refit_cuda_engine()
    assert "have a constant in common in the plan" in logger.messages[-1]


def test_a_caffe_network_with_random_weights_gets_trained_ones(cuda):
    builder = trt.Builder(trt.Logger())
    builder.max_batch_size = 10
    builder.refittable = True
    network = builder.create_network()
    tensors = trt.CaffeParser().parse(str(LENET / "lenet.prototxt"), None, network, trt.float32)
    network.mark_output(tensors.find("prob"))
    engine = builder.build_cuda_engine(network)
    refitter = trt.Refitter(engine, trt.Logger())
    weights = trained()
    assert {*zip(*refitter.get_all(), strict=True)} == {*weights}
    for (layer, role), values in weights.items():
        assert refitter.set_weights(layer, role, values)
    assert refitter.refit_cuda_engine()
    out = np.zeros((10, 10), np.float32)
    device = [cuda.mem_alloc(DIGITS.nbytes), cuda.mem_alloc(out.nbytes)]
    cuda.memcpy_htod(device[0], DIGITS)
    context = engine.create_execution_context()
    assert context.execute(10, [int(memory) for memory in device])
    cuda.memcpy_dtoh(out, device[1])
    np.testing.assert_allclose(out, PROBABILITIES, atol=2e-5)


def disturbed(model, seed=7):
    """The model with other floating-point weights, as if it had been trained further."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    rng = np.random.default_rng(seed)
    for tensor in other.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f":
            factors = rng.uniform(0.9, 1.1, values.shape).astype(values.dtype)
            tensor.CopyFrom(numpy_helper.from_array(values * factors, tensor.name))
    return other


def reference(model, values):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {session.get_inputs()[0].name: values})[0]


def onnx_network(builder, model):
    network = builder.create_network(EXPLICIT)
    assert trt.OnnxParser(network, trt.Logger()).parse(model.SerializeToString())
    return network


@pytest.fixture(scope="module")
def mnist():
    """The model, another with its architecture, and an input."""
    model = onnx.load(MNIST)
    return model, disturbed(model), np.load(DATA / "onnx/mnist/test_data_0.in.npy")


def test_weights_of_an_onnx_model_by_name(mnist, cuda):
    model, other, values = mnist
    builder = trt.Builder(trt.Logger())
    network = onnx_network(builder, model)
    engine = builder.build_engine(network, config_with(builder, trt.BuilderFlag.REFIT))
    refitter = trt.Refitter(engine, trt.Logger())
    given = {t.name: numpy_helper.to_array(t) for t in other.graph.initializer}
    floats_of = {name for name, array in given.items() if array.dtype.kind == "f"}
    assert {*refitter.get_all_weights()} == floats_of
    assert refitter.get_missing_weights() == []
    for name in floats_of:
        assert refitter.get_weights_prototype(name).size == given[name].size
        assert refitter.set_named_weights(name, given[name])
    assert np.array_equal(refitter.get_named_weights(name).numpy(), given[name])
    assert refitter.refit_cuda_engine_async(0)
    wanted = reference(other, values)
    assert np.abs(wanted - reference(model, values)).max() > 1
    np.testing.assert_allclose(answers(engine, values, cuda), wanted, rtol=1e-4, atol=1e-2)


def test_a_stripped_engine_gets_its_weights_from_the_model(mnist, tmp_path, cuda):
    model, other, values = mnist
    onnx.save(model, tmp_path / "model.onnx")
    builder = trt.Builder(trt.Logger())
    config = config_with(builder, trt.BuilderFlag.STRIP_PLAN)
    plan = builder.build_serialized_network(onnx_network(builder, model), config)
    whole = builder.build_serialized_network(onnx_network(builder, model), config_with(builder))
    assert len(plan) < len(whole) - 20_000  # 6,000 weights are left out
    (tmp_path / "stripped.engine").write_bytes(plan)

    logger = Collecting()
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine((tmp_path / "stripped.engine").read_bytes())
    assert engine.refittable
    with pytest.raises(RuntimeEdgeError, match="this engine has no weights, its plan was stripped"):
        engine.get_binding_shape(0)
    refitter = trt.Refitter(engine, logger)
    assert refitter.get_missing_weights() != []
    assert len(refitter.get_missing()[0]) == len(refitter.get_missing_weights())
    assert not refitter.refit_cuda_engine()
    assert "OnnxParserRefitter" in logger.messages[-1]
    parser = trt.OnnxParserRefitter(refitter, logger)
    assert not parser.refit_from_file(str(tmp_path / "no.onnx"))
    assert "no.onnx" in str(parser.get_error(0))
    assert parser.refit_from_file(str(tmp_path / "model.onnx"))
    assert refitter.get_missing_weights() == []
    assert refitter.refit_cuda_engine()
    before = answers(engine, values, cuda)
    np.testing.assert_allclose(before, reference(model, values), rtol=1e-4, atol=1e-2)
    assert parser.refit_from_bytes(other.SerializeToString())
    assert refitter.refit_cuda_engine()
    after = answers(engine, values, cuda)
    np.testing.assert_allclose(after, reference(other, values), rtol=1e-4, atol=1e-2)


def test_an_engine_that_promised_identical_weights_takes_no_others(mnist, cuda):
    model, other, values = mnist
    builder, logger = trt.Builder(trt.Logger()), Collecting()
    config = config_with(builder, trt.BuilderFlag.REFIT_IDENTICAL, trt.BuilderFlag.STRIP_PLAN)
    plan = builder.build_serialized_network(onnx_network(builder, model), config)
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    refitter = trt.Refitter(engine, logger)
    parser = trt.OnnxParserRefitter(refitter, logger)
    assert parser.refit_from_bytes(other.SerializeToString())
    assert not refitter.refit_cuda_engine()
    assert "are not those that the plan was built with" in logger.messages[-1]
    assert parser.refit_from_bytes(model.SerializeToString())
    assert refitter.refit_cuda_engine()
    wanted = reference(model, values)
    np.testing.assert_allclose(answers(engine, values, cuda), wanted, rtol=1e-4, atol=1e-2)


def test_what_is_compiled_into_the_code_is_named_and_the_engine_stays(cuda):
    builder, logger = trt.Builder(trt.Logger()), Collecting()
    network = builder.create_network(EXPLICIT)
    x = network.add_input("x", trt.float32, (1, 4, 6, 6))
    conv = network.add_convolution_nd(x, 4, (3, 3), floats(4, 4, 3, 3))
    conv.name = "conv"
    unit = network.add_scale(
        network.add_activation(conv.get_output(0), trt.ActivationType.RELU).get_output(0),
        trt.ScaleMode.UNIFORM,
        np.float32([0.5]),
        np.float32([2.0]),
    )
    unit.name = "unit"
    network.mark_output(unit.get_output(0))
    engine = builder.build_engine(network, config_with(builder, trt.BuilderFlag.REFIT))
    values = floats(1, 4, 6, 6)
    before = answers(engine, values, cuda)
    refitter = trt.Refitter(engine, logger)
    assert refitter.set_weights("unit", trt.WeightsRole.SCALE, np.float32([3.0]))
    assert not refitter.refit_cuda_engine()
    assert "layer 'conv': epilogue in the plan: " in logger.messages[-1]  # 'unit' went in there
    assert "values like these are compiled into it: build the plan again" in logger.messages[-1]
    assert np.array_equal(answers(engine, values, cuda), before)


def test_wrong_weights_are_refused_by_name():
    builder, logger = trt.Builder(trt.Logger()), Collecting()
    network = builder.create_network(EXPLICIT)
    x = network.add_input("x", trt.float32, (1, 4, 6, 6))
    layer = network.add_convolution_nd(x, 4, (3, 3), floats(4, 4, 3, 3))
    layer.name = "conv"
    network.mark_output(layer.get_output(0))
    config = config_with(builder, trt.BuilderFlag.REFIT)
    plan = builder.build_serialized_network(network, config)
    refitter = trt.Refitter(trt.Runtime(logger).deserialize_cuda_engine(plan), logger)
    assert not refitter.set_weights("conv", BIAS, floats(4))
    assert "layer 'conv' has no BIAS weights that can be others; it has KERNEL" in logger.messages
    assert not refitter.set_weights("conv", KERNEL, floats(4, 4, 3))
    assert logger.messages[-1] == "'conv' KERNEL: 48 weights given, the network has 144"
    assert not refitter.set_weights("conv", KERNEL, np.zeros((4, 4, 3, 3), np.complex64))
    assert "weights of complex64 given" in logger.messages[-1]
    assert not refitter.set_named_weights("x", floats(4))
    assert logger.messages[-1] == "the network has no floating-point weights 'x'"
    with pytest.raises(AttributeError, match="calibrate and build again"):
        refitter.set_dynamic_range("x", (-1.0, 1.0))
    # Of a plan from a file the network is not known, until it is given.
    engine = trt.Runtime(logger).deserialize_cuda_engine(bytes(plan))
    assert not trt.Refitter(engine, logger).set_weights("conv", KERNEL, floats(4, 4, 3, 3))
    assert "give its network to Refitter" in logger.messages[-1]
    refitter = trt.Refitter(engine, logger, network)
    assert refitter.set_weights("conv", KERNEL, floats(4, 4, 3, 3))
    assert refitter.refit_cuda_engine()
