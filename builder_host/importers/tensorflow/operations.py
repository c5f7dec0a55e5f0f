"""TensorFlow operations as UFF nodes: what TensorRT's converter did, in memory.

Each function gets a `NodeSource` and adds one or several `UffNode`s, the last one with the name of
the TensorFlow node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.importers.tensorflow.folding import COPIES
from builder_host.importers.tensorflow.tensors import shape_of, uff_dtype
from builder_host.importers.uff.orders import ANY_RANK, INCREMENT
from builder_host.importers.uff.problem import NodeProblem
from builder_host.importers.uff.reader import ORDERS, UffNode

Array = npt.NDArray[Any]

_DATA = {"NHWC": {ANY_RANK: (0, 2, INCREMENT, 1)}, "NCHW": {ANY_RANK: (0, 1, 2, INCREMENT)}}
_KERNEL = {ANY_RANK: (2, INCREMENT, 1, 0)}
_MATRIX = {ANY_RANK: (0, 1)}
_BINARY = {
    "Add": "add", "AddV2": "add", "Div": "div", "Maximum": "max", "Minimum": "min", "Mul": "mul",
    "Pow": "pow", "RealDiv": "div", "Sub": "sub",
}  # fmt: skip
_UNARY = {
    name.capitalize(): name
    for name in (
        *("abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "cos", "cosh", "exp"),
        *("floor", "log", "neg", "rsqrt", "sin", "sinh", "sqrt", "square", "tan"),
    )
}
_ACTIVATIONS = ("Relu", "Relu6", "Sigmoid", "Tanh", "Elu", "Selu", "Softplus", "Softsign")
_REDUCTIONS = {"Max": "max", "Mean": "mean", "Min": "min", "Prod": "prod", "Sum": "sum"}


@dataclass(slots=True)
class NodeSource:
    """One TensorFlow node, and what it becomes.

    Attributes:
        message: NodeDef.
        inputs: names of its inputs, control inputs left out, `name:0` as `name`.
        constants: values that constants decide, by name.
        refused: why other constants have none.
        made: UFF nodes.
    """

    message: Any
    inputs: list[str]
    constants: Mapping[str, Array]
    refused: Mapping[str, str] = field(default_factory=dict)
    made: list[UffNode] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the node."""
        return str(self.message.name)

    def add(
        self,
        operation: str,
        inputs: list[str],
        fields: Mapping[str, Any] | None = None,
        part: str = "",
    ) -> str:
        """Add a UFF node; with `part` an intermediate one named after it."""
        name = f"{self.name}:{part}" if part else self.name
        self.made.append(
            UffNode(
                name, operation, tuple(inputs), dict(fields or {}), f"TensorFlow node '{self.name}'"
            )
        )
        return name

    def add_constant(self, values: Array, part: str = "") -> str:
        """Add a Const."""
        data = np.ascontiguousarray(values).reshape(np.shape(values))
        fields = {"dtype": data.dtype.str, "shape": data.shape, "values": data.tobytes()}
        return self.add("Const", [], fields, part)

    def require_inputs(self, count: int) -> None:
        """Check the number of inputs. Raises NodeProblem."""
        if len(self.inputs) != count:
            raise NodeProblem(f"has {len(self.inputs)} inputs, takes {count}")

    def constant(self, index: int, what: str) -> Array:
        """Values of a constant input. Raises NodeProblem when it is none."""
        name = self.inputs[index] if index < len(self.inputs) else ""
        if name not in self.constants:
            raise NodeProblem(f"{what} (input {index}, '{name}') must be a constant")
        return self.constants[name]

    # --- attributes ----------------------------------------------------------------------

    def text(self, name: str, default: str) -> str:
        """A text attribute."""
        if name not in self.message.attr:
            return default
        return str(self.message.attr[name].s.decode("utf-8", "replace"))

    def flag(self, name: str, default: bool = False) -> bool:
        """A truth attribute."""
        return bool(self.message.attr[name].b) if name in self.message.attr else default

    def number(self, name: str, default: float) -> float:
        """A number attribute."""
        return float(self.message.attr[name].f) if name in self.message.attr else default

    def integer(self, name: str, default: int) -> int:
        """A whole number attribute."""
        return int(self.message.attr[name].i) if name in self.message.attr else default

    def integers(self, name: str) -> tuple[int, ...]:
        """A list attribute; empty when it is missing."""
        return tuple(self.message.attr[name].list.i) if name in self.message.attr else ()

    def data_format(self) -> str:
        """NHWC or NCHW. Raises NodeProblem for another one."""
        found = self.text("data_format", "NHWC")
        if found not in _DATA:
            raise NodeProblem(f"data_format is '{found}', must be NHWC or NCHW")
        return found

    def spatial(self, name: str) -> tuple[int, int]:
        """Height and width of a list with one entry per axis; the others must be 1."""
        values = self.integers(name) or (1, 1, 1, 1)
        if len(values) != 4:
            raise NodeProblem(f"{name} is {values}, must have 4 values")
        is_last = self.data_format() == "NHWC"
        height, width = values[1:3] if is_last else values[2:]
        if {values[0], values[3] if is_last else values[1]} != {1}:
            raise NodeProblem(f"{name} is {values}, must be 1 for batch and channels")
        return height, width

    def padding(self) -> dict[str, Any]:
        """Fields that say how an image is padded. Raises NodeProblem."""
        found = self.text("padding", "VALID")
        if found not in ("SAME", "VALID"):
            raise NodeProblem(f"padding is '{found}', must be SAME or VALID")
        return {"implicit_padding": found.lower()}


Convert = Callable[[NodeSource], Any]


def _conv(node: NodeSource) -> None:
    node.require_inputs(2)
    fields = {
        "strides": node.spatial("strides"),
        "dilation": node.spatial("dilations"),
        ORDERS: (_DATA[node.data_format()], _KERNEL),
        **node.padding(),
    }
    node.add("Conv" if node.message.op == "Conv2D" else "DepthwiseConv", node.inputs, fields)


def _conv_transpose(node: NodeSource) -> None:
    node.require_inputs(3)
    sizes = node.constant(0, "the output shape")
    is_last = node.data_format() == "NHWC"
    shape = node.add_constant(np.asarray(sizes[1:3] if is_last else sizes[2:], np.int32), "shape")
    fields = {
        "strides": node.spatial("strides"),
        "dilation": node.spatial("dilations"),
        ORDERS: (_MATRIX, _KERNEL, _DATA[node.data_format()]),
        **node.padding(),
    }
    node.add("ConvTranspose", [shape, *node.inputs[1:]], fields)


def _pool(node: NodeSource) -> None:
    node.require_inputs(1)
    fields = {
        "func": "max" if node.message.op == "MaxPool" else "avg",
        "kernel": node.spatial("ksize"),
        "strides": node.spatial("strides"),
        ORDERS: (_DATA[node.data_format()],),
        **node.padding(),
    }
    node.add("Pool", node.inputs, fields)


def _bias_add(node: NodeSource) -> None:
    node.require_inputs(2)
    data, bias = node.inputs
    if node.data_format() == "NCHW":
        bias = node.add_constant(node.constant(1, "the bias").reshape(-1, 1, 1), "bias")
    node.add("Binary", [data, bias], {"func": "add"})


def _matmul(node: NodeSource) -> None:
    node.require_inputs(2)
    data, weights = node.inputs
    if node.flag("transpose_a"):
        data = node.add("Transpose", [data], {"permutation": (1, 0)}, "transposed")
    order = (0, 1) if node.flag("transpose_b") else (1, 0)
    node.add("FullyConnected", [data, weights], {ORDERS: (_MATRIX, {ANY_RANK: order})})


def _fused_batch_norm(node: NodeSource) -> None:
    node.require_inputs(5)
    if node.flag("is_training", True):
        raise NodeProblem("is_training is true; freeze the graph for inference")
    orders = (_DATA[node.data_format()],)
    epsilon = node.number("epsilon", 1e-4)
    node.add("BatchNorm", node.inputs, {"epsilon": epsilon, ORDERS: orders})


def _lrn(node: NodeSource) -> None:
    node.require_inputs(1)
    fields = {
        "window_size": 2 * node.integer("depth_radius", 5) + 1,
        "k": node.number("bias", 1.0),
        "alpha": node.number("alpha", 1.0),
        "beta": node.number("beta", 0.5),
        ORDERS: (_DATA["NHWC"],),
    }
    node.add("LRN", node.inputs, fields)


def _reduce(node: NodeSource) -> None:
    node.require_inputs(2)
    axes = tuple(int(a) for a in np.ravel(node.constant(1, "the axes")))
    func = _REDUCTIONS[node.message.op]
    fields = {"func": func, "axes": axes, "keepdims": node.flag("keep_dims")}
    node.add("Reduce", node.inputs[:1], fields)


def _single(node: NodeSource, index: int, what: str) -> int:
    values = np.ravel(node.constant(index, what))
    if values.size != 1:
        raise NodeProblem(f"{what} has {values.size} values, must have one")
    return int(values[0])


def _arg_reduce(node: NodeSource) -> None:
    node.require_inputs(2)
    node.add(node.message.op, node.inputs[:1], {"axis": _single(node, 1, "the axis")})


def _expand_dims(node: NodeSource) -> None:
    node.require_inputs(2)
    node.add("ExpandDims", node.inputs[:1], {"axis": _single(node, 1, "the axis")})


def _concat(node: NodeSource) -> None:
    at = len(node.inputs) - 1 if node.message.op == "ConcatV2" else 0
    parts = [name for i, name in enumerate(node.inputs) if i != at]
    node.add("Concat", parts, {"axis": _single(node, at, "the axis")})


def _split(node: NodeSource) -> None:
    node.require_inputs(2)
    axis, count = _single(node, 0, "the axis"), node.integer("num_split", 0)
    if count < 1:
        raise NodeProblem(f"num_split is {count}, must be at least 1")
    for index in range(count):
        part = str(index) if index else ""
        node.add("Split", node.inputs[1:], {"axis": axis, "count": count, "index": index}, part)


def _squeeze(node: NodeSource) -> None:
    node.require_inputs(1)
    axes = node.integers("squeeze_dims") or node.integers("axis")
    node.add("Squeeze", node.inputs, {"axes": axes} if axes else {})


def _strided_slice(node: NodeSource) -> None:
    names = ("begin_mask", "end_mask", "shrink_axis_mask", "ellipsis_mask", "new_axis_mask")
    node.add("StridedSlice", node.inputs, {name: node.integer(name, 0) for name in names})


def _placeholder(node: NodeSource) -> None:
    attributes = node.message.attr
    shape = shape_of(attributes["shape"].shape) if "shape" in attributes else ()
    dtype = uff_dtype(attributes["dtype"].type if "dtype" in attributes else 1)
    node.add("Input", [], {"shape": shape, "dtype": dtype})


def _const(node: NodeSource) -> None:
    if node.name not in node.constants:
        raise NodeProblem(node.refused.get(node.name, "its values were not read"))
    node.add_constant(node.constants[node.name])


def _log_softmax(node: NodeSource) -> None:
    share = node.add("Softmax", node.inputs, part="shares")
    node.add("Unary", [share], {"func": "log"})


def _squared_difference(node: NodeSource) -> None:
    difference = node.add("Binary", node.inputs, {"func": "sub"}, "difference")
    node.add("Unary", [difference], {"func": "square"})


def _as(operation: str, **fields: Any) -> Convert:
    """The same inputs to one UFF operation."""

    def convert(node: NodeSource) -> None:
        node.add(operation, node.inputs, fields)

    return convert


def _pack(node: NodeSource) -> None:
    node.add("Stack", node.inputs, {"axis": node.integer("axis", 0)})


def _leaky_relu(node: NodeSource) -> None:
    node.add("LeakyRelu", node.inputs, {"alpha": node.number("alpha", 0.2)})


def _copy(node: NodeSource) -> None:
    node.add("Identity", node.inputs[:1])


CONVERTERS: dict[str, Convert] = {
    "ArgMax": _arg_reduce,
    "ArgMin": _arg_reduce,
    "AvgPool": _pool,
    "BiasAdd": _bias_add,
    "Concat": _concat,
    "ConcatV2": _concat,
    "Const": _const,
    "Conv2D": _conv,
    "Conv2DBackpropInput": _conv_transpose,
    "DepthwiseConv2dNative": _conv,
    "ExpandDims": _expand_dims,
    "FusedBatchNorm": _fused_batch_norm,
    "FusedBatchNormV2": _fused_batch_norm,
    "FusedBatchNormV3": _fused_batch_norm,
    "Gather": _as("Gather"),
    "GatherV2": _as("GatherV2"),
    "LRN": _lrn,
    "LeakyRelu": _leaky_relu,
    "LogSoftmax": _log_softmax,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Pack": _pack,
    "Pad": _as("Pad"),
    "Placeholder": _placeholder,
    "Reshape": _as("Reshape"),
    "Shape": _as("Shape"),
    "Softmax": _as("Softmax"),
    "Split": _split,
    "SquaredDifference": _squared_difference,
    "Squeeze": _squeeze,
    "StridedSlice": _strided_slice,
    "Transpose": _as("Transpose"),
    **{op: _as("Binary", func=func) for op, func in _BINARY.items()},
    **{op: _as("Unary", func=func) for op, func in _UNARY.items()},
    **{op: _as("Activation", func=op.lower()) for op in _ACTIVATIONS},
    **dict.fromkeys(_REDUCTIONS, _reduce),
    **dict.fromkeys(COPIES, _copy),
}
