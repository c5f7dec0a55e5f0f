"""Small networks in the manner of VGG and of YOLO: convolutions with 2x2 maxima between them."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, helper

from builder_host.importers.onnx import import_onnx
from builder_host.network.evaluate import evaluate_network
from support.onnx_models import model

SIZE = 32


def blocks(*stages: tuple[tuple[int, ...], str]) -> ModelProto:
    """Image -> stages of 3x3 convolutions, each with an activation, and a 2x2 maximum -> 1x1."""
    rng = np.random.default_rng(11)
    known: dict[str, Any] = {}
    nodes = []
    value, channels = "x", 3

    def convolution(name: str, maps: int, kernel: int) -> None:
        nonlocal value, channels
        weights = rng.standard_normal((maps, channels, kernel, kernel))
        known[f"{name}.w"] = (weights / np.sqrt(channels * kernel**2)).astype(np.float32)
        known[f"{name}.b"] = rng.normal(0.1, 0.2, maps).astype(np.float32)
        inputs, pads = [value, f"{name}.w", f"{name}.b"], [kernel // 2] * 4
        nodes.append(helper.make_node("Conv", inputs, [name], name=name, pads=pads))
        value, channels = name, maps

    for stage, (widths, activation) in enumerate(stages, start=1):
        for number, maps in enumerate(widths, start=1):
            convolution(f"conv{stage}_{number}", maps, 3)
            nodes.append(helper.make_node(activation, [value], [f"{value}.a"]))
            value = f"{value}.a"
        nodes.append(
            helper.make_node(
                "MaxPool", [value], [f"pool{stage}"], name=f"pool{stage}",
                kernel_shape=[2, 2], strides=[2, 2],
            )
        )  # fmt: skip
        value = f"pool{stage}"
    convolution("last", 8, 1)
    return model(nodes, {"x": (1, 3, SIZE, SIZE)}, [value], known)


VGG = blocks(((16, 16), "Relu"), ((32, 32), "Relu"))
YOLO = blocks(((16,), "LeakyRelu"), ((32,), "LeakyRelu"))
MODELS = {"vgg": VGG, "yolo": YOLO}


def image() -> np.ndarray[Any, Any]:
    """A normal input."""
    values = np.random.default_rng(2).standard_normal((1, 3, SIZE, SIZE))
    return values.astype(np.float32)


def reference(network: ModelProto, x: np.ndarray) -> np.ndarray:
    """Float64 result of the network as imported."""
    imported = import_onnx(network.SerializeToString())
    (found,) = evaluate_network(imported, {"x": x}).values()
    return found
