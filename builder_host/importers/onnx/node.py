"""One ONNX node as a translation sees it: inputs, attributes, and the ways to add layers.

Attributes that a translation never reads are reported as unsupported, so that nothing in a model
is ignored by accident.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import onnx

from builder_host.errors import NetworkError
from builder_host.expressions import Expr
from builder_host.importers.onnx.folding import check_constant_size, fold_layer, numpy_dtype
from builder_host.importers.onnx.values import TensorSequence, Value, value_text
from builder_host.importers.onnx.weights import Array, TensorReader
from builder_host.network.layers.activation import ActivationParams
from builder_host.network.layers.cast import CastParams
from builder_host.network.layers.elementwise import ElementwiseParams
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.layers.reduce import ReduceParams
from builder_host.network.layers.reshape import ReshapeParams
from builder_host.network.layers.slice import SliceParams
from builder_host.network.layers.transpose import TransposeParams
from builder_host.network.layers.unary import UnaryParams
from builder_host.network.network import Network, Tensor
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

_KIND = onnx.AttributeProto
_TYPE_NAMES: dict[int, str] = {
    _KIND.INT: "an integer",
    _KIND.FLOAT: "a number",
    _KIND.STRING: "a text",
    _KIND.INTS: "integers",
    _KIND.FLOATS: "numbers",
    _KIND.STRINGS: "texts",
    _KIND.TENSOR: "a tensor",
    _KIND.GRAPH: "a graph",
}


@dataclass(slots=True)
class Node:
    """A node whose inputs have been translated already.

    Attributes:
        proto: the node; op_type and names are read from it.
        version: schema version of the operator that the model's opset means.
        where: e.g. `ONNX node 41 Conv 'conv3'`; origin of all layers added here.
        inputs: values in order; None for an input left out.
        network: receives the layers.
        reader: of the model's stored tensors.
        scratch_name: makes a free tensor name from a wish.
        wanted: for each output whether something reads it.
    """

    proto: onnx.NodeProto
    version: int
    where: str
    inputs: Sequence[Value | None]
    network: Network
    reader: TensorReader
    scratch_name: Callable[[str], str]
    wanted: tuple[bool, ...]
    attributes: Mapping[str, onnx.AttributeProto] = field(init=False)
    unread: set[str] = field(init=False)
    created: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Index the attributes."""
        self.attributes = {a.name: a for a in self.proto.attribute}
        self.unread = set(self.attributes) - {"consumed_inputs"}  # opset 1's hint about memory

    @property
    def op_type(self) -> str:
        """Operator name."""
        return self.proto.op_type

    def fail(self, text: str) -> NoReturn:
        """Refuse the node; the caller adds where it is. Raises NetworkError."""
        raise NetworkError(text)

    # --- inputs --------------------------------------------------------------------------

    @property
    def num_inputs(self) -> int:
        """Number of inputs, those left out included."""
        return len(self.inputs)

    def input(self, number: int) -> Tensor:
        """A required input."""
        tensor = self.optional(number)
        if tensor is None:
            self.fail(f"input {number} is missing; export the model again")
        return tensor

    def optional(self, number: int) -> Tensor | None:
        """A tensor input, or None when it is left out."""
        value = self.value(number)
        if value is not None and not isinstance(value, Tensor):
            self.fail(f"input {number} is {value_text(value)}; a tensor is needed")
        return value

    def value(self, number: int) -> Value | None:
        """An input of any kind, or None when it is left out."""
        return self.inputs[number] if number < len(self.inputs) else None

    def sequence(self, number: int) -> TensorSequence:
        """A required input that is a sequence."""
        value = self.value(number)
        if not isinstance(value, TensorSequence):
            found = "missing" if value is None else value_text(value)
            self.fail(f"input {number} is {found}; a sequence of tensors is needed")
        return value

    def required(self) -> list[Tensor]:
        """All inputs of a variadic operator; at least one."""
        if not self.inputs:
            self.fail("it has no inputs; export the model again")
        return [self.input(i) for i in range(len(self.inputs))]

    def constant(self, number: int, what: str) -> Array:
        """Values of an input that must be known at build time."""
        tensor = self.input(number)
        if tensor.values is None:
            self.fail(
                f"input {number} ({what}) must be known at build time, but '{tensor.name}' is "
                "computed from the network's inputs; fold it when exporting"
            )
        return tensor.values

    def constant_ints(self, number: int, what: str) -> tuple[int, ...]:
        """Values of a build-time integer input, flattened."""
        values = self.constant(number, what)
        if values.dtype.kind not in "iu" and values.size:
            self.fail(f"input {number} ({what}) must hold integers, got {values.dtype}")
        return tuple(int(v) for v in values.ravel())

    def optional_ints(self, number: int, what: str) -> tuple[int, ...] | None:
        """Like `constant_ints`, or None when the input is left out."""
        return None if self.optional(number) is None else self.constant_ints(number, what)

    # --- attributes ----------------------------------------------------------------------

    def _attribute(self, name: str, kind: int) -> onnx.AttributeProto | None:
        self.unread.discard(name)
        found = self.attributes.get(name)
        if found is not None and found.type != kind:
            names = onnx.AttributeProto.AttributeType
            got = names.Name(found.type) if found.type in names.values() else str(found.type)
            self.fail(f"attribute '{name}' must be {_TYPE_NAMES[kind]}, got {got}")
        return found

    def attr_int(self, name: str, default: int) -> int:
        """An integer attribute."""
        found = self._attribute(name, _KIND.INT)
        return default if found is None else int(found.i)

    def attr_float(self, name: str, default: float) -> float:
        """A number."""
        found = self._attribute(name, _KIND.FLOAT)
        return default if found is None else float(found.f)

    def attr_text(self, name: str, default: str) -> str:
        """A text."""
        found = self._attribute(name, _KIND.STRING)
        return default if found is None else found.s.decode("utf-8", "replace")

    def attr_ints(self, name: str) -> tuple[int, ...] | None:
        """A list of integers, or None when it is absent."""
        found = self._attribute(name, _KIND.INTS)
        return None if found is None else tuple(int(v) for v in found.ints)

    def attr_floats(self, name: str) -> tuple[float, ...] | None:
        """A list of numbers, or None when it is absent."""
        found = self._attribute(name, _KIND.FLOATS)
        return None if found is None else tuple(float(v) for v in found.floats)

    def attr_texts(self, name: str) -> tuple[str, ...] | None:
        """A list of texts, or None when it is absent."""
        found = self._attribute(name, _KIND.STRINGS)
        if found is None:
            return None
        return tuple(v.decode("utf-8", "replace") for v in found.strings)

    def attr_array(self, name: str) -> Array | None:
        """A tensor, or None when it is absent."""
        found = self._attribute(name, _KIND.TENSOR)
        return None if found is None else self.reader.values(found.t, f"attribute '{name}'")

    def has_attr(self, name: str) -> bool:
        """Whether the node states an attribute."""
        return name in self.attributes

    def skip_attrs(self, *names: str) -> None:
        """Attributes that are known not to change the result of an inference."""
        self.unread.difference_update(names)

    def choice(self, name: str, default: str, allowed: Sequence[str]) -> str:
        """A text attribute with a closed list of values."""
        value = self.attr_text(name, default)
        if value not in allowed:
            self.fail(f"attribute {name}='{value}' is not supported; one of: {', '.join(allowed)}")
        return value

    def axis(self, value: int, rank: int, what: str = "axis") -> int:
        """A dimension number made non-negative."""
        if not -rank <= value < rank:
            self.fail(f"{what} is {value}, but the tensor has {rank} dimensions")
        return value % rank

    def axes(self, values: Sequence[int], rank: int) -> tuple[int, ...]:
        """Dimension numbers made non-negative, ascending, without repetition."""
        found = sorted(self.axis(v, rank, "axes") for v in values)
        if len(set(found)) != len(found):
            self.fail(f"axes {tuple(values)} name a dimension twice")
        return tuple(found)

    # --- layers --------------------------------------------------------------------------

    def add_outputs(self, kind: str, params: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
        """All outputs of a new layer, or constants when all its inputs are constant."""
        name = self.scratch_name(f"{self.proto.output[0] if self.proto.output else ''}:{kind}")
        known = [t.values for t in inputs if t.values is not None]
        if len(known) == len(inputs):
            results = fold_layer(kind, params, known)
            tensors = [self.network.add_constant(a, self.scratch_name(name)) for a in results]
        else:
            layer = self.network.add_layer(kind, params, inputs, name, origin=self.where)
            tensors = list(layer.outputs)
        self.created += tensors
        return tensors

    def add(self, kind: str, params: Any, *inputs: Tensor) -> Tensor:
        """First output of a new layer, or a constant when all its inputs are constant."""
        return self.add_outputs(kind, params, inputs)[0]

    def check_size(self, shape: Sequence[int]) -> None:
        """Refuse a constant of this shape that would be larger than any file can hold."""
        check_constant_size(TensorType(tuple(shape), DataType.FLOAT32))

    def const(self, values: Any, dtype: DataType | None = None) -> Tensor:
        """A constant tensor, optionally converted to an element type."""
        array = np.asarray(values)
        if dtype is not None:
            with np.errstate(all="ignore"):
                array = array.astype(numpy_dtype(dtype))
        name = self.scratch_name(f"{self.proto.output[0] if self.proto.output else ''}:const")
        tensor = self.network.add_constant(array, name)
        self.created.append(tensor)
        return tensor

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """`x` in another shape; `x` itself when it has that shape."""
        wanted = tuple(int(d) for d in shape)
        return x if wanted == x.shape else self.add("reshape", ReshapeParams(wanted), x)

    def transpose(self, x: Tensor, permutation: Sequence[int]) -> Tensor:
        """`x` with out_dim[i] = in_dim[permutation[i]]."""
        order = tuple(int(p) for p in permutation)
        if order == tuple(range(len(order))):
            return x
        return self.add("transpose", TransposeParams(order), x)

    def slice(
        self, x: Tensor, starts: Sequence[int], sizes: Sequence[int], strides: Sequence[int]
    ) -> Tensor:
        """Part of `x`; `x` itself when that is everything."""
        if tuple(sizes) == x.shape and all(
            (start, step) == (0, 1) or size == 1
            for start, step, size in zip(starts, strides, sizes, strict=True)
        ):
            return x
        return self.add("slice", SliceParams(tuple(starts), tuple(sizes), tuple(strides)), x)

    def cast(self, x: Tensor, dtype: DataType) -> Tensor:
        """`x` in another element type; `x` itself when it has that type."""
        return x if x.dtype is dtype else self.add("cast", CastParams(dtype), x)

    def binary(self, op: str, a: Tensor, b: Tensor | float) -> Tensor:
        """An elementwise layer; a number takes the element type of `a`."""
        other = b if isinstance(b, Tensor) else self.const(b, a.dtype)
        return self.add("elementwise", ElementwiseParams(op), a, other)

    def unary(self, op: str, x: Tensor) -> Tensor:
        """A unary layer."""
        return self.add("unary", UnaryParams(op), x)

    def activation(
        self, function: str, x: Tensor, alpha: float | None = None, beta: float | None = None
    ) -> Tensor:
        """An activation layer."""
        return self.add("activation", ActivationParams(function, alpha, beta), x)

    def pointwise(self, expr: Expr, *inputs: Tensor, dtype: DataType | None = None) -> Tensor:
        """A layer of one scalar expression; result type is that of the first input by default."""
        return self.add("pointwise", PointwiseParams(expr, dtype), *inputs)

    def reduce(self, op: str, x: Tensor, axes: Sequence[int], *, keep_dims: bool = True) -> Tensor:
        """A reduction over non-negative axes."""
        return self.add("reduce", ReduceParams(op, tuple(axes), keep_dims), x)
