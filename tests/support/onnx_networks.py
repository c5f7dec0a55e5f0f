"""Large ONNX networks with seeded weights, in the shapes of well-known ones."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class _Graph:
    """Nodes and weights on their way into a model."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        return name

    def weight(self, values: np.ndarray) -> str:
        name = f"weight{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def normal(self, *shape: int, deviation: float) -> str:
        values = self.rng.standard_normal(shape, dtype=np.float32)
        return self.weight(values * np.float32(deviation))

    def convolution(
        self, x: str, of: int, to: int, size: int, stride: int = 1, gain: float = 2.0
    ) -> str:
        """Convolution and batch normalisation whose results keep the input's variance."""
        kernel = self.normal(to, of, size, size, deviation=(gain / (of * size * size)) ** 0.5)
        pad = size // 2
        y = self.add("Conv", x, kernel, strides=[stride] * 2, pads=[pad] * 4)
        scale = self.weight(self.rng.uniform(0.8, 1.2, to).astype(np.float32))
        shift = self.normal(to, deviation=0.1)
        mean = self.normal(to, deviation=0.1)
        variance = self.weight(self.rng.uniform(0.8, 1.2, to).astype(np.float32))
        return self.add("BatchNormalization", y, scale, shift, mean, variance, epsilon=1e-5)

    def model(
        self, name: str, shape: tuple[int, ...], outputs: dict[str, tuple[int, ...]]
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("data", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model)
        return model


def resnet18(size: int) -> onnx.ModelProto:
    """ResNet-18 for pictures of 3 x size x size: 20 convolutions, 1,000 classes."""
    graph = _Graph(18)
    x = graph.add("Relu", graph.convolution("data", 3, 64, 7, 2))
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    of = 64
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            y = graph.add("Relu", graph.convolution(x, of, width, 3, stride))
            y = graph.convolution(y, width, width, 3, gain=0.5)
            if stride > 1:
                x = graph.convolution(x, of, width, 1, stride, gain=1.0)
            x, of = graph.add("Relu", graph.add("Add", y, x)), width
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x), axis=1)
    fc, bias = graph.normal(1000, 512, deviation=0.1), graph.normal(1000, deviation=0.1)
    logits = graph.add("Gemm", x, fc, bias, transB=1)
    return graph.model("resnet18", (1, 3, size, size), {logits: (1, 1000)})


def yolov3_tiny(size: int, *, num_classes: int = 80, divisor: int = 1) -> onnx.ModelProto:
    """YOLOv3-tiny: two outputs of 3 * (5 + classes) maps, at 1/32 and 1/16 of the size.

    Args:
        size: height and width of pictures, a multiple of 32.
        num_classes: that the boxes tell apart.
        divisor: of the numbers of maps inside.
    """
    graph = _Graph(3)

    def unit(x: str, of: int, to: int, kernel: int) -> str:
        return graph.add("LeakyRelu", graph.convolution(x, of, to, kernel), alpha=0.1)

    def head(x: str, of: int) -> str:
        num_maps = 3 * (5 + num_classes)
        kernel = graph.normal(num_maps, of, 1, 1, deviation=1.5 * (1 / of) ** 0.5)
        bias = graph.rng.normal(0, 0.1, (3, 5 + num_classes)).astype(np.float32)
        bias[:, 4] -= 2  # most places hold nothing
        return graph.add("Conv", x, kernel, graph.weight(bias.reshape(-1)))

    widths = [width // divisor for width in (16, 32, 64, 128, 256)]
    x, of = "data", 3
    for width in widths:
        x, of = unit(x, of, width, 3), width
        fine = x
        x = graph.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = unit(x, of, 512 // divisor, 3)
    x = graph.add("MaxPool", x, kernel_shape=[2, 2], strides=[1, 1], pads=[0, 0, 1, 1])
    x = unit(x, 512 // divisor, 1024 // divisor, 3)
    x = unit(x, 1024 // divisor, 256 // divisor, 1)
    coarse_out = head(unit(x, 256 // divisor, 512 // divisor, 3), 512 // divisor)
    x = unit(x, 256 // divisor, 128 // divisor, 1)
    scales = graph.weight(np.array([1, 1, 2, 2], np.float32))
    x = graph.add(
        "Resize",
        x,
        "",
        scales,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    x = graph.add("Concat", x, fine, axis=1)
    fine_out = head(unit(x, 384 // divisor, 256 // divisor, 3), 256 // divisor)
    maps = 3 * (5 + num_classes)
    outputs = {
        coarse_out: (1, maps, size // 32, size // 32),
        fine_out: (1, maps, size // 16, size // 16),
    }
    return graph.model("yolov3-tiny", (1, 3, size, size), outputs)
