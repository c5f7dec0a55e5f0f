"""Classify a picture with an ONNX model: parse, build, save, load, run, the five best classes.

python onnx_resnet.py resnet.onnx picture.jpg labels.json resnet.engine
"""

import json
import sys

import numpy as np
import pycuda.autoinit  # noqa: F401
import pycuda.driver as cuda
import tensorrt as trt
from PIL import Image

TRT_LOGGER = trt.Logger(trt.Logger.WARNING)
EXPLICIT_BATCH = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)


class HostDeviceMem:
    def __init__(self, host_mem, device_mem):
        self.host = host_mem
        self.device = device_mem


def build_engine(model_file, engine_file, level):
    """Parse the model, build with FP16 allowed, and keep the plan in a file."""
    builder = trt.Builder(TRT_LOGGER)
    network = builder.create_network(EXPLICIT_BATCH)
    config = builder.create_builder_config()
    parser = trt.OnnxParser(network, TRT_LOGGER)
    if not parser.parse_from_file(model_file):
        print(f"ERROR: cannot parse {model_file}")
        for error in range(parser.num_errors):
            print(parser.get_error(error))
        return False
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 28)
    config.set_flag(trt.BuilderFlag.FP16)
    config.builder_optimization_level = level
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return False
    with open(engine_file, "wb") as file:
        file.write(plan)
    return True


def load_engine(engine_file):
    with open(engine_file, "rb") as file, trt.Runtime(TRT_LOGGER) as runtime:
        return runtime.deserialize_cuda_engine(file.read())


def allocate_buffers(engine):
    inputs, outputs, bindings = [], [], []
    for binding in engine:
        size = trt.volume(engine.get_binding_shape(binding))
        dtype = trt.nptype(engine.get_binding_dtype(binding))
        host_mem = cuda.pagelocked_empty(size, dtype)
        device_mem = cuda.mem_alloc(host_mem.nbytes)
        bindings.append(int(device_mem))
        own = inputs if engine.binding_is_input(binding) else outputs
        own.append(HostDeviceMem(host_mem, device_mem))
    return inputs, outputs, bindings, cuda.Stream()


def normalized_picture(file, shape, scaling):
    """A picture in the network's size; `scaling` as its trainers had it."""
    _, _, height, width = shape
    picture = Image.open(file).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture, dtype=np.float32).transpose(2, 0, 1)
    if scaling == "caffe":
        return pixels[::-1] - np.array([104, 117, 123], np.float32).reshape(3, 1, 1)
    mean = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
    deviation = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)
    return (pixels / np.float32(255) - mean) / deviation


def do_inference(context, bindings, inputs, outputs, stream):
    for item in inputs:
        cuda.memcpy_htod_async(item.device, item.host, stream)
    if not context.execute_async_v2(bindings=bindings, stream_handle=stream.handle):
        raise RuntimeError("the inference failed")
    for item in outputs:
        cuda.memcpy_dtoh_async(item.host, item.device, stream)
    stream.synchronize()
    return [item.host for item in outputs]


def main(arguments):
    model_file, picture_file, label_file, engine_file, *more = arguments
    scaling = more[0] if more else "imagenet"
    level = int(more[1]) if len(more) > 1 else 3
    with open(label_file) as file:
        labels = json.load(file)
    if not build_engine(model_file, engine_file, level):
        return None
    with load_engine(engine_file) as engine, engine.create_execution_context() as context:
        inputs, outputs, bindings, stream = allocate_buffers(engine)
        picture = normalized_picture(picture_file, engine.get_binding_shape(0), scaling)
        np.copyto(inputs[0].host, picture.astype(inputs[0].host.dtype).ravel())
        [scores] = do_inference(context, bindings, inputs, outputs, stream)
    for index in np.argsort(-scores.astype(np.float32), kind="stable")[:5]:
        print(f"{index:4} {labels[index]}: {scores[index]:.4f}")
    return picture, scores


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) is not None else 1)
