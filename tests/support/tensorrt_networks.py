"""Networks of the TensorRT-shaped API for tests: made, fed and evaluated in float64."""

from __future__ import annotations

import numpy as np

from builder_host import tensorrt as trt
from builder_host.network.evaluate import evaluate_network
from support import pycuda_cpu

EXPLICIT = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
RNG = np.random.default_rng(11)
NP = {trt.float32: np.float32, trt.int32: np.int32, trt.bool: np.bool_}


def network_of(monkeypatch, batch=None):
    monkeypatch.setenv("EDGEPLAN_TARGET", "host-cpu")
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    if batch is not None:
        builder.max_batch_size = batch
    return builder, builder.create_network(0 if batch else EXPLICIT)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def inputs_of(net, **arrays):
    kinds = {np.dtype(kind): dtype for dtype, kind in NP.items()}
    return [net.add_input(name, kinds[a.dtype], a.shape) for name, a in arrays.items()]


def constant(net, values):
    array = np.asarray(values)
    return net.add_constant(array.shape, array).get_output(0)


def evaluated(net, *tensors, batch=None, **arrays):
    """Values of tensors, after a check that their shapes and types were foretold."""
    told = [(tuple(t.shape), t.dtype) for t in tensors]
    for number, tensor in enumerate(tensors):
        tensor.name = f"result{number}"
        net.mark_output(tensor)
    emitted, found = net.emit(batch)
    results = evaluate_network(emitted, arrays)
    found_results = []
    for tensor, (shape, dtype) in zip(tensors, told, strict=True):
        value = results[found[tensor].name]
        assert value.shape == (shape if batch is None else (batch, *shape))
        assert trt.nptype(dtype) == trt.nptype(tensor.dtype)
        found_results.append(value)
    return found_results[0] if len(tensors) == 1 else found_results


def close(result, wanted, atol=1e-6):
    np.testing.assert_allclose(result, wanted, atol=atol, rtol=1e-6)


def compiled(builder, net, **arrays):
    """Outputs by name of a plan that is built and run here."""
    config = builder.create_builder_config()
    config.builder_optimization_level = 0
    with pycuda_cpu.installed() as cuda:
        engine = builder.build_engine(net, config)
        context = engine.create_execution_context()
        memory, buffers = {}, {}
        for name in engine:
            shape, dtype = engine.get_tensor_shape(name), engine.get_tensor_dtype(name)
            memory[name] = np.zeros(shape, trt.nptype(dtype))
            buffers[name] = cuda.mem_alloc(max(memory[name].nbytes, 1))
            assert context.set_tensor_address(name, int(buffers[name]))
        for name, array in arrays.items():
            cuda.memcpy_htod(buffers[name], array)
        assert context.execute_async_v3(cuda.Stream().handle)
        for name, array in memory.items():
            cuda.memcpy_dtoh(array, buffers[name])
    return {name: array for name, array in memory.items() if name not in arrays}
