"""Programs with recurrent layers, layers of their own and loops; built, loaded and run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from support import pycuda_cpu
from support.tensorrt_networks import floats

from builder_host import tensorrt as trt
from builder_host.errors import NetworkError
from builder_host.expressions import Binary, Const, Input
from builder_host.plugins import TensorType

EXPLICIT_BATCH = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
TRT_LOGGER = trt.Logger(trt.Logger.WARNING)


@pytest.fixture(autouse=True)
def cuda(monkeypatch):
    """Pycuda's calls on this machine's memory."""
    monkeypatch.setenv("EDGEPLAN_TARGET", "host-cpu")
    with pycuda_cpu.installed() as driver:
        yield driver


class Session:
    """An engine, a context in memory of the program's own, and a buffer per tensor."""

    def __init__(self, network, builder, cuda):
        config = builder.create_builder_config()
        config.builder_optimization_level = 0
        plan = builder.build_serialized_network(network, config)
        self.engine = trt.Runtime(TRT_LOGGER).deserialize_cuda_engine(plan)
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self.context = self.engine.create_execution_context(strategy)
        size = self.context.update_device_memory_size_for_shapes()
        self.arena = cuda.mem_alloc(max(size, 64))
        self.context.set_device_memory(int(self.arena), max(size, 64))
        self.cuda = cuda
        self.host, self.device = {}, {}
        for name in self.engine:
            dtype = trt.nptype(self.engine.get_tensor_dtype(name))
            self.host[name] = np.zeros(self.engine.get_tensor_shape(name), dtype)
            self.device[name] = cuda.mem_alloc(self.host[name].nbytes)
            assert self.context.get_max_output_size(name) == self.host[name].nbytes
            self.context.set_tensor_address(name, int(self.device[name]))

    def run(self, **inputs):
        stream = self.cuda.Stream()
        for name, value in inputs.items():
            self.cuda.memcpy_htod_async(self.device[name], value, stream)
        assert self.context.execute_async_v3(stream.handle)
        outputs = [name for name in self.engine if name not in inputs]
        for name in outputs:
            self.cuda.memcpy_dtoh_async(self.host[name], self.device[name], stream)
        stream.synchronize()
        return {name: self.host[name].copy() for name in outputs}


def test_characters_of_a_recurrent_network(cuda):
    """As the char-RNN sample: two LSTM layers, states fed back, the best character picked."""
    layers, hidden, vocabulary = 2, 16, 11
    weights = {
        (layer, gate, is_w): floats(hidden, vocabulary if is_w and layer == 0 else hidden) / 4
        for layer in range(layers)
        for gate in ("INPUT", "OUTPUT", "FORGET", "CELL")
        for is_w in (True, False)
    }
    projection, bias = floats(hidden, vocabulary), floats(1, 1, vocabulary)
    builder = trt.Builder(TRT_LOGGER)
    network = builder.create_network(EXPLICIT_BATCH)
    data = network.add_input("data", trt.float32, (1, 1, vocabulary))
    states = [
        network.add_input(name, trt.float32, (1, layers, hidden)) for name in ("h_in", "c_in")
    ]
    rnn = network.add_rnn_v2(data, layers, hidden, 1, trt.RNNOperation.LSTM)
    rnn.hidden_state, rnn.cell_state = states
    for (layer, gate, is_w), values in weights.items():
        rnn.set_weights_for_gate(layer, trt.RNNGateType[gate], is_w, trt.Weights(values))
    matrix = network.add_constant((1, hidden, vocabulary), projection).get_output(0)
    none = trt.MatrixOperation.NONE
    product = network.add_matrix_multiply(rnn.get_output(0), none, matrix, none)
    shift = network.add_constant((1, 1, vocabulary), trt.Weights(bias)).get_output(0)
    logits = network.add_elementwise(product.get_output(0), shift, trt.ElementWiseOperation.SUM)
    best = network.add_topk(logits.get_output(0), trt.TopKOperation.MAX, 1, 0b100)
    named = {"h_out": rnn.get_output(1), "c_out": rnn.get_output(2)}
    named |= {"logits": logits.get_output(0), "best": best.get_output(1)}
    for name, tensor in named.items():
        tensor.name = name
        network.mark_output(tensor)
    session = Session(network, builder, cuda)
    assert session.engine.get_tensor_dtype("best") is trt.int32
    assert session.engine.device_memory_size > 0
    with pytest.raises(ValueError, match="device memory of 0 bytes; this profile needs"):
        session.context.set_device_memory(int(session.arena), 0)

    state = {"h_in": np.zeros((1, layers, hidden), np.float32)}
    state["c_in"] = state["h_in"].copy()
    own_h, own_c = np.zeros((layers, hidden)), np.zeros((layers, hidden))
    character = 3
    for _ in range(5):
        x = np.eye(vocabulary, dtype=np.float32)[character].reshape(1, 1, -1)
        got = session.run(data=x, **state)
        y = x.ravel().astype(np.float64)
        for layer in range(layers):
            gate = {
                name: weights[layer, name, True] @ y + weights[layer, name, False] @ own_h[layer]
                for name in ("INPUT", "OUTPUT", "FORGET", "CELL")
            }
            opened = {name: 1 / (1 + np.exp(-gate[name])) for name in gate}
            own_c[layer] = opened["FORGET"] * own_c[layer] + opened["INPUT"] * np.tanh(gate["CELL"])
            own_h[layer] = y = opened["OUTPUT"] * np.tanh(own_c[layer])
        wanted = y @ projection + bias.ravel()
        np.testing.assert_allclose(got["logits"].ravel(), wanted, atol=1e-4)
        assert int(got["best"].ravel()[0]) == int(np.argmax(wanted))
        character = int(got["best"].ravel()[0])
        state = {"h_in": got["h_out"], "c_in": got["c_out"]}


def test_a_layer_of_the_programs_own(cuda):
    """As the custom-layer sample: a clipping plugin between two layers."""

    @dataclass(frozen=True)
    class Clip(trt.Plugin):
        name = "ClipPlugin"
        low: float = 0.0
        high: float = 1.0

        def output_types(self, inputs):
            (x,) = inputs
            if not x.dtype.is_float:
                raise ValueError(f"takes floats, got {x}")
            return [TensorType(x.shape, x.dtype)]

        def expression(self, num_inputs):
            return Binary("min", Binary("max", Input(0), Const(self.low)), Const(self.high))

        def reference(self, inputs):
            return [np.clip(inputs[0], self.low, self.high)]

    builder = trt.Builder(TRT_LOGGER)
    network = builder.create_network(EXPLICIT_BATCH)
    x = network.add_input("x", trt.float32, (1, 8, 4, 4))
    kernel = floats(8, 8, 1, 1)
    conv = network.add_convolution_nd(x, 8, (1, 1), kernel)
    clip = network.add_plugin_v2([conv.get_output(0)], Clip(-0.5, 0.5))
    assert clip.num_outputs == 1
    clip.get_output(0).name = "y"
    network.mark_output(clip.get_output(0))
    session = Session(network, builder, cuda)
    values = floats(1, 8, 4, 4)
    product = np.einsum("kc,nchw->nkhw", kernel[:, :, 0, 0], values)
    got = session.run(x=values)["y"]
    np.testing.assert_allclose(got, np.clip(product, -0.5, 0.5), atol=1e-5)
    assert session.engine.num_layers == 1  # fused
    index = network.add_input("index", trt.int32, (3,))
    with pytest.raises(NetworkError, match="takes floats"):
        network.add_plugin_v2([index], Clip())


def test_an_unrolled_loop_in_a_plan(cuda):
    """Powers of a matrix: x, A x, A A x ... as one plan."""
    matrix, start = floats(4, 4) / 2, floats(4, 1)
    builder = trt.Builder(TRT_LOGGER)
    network = builder.create_network(EXPLICIT_BATCH)
    x = network.add_input("x", trt.float32, (4, 1))
    a = network.add_constant((4, 4), matrix).get_output(0)
    loop = network.add_loop()
    count = network.add_constant((), np.asarray(3, np.int32)).get_output(0)
    loop.add_trip_limit(count, trt.TripLimit.COUNT)
    value = loop.add_recurrence(x)
    none = trt.MatrixOperation.NONE
    product = network.add_matrix_multiply(a, none, value.get_output(0), none)
    value.set_input(1, product.get_output(0))
    powers = loop.add_loop_output(product.get_output(0), trt.LoopOutput.CONCATENATE)
    powers.get_output(0).name = "powers"
    network.mark_output(powers.get_output(0))
    session = Session(network, builder, cuda)
    got = session.run(x=start)["powers"]
    wanted = np.stack([np.linalg.matrix_power(matrix, n) @ start for n in (1, 2, 3)])
    np.testing.assert_allclose(got, wanted, atol=1e-4)
