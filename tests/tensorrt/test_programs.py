"""Programs in the style of TensorRT's samples, run after changing one import line.

Each fixture-free function below is such a program: it names nothing of edgeplan but the import.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from support import pycuda_cpu
from support.cases import DATA, case, load, preprocessed

from builder_host import tensorrt as trt
from builder_host.importers.caffe.model import import_caffe

LENET = DATA / "caffe" / "lenet"
DIGITS = np.load(LENET / "digits.in.npy").astype(np.float32) / np.float32(256)
PROBABILITIES = np.load(LENET / "digits.out.prob.npy")
TRT_LOGGER = trt.Logger(trt.Logger.WARNING)
EXPLICIT_BATCH = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)


@pytest.fixture(autouse=True)
def cuda(monkeypatch):
    """Pycuda's calls on this machine's memory; no timing, so that programs stay quick."""
    monkeypatch.setenv("EDGEPLAN_TARGET", "host-cpu")
    with pycuda_cpu.installed() as driver:
        yield driver


def quick(config):
    config.builder_optimization_level = 0
    return config


class HostDeviceMem:
    """A pair of buffers, as the samples' common.py has it."""

    def __init__(self, host, device):
        self.host, self.device = host, device


def allocate_buffers(engine):
    import pycuda.driver as cuda

    inputs, outputs, bindings = [], [], []
    stream = cuda.Stream()
    for binding in engine:
        size = trt.volume(engine.get_binding_shape(binding)) * engine.max_batch_size
        dtype = trt.nptype(engine.get_binding_dtype(binding))
        host = cuda.pagelocked_empty(size, dtype)
        device = cuda.mem_alloc(host.nbytes)
        bindings.append(int(device))
        (inputs if engine.binding_is_input(binding) else outputs).append(
            HostDeviceMem(host, device)
        )
    return inputs, outputs, bindings, stream


def do_inference(context, bindings, inputs, outputs, stream, batch_size=1):
    import pycuda.driver as cuda

    for item in inputs:
        cuda.memcpy_htod_async(item.device, item.host, stream)
    assert context.execute_async(
        batch_size=batch_size, bindings=bindings, stream_handle=stream.handle
    )
    for item in outputs:
        cuda.memcpy_dtoh_async(item.host, item.device, stream)
    stream.synchronize()
    return [item.host for item in outputs]


def lenet_weights():
    """Weights of the trained LeNet by layer name, as a program would load them from its file."""
    network = import_caffe(LENET / "lenet.prototxt", LENET / "lenet_iter_9000.caffemodel")
    weights = {}
    for layer in network.layers:
        for tensor, kind in zip(layer.own_inputs[1:], ("kernel", "bias"), strict=False):
            if tensor.values is not None:
                weights[layer.name, kind] = np.array(tensor.values)
    return weights


def populate_lenet(network, weights, shape):
    """The network-API sample's network."""
    data = network.add_input(name="data", dtype=trt.float32, shape=shape)
    conv1 = network.add_convolution(
        data, 20, (5, 5), weights["conv1", "kernel"], weights["conv1", "bias"]
    )
    conv1.stride = (1, 1)
    pool1 = network.add_pooling(conv1.get_output(0), trt.PoolingType.MAX, (2, 2))
    pool1.stride = (2, 2)
    conv2 = network.add_convolution(
        pool1.get_output(0), 50, (5, 5), weights["conv2", "kernel"], weights["conv2", "bias"]
    )
    pool2 = network.add_pooling(conv2.get_output(0), trt.PoolingType.MAX, (2, 2))
    pool2.stride = (2, 2)
    fc1 = network.add_fully_connected(
        pool2.get_output(0), 500, weights["ip1", "kernel"], weights["ip1", "bias"]
    )
    relu1 = network.add_activation(fc1.get_output(0), trt.ActivationType.RELU)
    fc2 = network.add_fully_connected(
        relu1.get_output(0), 10, weights["ip2", "kernel"], trt.Weights(weights["ip2", "bias"])
    )
    prob = network.add_softmax(fc2.get_output(0))
    prob.get_output(0).name = "prob"
    network.mark_output(prob.get_output(0))
    return prob


def check_digits(answers):
    np.testing.assert_allclose(
        np.asarray(answers).reshape(-1, 10), PROBABILITIES[: len(answers)], atol=2e-5
    )


def test_network_api_mnist_of_version_5():
    with trt.Builder(TRT_LOGGER) as builder, builder.create_network() as network:
        builder.max_batch_size = 1
        builder.max_workspace_size = 1 << 28
        prob = populate_lenet(network, lenet_weights(), (1, 28, 28))
        assert tuple(prob.get_output(0).shape) == (10, 1, 1)
        with builder.build_cuda_engine(network) as engine:
            assert engine.has_implicit_batch_dimension
            inputs, outputs, bindings, stream = allocate_buffers(engine)
            answers = []
            with engine.create_execution_context() as context:
                for digit in DIGITS:
                    np.copyto(inputs[0].host, digit.ravel())
                    [output] = do_inference(context, bindings, inputs, outputs, stream)
                    answers.append(np.array(output))
    check_digits(answers)


def test_network_api_with_explicit_batch_and_execute_async_v3(cuda):
    builder = trt.Builder(TRT_LOGGER)
    network = builder.create_network(EXPLICIT_BATCH)
    config = quick(builder.create_builder_config())
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 28)
    populate_lenet(network, lenet_weights(), (10, 1, 28, 28))
    plan = builder.build_serialized_network(network, config)
    engine = trt.Runtime(TRT_LOGGER).deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    stream = cuda.Stream()
    memory, devices = {}, []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        dtype = trt.nptype(engine.get_tensor_dtype(name))
        memory[name] = np.zeros(engine.get_tensor_shape(name), dtype)
        device = cuda.mem_alloc(memory[name].nbytes)
        if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
            cuda.memcpy_htod_async(device, DIGITS, stream)
        context.set_tensor_address(name, int(device))
        devices.append(device)  # pycuda frees an allocation that nothing names
    assert context.execute_async_v3(stream_handle=stream.handle)
    cuda.memcpy_dtoh_async(memory["prob"], context.get_tensor_address("prob"), stream)
    stream.synchronize()
    check_digits(memory["prob"].reshape(10, 10))


def test_caffe_mnist():
    deploy, model = str(LENET / "lenet.prototxt"), str(LENET / "lenet_iter_9000.caffemodel")
    with (
        trt.Builder(TRT_LOGGER) as builder,
        builder.create_network() as network,
        trt.CaffeParser() as parser,
    ):
        builder.max_batch_size = 5
        builder.fp16_mode = builder.platform_has_fast_fp16
        tensors = parser.parse(deploy=deploy, model=model, network=network, dtype=trt.float32)
        assert tensors.find("no_such_blob") is None
        network.mark_output(tensors.find("prob"))
        engine = builder.build_cuda_engine(network)
    inputs, outputs, bindings, stream = allocate_buffers(engine)
    np.copyto(inputs[0].host, DIGITS[:5].ravel())
    with engine.create_execution_context() as context:
        [output] = do_inference(context, bindings, inputs, outputs, stream, batch_size=5)
        check_digits(output.reshape(5, 10))
        with pytest.raises(ValueError, match=r"batch_size=3: the engine was built for .* 1, 5"):
            context.execute(3, bindings)


class EntropyCalibrator(trt.IInt8EntropyCalibrator2):
    """As the INT8 sample has it."""

    def __init__(self, images, batch_size):
        import pycuda.driver as cuda

        trt.IInt8EntropyCalibrator2.__init__(self)
        self.images, self.batch_size, self.current, self.cache = images, batch_size, 0, None
        self.device_input = cuda.mem_alloc(images[0].nbytes * batch_size)

    def get_batch_size(self):
        return self.batch_size

    def get_batch(self, names):
        import pycuda.driver as cuda

        if self.current + self.batch_size > len(self.images):
            return None
        batch = self.images[self.current : self.current + self.batch_size]
        cuda.memcpy_htod(self.device_input, np.ascontiguousarray(batch))
        self.current += self.batch_size
        return [int(self.device_input)]

    def read_calibration_cache(self):
        return self.cache

    def write_calibration_cache(self, cache):
        self.cache = cache


def test_int8_caffe_mnist():
    data = np.load(DATA / "images/mnist/t10k_first1000.npz")
    images = data["images"][:, None].astype(np.float32) / np.float32(256)
    calibrator = EntropyCalibrator(images[:64], 16)
    builder = trt.Builder(TRT_LOGGER)
    builder.max_batch_size = 100
    builder.int8_mode = True
    builder.int8_calibrator = calibrator
    network = builder.create_network()
    tensors = trt.CaffeParser().parse(
        str(LENET / "lenet.prototxt"),
        str(LENET / "lenet_iter_9000.caffemodel"),
        network,
        trt.DataType.INT8,
    )
    network.mark_output(tensors.find("prob"))
    engine = builder.build_cuda_engine(network)
    assert calibrator.cache.startswith(b"TRT-8601-EntropyCalibration2\n")
    inputs, outputs, bindings, stream = allocate_buffers(engine)
    np.copyto(inputs[0].host, images[:100].ravel())
    with engine.create_execution_context() as context:
        [output] = do_inference(context, bindings, inputs, outputs, stream, batch_size=100)
    right = np.mean(output.reshape(100, 10).argmax(1) == data["labels"][:100])
    assert right >= 0.98


def test_uff_mnist(cuda):
    all_cnn = case("uff/allcnn/digits")
    ((name, path),) = all_cnn.inputs.items()
    ((output, answers),) = all_cnn.outputs.items()
    images = preprocessed(all_cnn, load(path))
    parser = trt.UffParser()
    parser.register_input(name, (1, 28, 28), trt.UffInputOrder.NCHW)
    parser.register_output(output)
    builder = trt.Builder(TRT_LOGGER)
    network = builder.create_network(EXPLICIT_BATCH)
    model = DATA / "uff" / "allcnn" / "all_cnn.uff"
    assert parser.parse(str(model), network)
    engine = builder.build_engine(network, quick(builder.create_builder_config()))
    inputs, outputs, bindings, _stream = allocate_buffers(engine)
    with engine.create_execution_context() as context:
        for image, wanted in zip(images, load(answers), strict=True):
            cuda.memcpy_htod(inputs[0].device, image)
            assert context.execute_v2(bindings)
            cuda.memcpy_dtoh(outputs[0].host, outputs[0].device)
            np.testing.assert_allclose(outputs[0].host, wanted.ravel(), atol=all_cnn.atol)


def test_onnx_save_load_profile_and_inspect(tmp_path, cuda):
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(EXPLICIT_BATCH)
    parser = trt.OnnxParser(network, logger)
    with open(DATA / "onnx/mnist/mnist-8.onnx", "rb") as model:
        if not parser.parse(model.read()):
            for error in range(parser.num_errors):
                print(parser.get_error(error))
            raise AssertionError("the model does not parse")
    config = quick(builder.create_builder_config())
    config.set_flag(trt.BuilderFlag.FP16)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    (tmp_path / "m.engine").write_bytes(builder.build_serialized_network(network, config))

    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine((tmp_path / "m.engine").read_bytes())
    times = {}

    class Profiler(trt.IProfiler):
        def report_layer_time(self, layer_name, ms):
            times[layer_name] = ms

    context = engine.create_execution_context()
    context.profiler = Profiler()
    x = np.load(DATA / "onnx/mnist/test_data_0.in.npy")
    y = np.load(DATA / "onnx/mnist/test_data_0.out.npy")
    out = np.zeros_like(y)
    device = [cuda.mem_alloc(x.nbytes), cuda.mem_alloc(y.nbytes)]
    cuda.memcpy_htod(device[0], x)
    assert context.execute_v2([int(d) for d in device])
    cuda.memcpy_dtoh(out, device[1])
    np.testing.assert_allclose(out, y, rtol=1e-3)
    assert len(times) == engine.num_layers
    assert all(ms >= 0 for ms in times.values())
    inspector = engine.create_engine_inspector()
    info = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    convolutions = [row["steps"] for row in info["Layers"] if "convolution" in row["kind"]]
    assert len({tuple(steps) for steps in convolutions}) == 2  # one has a row for each of its steps
    form = trt.LayerInformationFormat.ONELINE
    told = [inspector.get_layer_information(index, form) for index in range(engine.num_layers)]
    assert [line.rpartition(" [")[0] for line in told] == list(times)
    assert len(engine.serialize()) == (tmp_path / "m.engine").stat().st_size


def test_device_memory_and_timing_cache_of_the_programs_own(cuda):
    builder = trt.Builder(TRT_LOGGER)
    network = builder.create_network(EXPLICIT_BATCH)
    x = network.add_input("x", trt.float32, (2, 8, 6, 6))
    kernel = np.random.default_rng(1).standard_normal((4, 8, 3, 3)).astype(np.float32)
    conv = network.add_convolution_nd(x, 4, (3, 3), kernel)
    conv.padding_nd = (1, 1)
    mean = network.add_reduce(conv.get_output(0), trt.ReduceOperation.AVG, 0b1100, True)
    both = network.add_elementwise(
        conv.get_output(0), mean.get_output(0), trt.ElementWiseOperation.SUB
    )
    both.get_output(0).name = "y"
    network.mark_output(both.get_output(0))
    config = builder.create_builder_config()
    cache = config.create_timing_cache(b"")
    config.set_timing_cache(cache, ignore_mismatch=False)
    engine = builder.build_engine(network, config)
    assert cache.serialize().startswith(b'{"format": "edgeplan-timing-cache"')
    context = engine.create_execution_context_without_device_memory()
    values = np.random.default_rng(2).standard_normal((2, 8, 6, 6)).astype(np.float32)
    out = np.zeros((2, 4, 6, 6), np.float32)
    device = [cuda.mem_alloc(values.nbytes), cuda.mem_alloc(out.nbytes)]
    cuda.memcpy_htod(device[0], values)
    arena = cuda.mem_alloc(max(engine.device_memory_size, 64))
    context.device_memory = int(arena)
    assert context.execute_v2([int(d) for d in device])
    cuda.memcpy_dtoh(out, device[1])
    padded = np.pad(values.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    wanted = sum(
        np.einsum("kc,nchw->nkhw", kernel[:, :, r, s], padded[:, :, r : r + 6, s : s + 6])
        for r in range(3)
        for s in range(3)
    )
    np.testing.assert_allclose(out, wanted - wanted.mean((2, 3), keepdims=True), atol=1e-5)


def test_profiles_of_a_dynamic_model(tmp_path, cuda):
    import onnx
    from onnx import TensorProto, helper

    shape = ["batch", 3]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "dynamic",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), tmp_path / "d")
    builder = trt.Builder(TRT_LOGGER)
    network = builder.create_network(EXPLICIT_BATCH)
    assert trt.OnnxParser(network, TRT_LOGGER).parse_from_file(str(tmp_path / "d"))
    config = quick(builder.create_builder_config())
    profile = builder.create_optimization_profile()
    profile.set_shape("x", (1, 3), (4, 3), (8, 3))
    config.add_optimization_profile(profile)
    engine = builder.build_engine(network, config)
    context = engine.create_execution_context()
    device = [cuda.mem_alloc(96), cuda.mem_alloc(96)]
    for rows in (1, 4, 8):
        x = np.linspace(-1, 1, rows * 3, dtype=np.float32).reshape(rows, 3)
        assert context.set_input_shape("x", (rows, 3))
        assert tuple(context.get_tensor_shape("y")) == (rows, 3)
        cuda.memcpy_htod(device[0], x)
        assert context.execute_v2([int(d) for d in device])
        y = np.zeros_like(x)
        cuda.memcpy_dtoh(y, device[1])
        assert np.array_equal(y, np.maximum(x, 0))
    assert not context.set_input_shape("x", (5, 3))


def test_device_memory_of_one_profile_is_not_used_by_a_larger_one(cuda):
    messages = []

    class Collecting(trt.ILogger):
        def log(self, severity, msg):
            messages.append(msg)

    builder = trt.Builder(TRT_LOGGER)
    network = builder.create_network(EXPLICIT_BATCH)
    x = network.add_input("x", trt.float32, (-1, 8, 6, 6))
    kernel = np.random.default_rng(1).standard_normal((16, 8, 3, 3)).astype(np.float32)
    conv = network.add_convolution_nd(x, 16, (3, 3), kernel)
    mean = network.add_reduce(conv.get_output(0), trt.ReduceOperation.AVG, 0b1100, True)
    network.mark_output(mean.get_output(0))
    config = quick(builder.create_builder_config())
    profile = builder.create_optimization_profile()
    profile.set_shape("x", (1, 8, 6, 6), (8, 8, 6, 6), (8, 8, 6, 6))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    engine = trt.Runtime(Collecting()).deserialize_cuda_engine(plan)
    context = engine.create_execution_context_without_device_memory()
    pieces = [cuda.mem_alloc(8 * 8 * 36 * 4), cuda.mem_alloc(8 * 16 * 4)]
    bindings = [int(piece) for piece in pieces]
    assert context.set_input_shape("x", (1, 8, 6, 6))
    small = context.update_device_memory_size_for_shapes()
    assert 0 < small < engine.device_memory_size
    memory = cuda.mem_alloc(engine.device_memory_size)
    context.set_device_memory(int(memory), small)
    assert context.execute_v2(bindings)
    assert context.set_input_shape("x", (8, 8, 6, 6))
    assert not context.execute_v2(bindings)
    assert f"device memory of {small:,} bytes; profile" in messages[-1]
    context.set_device_memory(int(memory), engine.device_memory_size)
    assert context.execute_v2(bindings)


def test_shapes_of_two_inputs_are_set_one_after_the_other(cuda):
    messages = []

    class Collecting(trt.ILogger):
        def log(self, severity, msg):
            messages.append(msg)

    builder = trt.Builder(TRT_LOGGER)
    network = builder.create_network(EXPLICIT_BATCH)
    a, b = (network.add_input(name, trt.float32, (-1, 3)) for name in "ab")
    total = network.add_elementwise(a, b, trt.ElementWiseOperation.SUM)
    network.mark_output(total.get_output(0))
    config = quick(builder.create_builder_config())
    profile = builder.create_optimization_profile()
    for name in "ab":
        profile.set_shape(name, (1, 3), (4, 3), (4, 3))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    context = trt.Runtime(Collecting()).deserialize_cuda_engine(plan).create_execution_context()
    memory = [cuda.mem_alloc(48) for _ in range(3)]
    bindings = [int(piece) for piece in memory]
    assert context.set_input_shape("b", (4, 3))
    for rows in (1, 4, 1):  # b is at another number of rows each time that a is set
        assert context.set_input_shape("a", (rows, 3))
        assert not context.execute_v2(bindings)
        assert "has the input shapes {" in messages[-1]
        assert context.set_input_shape("b", (rows, 3))
        x = np.arange(rows * 3, dtype=np.float32)
        for piece in memory[:2]:
            cuda.memcpy_htod(piece, x)
        assert context.execute_v2(bindings)
        y = np.zeros_like(x)
        cuda.memcpy_dtoh(y, memory[2])
        assert np.array_equal(y, x + x)
    assert not context.set_input_shape("c", (1, 3))
    assert "no tensor 'c'" in messages[-1]


def test_errors_reach_logger_and_recorder():
    messages = []

    class Collecting(trt.ILogger):
        def log(self, severity, msg):
            messages.append((severity, msg))

    class Recorder(trt.IErrorRecorder):
        def __init__(self):
            self.errors = []

        def report_error(self, val, desc):
            self.errors.append(desc)
            return True

    runtime = trt.Runtime(Collecting())
    runtime.error_recorder = Recorder()
    assert runtime.deserialize_cuda_engine(b"not a plan") is None
    assert "this is not a PLAN file" in runtime.error_recorder.errors[0]
    assert messages[0][0] == trt.Logger.ERROR
    builder = trt.Builder(Collecting())
    network = builder.create_network(EXPLICIT_BATCH)
    a = network.add_input("a", trt.float32, (2, 3))
    b = network.add_input("b", trt.float32, (4, 5))
    total = network.add_elementwise(a, b, trt.ElementWiseOperation.SUM)
    network.mark_output(total.get_output(0))
    assert builder.build_serialized_network(network, quick(builder.create_builder_config())) is None
    assert "ElementWise" in messages[-1][1]
