"""What all layers of TensorRT's network API share: inputs, outputs, names, types, checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from builder_host.errors import NetworkError
from builder_host.network.network import Network, Tensor
from runtime_edge.tensorrt.types import DataType, checked_type

if TYPE_CHECKING:
    from builder_host.tensorrt.network import ITensor


_TYPES = ("precision", "to_type", "dtype", "indices_type")  # attributes that are element types


@dataclass(eq=False, kw_only=True)
class ILayer:
    """A layer: inputs, outputs, name, and the attributes of its kind.

    Attributes:
        inputs: tensors it reads; None where an optional one is left out.
        precision: what it computes in (`float32`, `float16`, `int8`); None: the build's choice.
        metadata: free text; nothing reads it.
        changes: grows with every attribute that is set.
    """

    changes: ClassVar[int] = 0
    obeys_output_type: ClassVar[bool] = False  # whether `emit` looks at `output_types`

    inputs: list[ITensor | None]
    name: str
    outputs: list[ITensor] = field(default_factory=list)
    precision: DataType | None = None
    metadata: str = ""
    output_types: dict[int, DataType] = field(default_factory=dict)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, and count that. Raises TypeError for what is no element type."""
        if name in _TYPES and value is not None:
            checked_type(value, f"{type(self).__name__}.{name}")
        object.__setattr__(self, name, value)
        self.count_change()

    def count_change(self) -> None:
        """Shapes that were computed before do not hold any more."""
        self.__dict__["changes"] = self.changes + 1

    @property
    def num_inputs(self) -> int:
        """Number of inputs."""
        return len(self.inputs)

    @property
    def num_outputs(self) -> int:
        """Number of outputs."""
        return len(self.outputs)

    def get_input(self, index: int) -> ITensor | None:
        """An input; None where an optional one is left out."""
        return self.inputs[index]

    def get_output(self, index: int) -> ITensor:
        """An output."""
        return self.outputs[index]

    def set_input(self, index: int, tensor: ITensor) -> None:
        """Replace an input, or give an optional one behind the last."""
        self.inputs += [None] * (index + 1 - len(self.inputs))
        self.inputs[index] = tensor
        self.count_change()

    @property
    def precision_is_set(self) -> bool:
        """Whether `precision` was given."""
        return self.precision is not None

    def reset_precision(self) -> None:
        """Leave the precision to the build."""
        self.precision = None

    def set_output_type(self, index: int, dtype: DataType) -> None:
        """The element type of an output: of a binding, or what an identity converts to.

        Tensors inside the network are stored as the build's precision says; HALF and FLOAT are the
        least that they have there. What cannot be obeyed is a warning of the build.
        """
        checked_type(dtype, f"'{self.name}': type of output {index}")
        self.output_types[index] = dtype
        self.count_change()

    def get_output_type(self, index: int) -> DataType:
        """The element type of an output."""
        return self.output_types.get(index) or self.outputs[index].dtype

    def output_type_is_set(self, index: int) -> bool:
        """Whether `set_output_type` was called for an output."""
        return index in self.output_types

    def reset_output_type(self, index: int) -> None:
        """Leave an output's type to the build."""
        self.output_types.pop(index, None)
        self.count_change()

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add the layer to a network.

        Args:
            net: receives it.
            xs: its inputs there; None where an optional one is left out.
            shift: 1 where axes and shapes leave out the batch, which the tensors have; else 0.

        Returns:
            Its outputs.

        Raises:
            NetworkError: the inputs break its rules.
        """
        raise NotImplementedError


def required(xs: list[Tensor | None], index: int, layer: ILayer) -> Tensor:
    """An input that must be there. Raises NetworkError."""
    tensor = xs[index] if index < len(xs) else None
    if tensor is None:
        raise NetworkError(f"'{layer.name}': input {index} is missing; give it with set_input")
    return tensor


def optional(xs: list[Tensor | None], index: int) -> Tensor | None:
    """An input that may be left out."""
    return xs[index] if index < len(xs) else None


def known_numbers(
    xs: list[Tensor | None], index: int, layer: ILayer, what: str
) -> list[float] | None:
    """Values of an optional input that must be known while building, flattened.

    Raises:
        NetworkError: they depend on the network's inputs.
    """
    tensor = optional(xs, index)
    if tensor is None:
        return None
    if tensor.values is None:
        raise NetworkError(
            f"'{layer.name}': {what} (input {index}, '{tensor.name}') depends on the network's "
            "inputs; a plan's shapes are fixed when it is built: give constants, or shapes of "
            "add_shape"
        )
    return [value.item() for value in tensor.values.ravel()]


def known_ints(
    xs: list[Tensor | None], index: int, layer: ILayer, what: str
) -> tuple[int, ...] | None:
    """As `known_numbers`, integers."""
    numbers = known_numbers(xs, index, layer, what)
    return None if numbers is None else tuple(int(number) for number in numbers)


def weights_of(weights: Any, layer: ILayer) -> Any:
    """Weights as an array. Raises NetworkError when there are none."""
    array = optional_weights(weights)
    if array is None:
        raise NetworkError(f"'{layer.name}': the weights are empty")
    return array


def optional_weights(weights: Any) -> Any:
    """An array, or None for None and empty weights."""
    if weights is None:
        return None
    array = np.asarray(weights.numpy() if hasattr(weights, "numpy") else weights)
    return array if array.size else None


def axes_of(mask: int) -> list[int]:
    """Axes of a bit mask."""
    return [axis for axis in range(mask.bit_length()) if mask >> axis & 1]


def single_axis(mask: int, layer: ILayer) -> int:
    """The one axis of a bit mask. Raises NetworkError."""
    axes = axes_of(mask)
    if len(axes) != 1:
        raise NetworkError(f"'{layer.name}': axes={mask:#b} names {len(axes)} axes; expected one")
    return axes[0]


def alias(name: str) -> Any:
    """A property that is another attribute under its old or new name."""

    def read(self: Any) -> Any:
        return getattr(self, name)

    def write(self: Any, value: Any) -> None:
        setattr(self, name, value)

    return property(read, write, doc=f"The same as `{name}`.")
