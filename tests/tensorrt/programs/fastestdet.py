"""Find objects with FastestDet, by the API of tensors with names.

python fastestdet.py FastestDet.onnx picture.npy
"""

import sys

import numpy as np
import pycuda.autoinit  # noqa: F401
import pycuda.driver as cuda
import tensorrt as trt

CLASSES = {0: "person", 1: "bicycle", 2: "car", 7: "truck", 16: "dog"}


class Detector:
    """An engine with memory for each of its tensors."""

    def __init__(self, model, level):
        self.logger = trt.Logger(trt.Logger.WARNING)
        builder = trt.Builder(self.logger)
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, self.logger)
        if not parser.parse_from_file(model):
            raise SystemExit("\n".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
        config = builder.create_builder_config()
        config.builder_optimization_level = level
        plan = builder.build_serialized_network(network, config)
        self.engine = trt.Runtime(self.logger).deserialize_cuda_engine(plan)
        self.context = self.engine.create_execution_context()
        self.stream = cuda.Stream()
        self.host, self.device = {}, {}
        for index in range(self.engine.num_io_tensors):
            name = self.engine.get_tensor_name(index)
            shape = tuple(self.context.get_tensor_shape(name))
            dtype = trt.nptype(self.engine.get_tensor_dtype(name))
            self.host[name] = cuda.pagelocked_empty(shape, dtype)
            self.device[name] = cuda.mem_alloc(self.host[name].nbytes)
            self.context.set_tensor_address(name, int(self.device[name]))

    def named(self, mode):
        return [name for name in self.host if self.engine.get_tensor_mode(name) == mode]

    def infer(self, pixels):
        [name] = self.named(trt.TensorIOMode.INPUT)
        np.copyto(self.host[name], pixels)
        cuda.memcpy_htod_async(self.device[name], self.host[name], self.stream)
        self.context.execute_async_v3(self.stream.handle)
        [output] = self.named(trt.TensorIOMode.OUTPUT)
        cuda.memcpy_dtoh_async(self.host[output], self.device[output], self.stream)
        self.stream.synchronize()
        return self.host[output]


def detections(output, threshold=0.65):
    """Class, score and corners as shares of the picture; of overlapping boxes the best."""
    _, _, rows, columns = output.shape
    objectness, regression, classes = output[0, 0], output[0, 1:5], output[0, 5:]
    scores = objectness**0.6 * classes.max(axis=0) ** 0.4
    found = []
    for y, x in zip(*np.nonzero(scores > threshold), strict=True):
        width, height = 1 / (1 + np.exp(-regression[2:, y, x]))
        centre_x = (x + np.tanh(regression[0, y, x])) / columns
        centre_y = (y + np.tanh(regression[1, y, x])) / rows
        corners = (
            centre_x - width / 2,
            centre_y - height / 2,
            centre_x + width / 2,
            centre_y + height / 2,
        )
        found.append((int(classes[:, y, x].argmax()), float(scores[y, x]), *map(float, corners)))
    kept = []
    for row in sorted(found, key=lambda row: -row[1]):
        if all(overlap(row[2:], other[2:]) < 0.45 for other in kept):
            kept.append(row)
    return kept


def overlap(a, b):
    common = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return common / (sum(areas) - common)


def main(arguments):
    model, picture, *more = arguments
    detector = Detector(model, int(more[0]) if more else 3)
    output = detector.infer(np.load(picture).astype(np.float32) / np.float32(255))
    rows = detections(output)
    for kind, score, *corners in rows:
        shown = ", ".join(f"{corner:.3f}" for corner in corners)
        print(f"{CLASSES.get(kind, kind)} {score:.3f} [{shown}]")
    return output, rows


if __name__ == "__main__":
    main(sys.argv[1:])
