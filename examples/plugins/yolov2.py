"""The head of YOLOv2: reorg and region, with kernels in C and CUDA C++.

edgeplan build yolov2.prototxt yolov2.caffemodel -o yolo.plan --plugins examples/plugins/yolov2.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.plugins import (
    GridLaunch,
    KernelRequest,
    Launch,
    Plugin,
    PluginKernel,
    PluginNode,
    PluginRegistry,
    TensorType,
)
from planformat.datatypes import DataType

Array = npt.NDArray[Any]
HERE = Path(__file__).parent
PLUGINS = PluginRegistry()


@dataclass(frozen=True)
class Reorg(Plugin):
    """[N,C,H,W] -> [N,C*s*s,H/s,W/s] in Darknet's order.

    Darknet reads its input as if it had C/(s*s) channels of s*H x s*W and writes one of the s*s
    sub-grids of every such channel after the other.
    """

    name = "Reorg"
    dtypes = (DataType.FLOAT32, DataType.FLOAT16)
    stride: int

    def output_types(self, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check that the stride divides height, width and, squared, the channels."""
        (x,) = inputs
        n, c, h, w = x.shape
        s = self.stride
        if s < 1 or h % s or w % s or c % (s * s):
            raise ValueError(f"stride {s} does not divide {x}")
        return [TensorType((n, c * s * s, h // s, w // s), x.dtype)]

    def reference(self, inputs: Sequence[Array]) -> list[Array]:
        """The same by reshapes and a transpose."""
        (x,) = inputs
        n, c, h, w = x.shape
        s = self.stride
        grids = x.reshape(n, c // (s * s), h, s, w, s).transpose(0, 3, 5, 1, 2, 4)
        return [grids.reshape(n, c * s * s, h // s, w // s)]

    def kernels(self, request: KernelRequest) -> list[PluginKernel]:
        """C: a unit per channel. CUDA: three block sizes, of which the fastest is taken."""
        (x,) = request.inputs
        if request.device_kind == "cpu":
            source = (HERE / "reorg.c").read_text()
            return [PluginKernel("rows", source, (Launch("reorg", x.shape[0] * x.shape[1]),))]
        return _elementwise("reorg", x.type.num_elems)


@dataclass(frozen=True)
class Region(Plugin):
    """Logistic on x, y and objectness of each anchor, softmax over its classes; w and h stay."""

    name = "Region"
    dtypes = (DataType.FLOAT32, DataType.FLOAT16)
    anchors: int
    classes: int

    def output_types(self, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Same shape; 5 + classes maps per anchor."""
        (x,) = inputs
        maps = self.anchors * (5 + self.classes)
        if len(x.shape) != 4 or self.classes < 1 or x.shape[1] != maps:
            raise ValueError(
                f"{self.anchors} anchors of 5 + {self.classes} maps need Nx{maps}xHxW, got {x}"
            )
        return [x]

    def reference(self, inputs: Sequence[Array]) -> list[Array]:
        """In float64."""
        n, _, h, w = inputs[0].shape
        y = inputs[0].reshape(n, self.anchors, 5 + self.classes, h, w).copy()
        for index in (0, 1, 4):
            y[:, :, index] = 1 / (1 + np.exp(-y[:, :, index]))
        scores = np.exp(y[:, :, 5:] - y[:, :, 5:].max(axis=2, keepdims=True))
        y[:, :, 5:] = scores / scores.sum(axis=2, keepdims=True)
        return [y.reshape(inputs[0].shape)]

    def kernels(self, request: KernelRequest) -> list[PluginKernel]:
        """C: a unit per row of an anchor. CUDA: a thread per pixel of an anchor."""
        (x,) = request.inputs
        if request.device_kind == "cpu":
            source = (HERE / "region.c").read_text()
            units = x.shape[0] * self.anchors * x.shape[2]
            return [PluginKernel("rows", source, (Launch("region", units),))]
        return _elementwise("region", x.type.num_elems // (5 + self.classes))


def _elementwise(symbol: str, count: int) -> list[PluginKernel]:
    """One thread for each of `count` items, in blocks of several sizes."""
    source = (HERE / f"{symbol}.cu").read_text()
    return [
        PluginKernel(
            f"block{threads}",
            source,
            (GridLaunch(symbol, (-(-count // threads), 1, 1), (threads, 1, 1)),),
        )
        for threads in (128, 64, 256)
    ]


@PLUGINS.caffe("Reorg")
@PLUGINS.uff("_Reorg")
@PLUGINS.onnx("example.yolo", "Reorg")
def _reorg(node: PluginNode) -> Reorg:
    attributes = node.attributes.get("reorg_param", node.attributes)
    return Reorg(int(attributes.get("stride", 2)))


@PLUGINS.caffe("Region")
@PLUGINS.uff("_Region")
@PLUGINS.onnx("example.yolo", "Region")
def _region(node: PluginNode) -> Region:
    attributes = node.attributes.get("region_param", node.attributes)
    return Region(int(attributes["num"]), int(attributes["classes"]))
