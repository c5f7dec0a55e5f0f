"""Find objects with an ONNX YOLOv3 or YOLOv3-tiny: several outputs, post-processing in NumPy.

python onnx_yolov3.py yolov3-tiny.onnx picture.jpg yolov3-tiny.engine
"""

import os
import sys

import numpy as np
import pycuda.autoinit  # noqa: F401
import pycuda.driver as cuda
import tensorrt as trt
from PIL import Image

TRT_LOGGER = trt.Logger(trt.Logger.ERROR)
ANCHORS = [(10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319)]
MASKS = [(3, 4, 5), (0, 1, 2)]  # anchors of each output, coarsest first
OBJECT_THRESHOLD = 0.4
NMS_THRESHOLD = 0.45


def get_engine(onnx_file, engine_file, level):
    """The engine of an earlier run, or a new one that is kept."""
    if os.path.exists(engine_file):
        print(f"Reading engine from file {engine_file}")
        with open(engine_file, "rb") as file, trt.Runtime(TRT_LOGGER) as runtime:
            return runtime.deserialize_cuda_engine(file.read())
    flag = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    with (
        trt.Builder(TRT_LOGGER) as builder,
        builder.create_network(flag) as network,
        trt.OnnxParser(network, TRT_LOGGER) as parser,
    ):
        config = builder.create_builder_config()
        config.max_workspace_size = 1 << 28
        config.builder_optimization_level = level
        with open(onnx_file, "rb") as model:
            if not parser.parse(model.read()):
                for error in range(parser.num_errors):
                    print(parser.get_error(error))
                return None
        network.get_input(0).shape = [1, *network.get_input(0).shape[1:]]
        print("Building an engine; this may take a while")
        engine = builder.build_engine(network, config)
        with open(engine_file, "wb") as file:
            file.write(engine.serialize())
        return engine


def letterboxed(picture, height, width):
    """The picture as large as it fits, on grey; with the scale and the border's width."""
    scale = min(width / picture.width, height / picture.height)
    size = (round(picture.width * scale), round(picture.height * scale))
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    canvas = Image.new("RGB", (width, height), (128, 128, 128))
    canvas.paste(picture.resize(size, Image.Resampling.BICUBIC), (left, top))
    pixels = np.asarray(canvas, dtype=np.float32) / np.float32(255)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]), scale, (left, top)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def candidates(output, mask, input_size):
    """Corners in input pixels, scores and classes of the boxes of one output."""
    _, channels, rows, columns = output.shape
    raw = output.reshape(len(mask), channels // len(mask), rows, columns).transpose(0, 2, 3, 1)
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1)
    centres = (sigmoid(raw[..., :2]) + grid) / (columns, rows) * (input_size[1], input_size[0])
    anchors = np.array([ANCHORS[index] for index in mask]).reshape(-1, 1, 1, 2)
    sizes = np.exp(raw[..., 2:4]) * anchors
    scores = sigmoid(raw[..., 4:5]) * sigmoid(raw[..., 5:])
    best = scores.max(axis=-1)
    chosen = best >= OBJECT_THRESHOLD
    corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=-1)
    return corners[chosen], best[chosen], scores.argmax(axis=-1)[chosen]


def suppressed(boxes, scores):
    """Indices that non-maximum suppression keeps, best first."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order, kept = np.argsort(-scores, kind="stable"), []
    while order.size:
        first, rest = order[0], order[1:]
        kept.append(first)
        low = np.maximum(boxes[first, :2], boxes[rest, :2])
        high = np.minimum(boxes[first, 2:], boxes[rest, 2:])
        common = np.prod(np.clip(high - low, 0, None), axis=1)
        order = rest[common / (areas[first] + areas[rest] - common) <= NMS_THRESHOLD]
    return np.array(kept, dtype=int)


def postprocessed(outputs, input_size, picture, scale, border):
    """Rows of class, score and corners in the picture's pixels."""
    found = [
        candidates(output, mask, input_size) for output, mask in zip(outputs, MASKS, strict=True)
    ]
    boxes, scores, classes = (np.concatenate(parts) for parts in zip(*found, strict=True))
    boxes = (boxes - np.array(border * 2)) / scale
    boxes = np.clip(boxes, 0, np.array([picture.width, picture.height] * 2))
    rows = []
    for kind in np.unique(classes):
        own = np.flatnonzero(classes == kind)
        own = own[suppressed(boxes[own], scores[own])]
        rows += [(int(kind), float(scores[i]), *map(float, boxes[i])) for i in own]
    return rows


def main(arguments):
    onnx_file, picture_file, engine_file, *more = arguments
    picture = Image.open(picture_file).convert("RGB")
    with get_engine(onnx_file, engine_file, int(more[0]) if more else 3) as engine:
        shape = engine.get_binding_shape(0)
        pixels, scale, border = letterboxed(picture, *shape[2:])
        stream = cuda.Stream()
        host, device = [], []
        for index in range(engine.num_bindings):
            dtype = trt.nptype(engine.get_binding_dtype(index))
            host.append(cuda.pagelocked_empty(tuple(engine.get_binding_shape(index)), dtype))
            device.append(cuda.mem_alloc(host[-1].nbytes))
        with engine.create_execution_context() as context:
            cuda.memcpy_htod_async(device[0], pixels, stream)
            context.execute_async_v2([int(memory) for memory in device], stream.handle)
            for index in range(1, engine.num_bindings):
                cuda.memcpy_dtoh_async(host[index], device[index], stream)
            stream.synchronize()
    outputs = host[1:]
    rows = postprocessed(outputs, shape[2:], picture, scale, border)
    for kind, score, *corners in rows:
        print(f"{kind} {score:.3f} {corners}")
    return pixels, outputs, rows


if __name__ == "__main__":
    main(sys.argv[1:])
