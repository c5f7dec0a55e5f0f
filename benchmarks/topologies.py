"""Well-known CNN topologies as ONNX models with random weights (batch norms folded).

Input `data` 1x3x224x224 float32, output `prob` 1x1000. Weights are He-scaled normal numbers from a
fixed seed, so that activations stay in range and runs can be compared.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 13


class Graph:
    """Collects nodes and weights of one model; every method returns the name of its output."""

    def __init__(self, seed: int) -> None:
        """Start an empty graph; `seed` decides the weights."""
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(seed)
        self._count = 0

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}{self._count}"

    def node(self, op: str, inputs: list[str], **attributes: object) -> str:
        """Append a node with one output."""
        output = self._name(op.lower())
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def weight(self, *shape: int, scale: float) -> str:
        """A random initialiser."""
        name = self._name("w")
        values = (self._random.standard_normal(shape) * scale).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def conv(
        self,
        x: str,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: int = 1,
        pad: int = 0,
        group: int = 1,
        activation: str = "Relu",
        gain: float = 1.0,
    ) -> str:
        """Convolution with bias and activation (`Relu`, `Relu6` or none), He-scaled by gain."""
        fan_in = channels_in // group * kernel * kernel
        weight = self.weight(
            channels_out, channels_in // group, kernel, kernel, scale=gain * (2 / fan_in) ** 0.5
        )
        bias = self.weight(channels_out, scale=0.01)
        y = self.node(
            "Conv",
            [x, weight, bias],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
            group=group,
        )
        if activation == "Relu":
            return self.node("Relu", [y])
        if activation == "Relu6":
            return self.node("Clip", [y, self.scalar(0.0), self.scalar(6.0)])
        return y

    def scalar(self, value: float) -> str:
        """A scalar initialiser."""
        name = self._name("c")
        self.weights.append(numpy_helper.from_array(np.float32(value), name))
        return name

    def pool(
        self,
        x: str,
        kernel: int,
        stride: int,
        pad: int = 0,
        ceil: bool = False,
        op: str = "MaxPool",
    ) -> str:
        """Max or average pooling."""
        return self.node(
            op,
            [x],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
            ceil_mode=int(ceil),
        )

    def fully_connected(self, x: str, num_in: int, num_out: int) -> str:
        """Gemm with bias."""
        weight = self.weight(num_out, num_in, scale=(1 / num_in) ** 0.5)
        return self.node("Gemm", [x, weight, self.weight(num_out, scale=0.01)], transB=1)

    def finish(self, x: str, name: str) -> onnx.ModelProto:
        """Softmax and the model around the nodes."""
        self.nodes.append(helper.make_node("Softmax", [x], ["prob"], name="prob", axis=1))
        return self.model(name, (1, 3, 224, 224), "prob", (1, 1000))

    def model(
        self, name: str, taken: tuple[int, ...], output: str, given: tuple[int, ...]
    ) -> onnx.ModelProto:
        """The model around the nodes: input `data` of shape `taken`, one output."""
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("data", TensorProto.FLOAT, list(taken))],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, list(given))],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        return model


def squeezenet() -> onnx.ModelProto:
    """SqueezeNet 1.1."""
    g = Graph(1)

    def fire(x: str, channels_in: int, squeeze: int, expand: int) -> str:
        s = g.conv(x, channels_in, squeeze, 1)
        parts = [g.conv(s, squeeze, expand, 1), g.conv(s, squeeze, expand, 3, pad=1)]
        return g.node("Concat", parts, axis=1)

    x = g.pool(g.conv("data", 3, 64, 3, stride=2), 3, 2, ceil=True)
    x = g.pool(fire(fire(x, 64, 16, 64), 128, 16, 64), 3, 2, ceil=True)
    x = g.pool(fire(fire(x, 128, 32, 128), 256, 32, 128), 3, 2, ceil=True)
    x = fire(fire(x, 256, 48, 192), 384, 48, 192)
    x = fire(fire(x, 384, 64, 256), 512, 64, 256)
    x = g.node("GlobalAveragePool", [g.conv(x, 512, 1000, 1)])
    return g.finish(g.node("Flatten", [x], axis=1), "squeezenet_v1.1")


def mobilenet_v1() -> onnx.ModelProto:
    """MobileNet-v1, width 1.0."""
    g = Graph(2)
    x = g.conv("data", 3, 32, 3, stride=2, pad=1)
    channels = 32
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    plan += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    for channels_out, stride in plan:
        x = g.conv(x, channels, channels, 3, stride=stride, pad=1, group=channels)
        x = g.conv(x, channels, channels_out, 1)
        channels = channels_out
    x = g.node("Flatten", [g.node("GlobalAveragePool", [x])], axis=1)
    return g.finish(g.fully_connected(x, 1024, 1000), "mobilenet_v1")


def mobilenet_v2() -> onnx.ModelProto:
    """MobileNet-v2, width 1.0."""
    g = Graph(3)
    x = g.conv("data", 3, 32, 3, stride=2, pad=1, activation="Relu6")
    channels = 32
    rows = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)]
    rows += [(6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, channels_out, repeats, first_stride in rows:
        for index in range(repeats):
            stride = first_stride if index == 0 else 1
            wide = channels * expand
            y = x if expand == 1 else g.conv(x, channels, wide, 1, activation="Relu6")
            y = g.conv(y, wide, wide, 3, stride=stride, pad=1, group=wide, activation="Relu6")
            y = g.conv(y, wide, channels_out, 1, activation="")
            x = g.node("Add", [x, y]) if stride == 1 and channels == channels_out else y
            channels = channels_out
    x = g.conv(x, 320, 1280, 1, activation="Relu6")
    x = g.node("Flatten", [g.node("GlobalAveragePool", [x])], axis=1)
    return g.finish(g.fully_connected(x, 1280, 1000), "mobilenet_v2")


def googlenet() -> onnx.ModelProto:
    """GoogLeNet (Inception v1) with its two LRN layers."""
    g = Graph(4)

    def lrn(x: str) -> str:
        return g.node("LRN", [x], size=5, alpha=1e-4, beta=0.75, bias=1.0)

    def inception(x: str, c: int, a: int, b1: int, b3: int, d1: int, d5: int, p: int) -> str:
        parts = [
            g.conv(x, c, a, 1),
            g.conv(g.conv(x, c, b1, 1), b1, b3, 3, pad=1),
            g.conv(g.conv(x, c, d1, 1), d1, d5, 5, pad=2),
            g.conv(g.pool(x, 3, 1, pad=1), c, p, 1),
        ]
        return g.node("Concat", parts, axis=1)

    x = lrn(g.pool(g.conv("data", 3, 64, 7, stride=2, pad=3), 3, 2, ceil=True))
    x = lrn(g.conv(g.conv(x, 64, 64, 1), 64, 192, 3, pad=1))
    x = g.pool(x, 3, 2, ceil=True)
    x = inception(x, 192, 64, 96, 128, 16, 32, 32)
    x = g.pool(inception(x, 256, 128, 128, 192, 32, 96, 64), 3, 2, ceil=True)
    x = inception(x, 480, 192, 96, 208, 16, 48, 64)
    x = inception(x, 512, 160, 112, 224, 24, 64, 64)
    x = inception(x, 512, 128, 128, 256, 24, 64, 64)
    x = inception(x, 512, 112, 144, 288, 32, 64, 64)
    x = g.pool(inception(x, 528, 256, 160, 320, 32, 128, 128), 3, 2, ceil=True)
    x = inception(x, 832, 256, 160, 320, 32, 128, 128)
    x = inception(x, 832, 384, 192, 384, 48, 128, 128)
    x = g.node("Flatten", [g.node("GlobalAveragePool", [x])], axis=1)
    return g.finish(g.fully_connected(x, 1024, 1000), "googlenet")


def resnet50() -> onnx.ModelProto:
    """ResNet-50 v1.5 (stride in the 3x3 convolution)."""
    g = Graph(5)
    x = g.pool(g.conv("data", 3, 64, 7, stride=2, pad=3), 3, 2, pad=1)
    channels = 64
    for stage, (width, repeats) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
        for index in range(repeats):
            stride = 2 if stage > 0 and index == 0 else 1
            y = g.conv(x, channels, width, 1)
            y = g.conv(y, width, width, 3, stride=stride, pad=1)
            # a small branch: sixteen additions must not overflow the soft-max
            y = g.conv(y, width, 4 * width, 1, activation="", gain=0.3)
            if index == 0:
                x = g.conv(x, channels, 4 * width, 1, stride, activation="", gain=0.7)
            x = g.node("Relu", [g.node("Add", [y, x])])
            channels = 4 * width
    x = g.node("Flatten", [g.node("GlobalAveragePool", [x])], axis=1)
    return g.finish(g.fully_connected(x, 2048, 1000), "resnet50_v1.5")


def vgg16() -> onnx.ModelProto:
    """VGG-16."""
    g = Graph(6)
    x, channels = "data", 3
    for width, repeats in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]:
        for _ in range(repeats):
            x = g.conv(x, channels, width, 3, pad=1)
            channels = width
        x = g.pool(x, 2, 2)
    x = g.node("Flatten", [x], axis=1)
    x = g.node("Relu", [g.fully_connected(x, 25088, 4096)])
    x = g.node("Relu", [g.fully_connected(x, 4096, 4096)])
    return g.finish(g.fully_connected(x, 4096, 1000), "vgg16")


def yolov2() -> onnx.ModelProto:
    """YOLOv2 for 80 classes as far as its last convolution; input 416x416, output 425x13x13."""
    g = Graph(7)

    def conv(x: str, channels_in: int, channels_out: int, kernel: int) -> str:
        y = g.conv(x, channels_in, channels_out, kernel, 1, kernel // 2, activation="none")
        return g.node("LeakyRelu", [y], alpha=0.1)

    x = g.pool(conv("data", 3, 32, 3), 2, 2)
    x = g.pool(conv(x, 32, 64, 3), 2, 2)
    for wide in (128, 256):
        x = conv(x, wide // 2, wide, 3)
        x = conv(x, wide, wide // 2, 1)
        x = g.pool(conv(x, wide // 2, wide, 3), 2, 2)
    for wide in (512, 1024):
        x = conv(x, wide // 2, wide, 3)
        for _ in range(2):
            x = conv(x, wide, wide // 2, 1)
            x = conv(x, wide // 2, wide, 3)
        if wide == 512:
            passed, x = x, g.pool(x, 2, 2)
    x = conv(conv(x, 1024, 1024, 3), 1024, 1024, 3)
    passed = g.node("SpaceToDepth", [conv(passed, 512, 64, 1)], blocksize=2)
    x = conv(g.node("Concat", [passed, x], axis=1), 1280, 1024, 3)
    x = g.conv(x, 1024, 425, 1, activation="none")
    return g.model("yolov2", (1, 3, 416, 416), x, (1, 425, 13, 13))


TOPOLOGIES: dict[str, Callable[[], onnx.ModelProto]] = {
    "squeezenet_v1.1": squeezenet,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "googlenet": googlenet,
    "resnet50": resnet50,
    "vgg16": vgg16,
}
