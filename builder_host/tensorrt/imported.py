"""Models that parsers read: their networks, and their weights by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.errors import BuilderError
from builder_host.network.network import Network
from builder_host.plugins.registry import PluginRegistry
from builder_host.tensorrt.build_enums import WeightsRole

Array = npt.NDArray[Any]
Shapes = Mapping[str, tuple[int, ...]]
Place = tuple[str, WeightsRole]

_FILTERS = ("convolution", "deconvolution", "fully_connected")


class ImportedModel:
    """A parsed model; calling it gives its network.

    Attributes:
        replaced: weights by name that the next networks have in place of the model's.
    """

    def __init__(self, imported: Callable[[int | None, Shapes], Network]) -> None:
        """`imported` makes the network for a batch (None: its own) and shapes of inputs."""
        self._imported = imported
        self.replaced: Mapping[str, Array] = {}

    def __call__(self, batch: int | None, shapes: Shapes) -> Network:
        """The network.

        Args:
            batch: rows where the network leaves them out of its shapes, else None.
            shapes: by input name.

        Raises:
            BuilderError: the model cannot be imported.
        """
        network = self._imported(batch, shapes)
        for tensor in network.tensors():
            if tensor.values is not None and tensor.name in self.replaced:
                values = self.replaced[tensor.name]
                values.flags.writeable = False
                tensor.values = values
        return network

    def weights(self, network: Network) -> dict[str, Array]:
        """Floating-point constants of the model's network by name."""
        return {
            tensor.name: tensor.values
            for tensor in network.tensors()
            if tensor.values is not None and tensor.values.dtype.kind == "f"
        }


class ImportedOnnx(ImportedModel):
    """An ONNX model; its weights are its initialisers, also those that the import folds."""

    def __init__(
        self, source: str | bytes, folder: Path | None, plugins: PluginRegistry | None
    ) -> None:
        """See `import_onnx`."""
        super().__init__(self._network)
        self._source, self._folder, self._plugins = source, folder, plugins

    def weights(self, network: Network) -> dict[str, Array]:
        """Floating-point initialisers by name."""
        from builder_host.importers.onnx.model import read_model
        from builder_host.importers.onnx.weights import tensor_values

        del network
        _, model, own = read_model(self._source)
        folder = self._folder or own
        found = {
            tensor.name: tensor_values(tensor, folder, f"initialiser '{tensor.name}'")
            for tensor in model.graph.initializer
        }
        return {name: values for name, values in found.items() if values.dtype.kind == "f"}

    def _network(self, batch: int | None, shapes: Shapes) -> Network:
        from onnx import numpy_helper

        from builder_host.importers.onnx.model import import_onnx, read_model

        if batch is not None:
            raise BuilderError("ONNX models need a network with EXPLICIT_BATCH")
        source: Any = self._source
        folder = self._folder
        if self.replaced:
            _, source, own = read_model(self._source)
            folder = folder or own
            for tensor in source.graph.initializer:
                if tensor.name in self.replaced:
                    values = self.replaced[tensor.name]
                    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return import_onnx(source, shapes=shapes, plugins=self._plugins, folder=folder)


def weight_places(network: Network) -> dict[Place, str]:
    """Names of constants by layer and role."""
    found: dict[Place, str] = {}
    for layer in network.layers:
        if layer.kind in _FILTERS:
            roles = [WeightsRole.KERNEL, WeightsRole.BIAS]
        elif layer.kind == "scale":
            own = (
                (layer.params.has_shift, WeightsRole.SHIFT),
                (
                    layer.params.has_scale,
                    WeightsRole.SCALE,
                ),
            )
            roles = [role for is_there, role in own if is_there]
        else:
            continue
        for tensor, role in zip(layer.own_inputs[1:], roles, strict=False):
            if tensor.values is not None:
                found[layer.name, role] = tensor.name
    return found


def same_form(values: Any, like: Array, what: str) -> Array:
    """Weights in shape and element type of those that they replace.

    Raises:
        BuilderError: another number of elements, or of another kind.
    """
    array = np.asarray(values.numpy() if hasattr(values, "numpy") else values)
    if array.size != like.size:
        raise BuilderError(f"{what}: {array.size:,} weights given, the network has {like.size:,}")
    if not np.can_cast(array.dtype, like.dtype, "same_kind"):
        raise BuilderError(
            f"{what}: weights of {array.dtype} given, the network's are {like.dtype}"
        )
    return np.array(array, like.dtype).reshape(like.shape)
