"""Which plugin an importer makes of which operator, and the file that states it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from builder_host.errors import BuilderError, PluginError
from builder_host.network.tensor_type import TensorType
from builder_host.plugins.plugin import Plugin, identity

Array = npt.NDArray[Any]

REGISTRY_NAME = "PLUGINS"


@dataclass(frozen=True, slots=True)
class PluginNode:
    """What a creator sees of one node of a model.

    Attributes:
        name: of the node or layer in the model.
        operation: ONNX operator, Caffe layer type or UFF operation.
        attributes: ONNX attributes; the fields of a Caffe layer, messages as nested mappings, e.g.
            `{"reorg_param": {"stride": 2}}`; UFF fields.
        inputs: shape and element type of each input that the model states.
        weights: arrays of a Caffe layer's blobs (none without a caffemodel); they become constant
            inputs behind the others. Empty elsewhere.
    """

    name: str
    operation: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[TensorType, ...] = ()
    weights: tuple[Array, ...] = ()


Creator = Callable[[PluginNode], Plugin]
_Creator = TypeVar("_Creator", bound=Creator)


class PluginRegistry:
    """Creators of plugins by importer and operator; asked before the built-in operators.

    A creator is any function (or class) that makes a Plugin of a PluginNode; the methods are
    decorators.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._creators: dict[tuple[str, str, str], Creator] = {}

    def onnx(self, domain: str, op_type: str) -> Callable[[_Creator], _Creator]:
        """For an ONNX operator; domain `""` is ai.onnx. Raises PluginError when it is taken.

        Args:
            domain: of the operator.
            op_type: its name.
        """
        return self._decorator("onnx", "" if domain == "ai.onnx" else domain, op_type)

    def caffe(self, layer_type: str) -> Callable[[_Creator], _Creator]:
        """For a Caffe layer type. Raises PluginError when it is taken.

        Args:
            layer_type: as the prototxt has it.
        """
        return self._decorator("caffe", "", layer_type)

    def uff(self, operation: str) -> Callable[[_Creator], _Creator]:
        """For a UFF operation, with its underscore. Raises PluginError when it is taken."""
        return self._decorator("uff", "", operation)

    def _decorator(self, kind: str, domain: str, name: str) -> Callable[[_Creator], _Creator]:
        def register(creator: _Creator) -> _Creator:
            key = (kind, domain, name)
            if key in self._creators:
                raise PluginError(f"two plugins are registered for {kind} operator '{name}'")
            self._creators[key] = creator
            return creator

        return register

    def find(self, kind: str, name: str, domain: str = "") -> Creator | None:
        """Creator for an operator of importer `onnx`, `caffe` or `uff`, or None.

        Args:
            kind: the importer.
            name: operator or layer type.
            domain: of an ONNX operator.
        """
        return self._creators.get((kind, domain, name))

    def merge(self, other: PluginRegistry) -> None:
        """Take over the creators of another registry. Raises PluginError for one that both have.

        Args:
            other: it stays as it is.
        """
        for (kind, domain, name), creator in other._creators.items():
            self._decorator(kind, domain, name)(creator)

    def __len__(self) -> int:
        """Number of registered operators."""
        return len(self._creators)


def created(creator: Creator, node: PluginNode) -> Plugin:
    """The plugin that a creator makes of a node. Raises PluginError when it does not."""
    where = f"plugin for '{node.operation}'"
    try:
        plugin = creator(node)
    except BuilderError:
        raise
    except KeyError as error:
        raise PluginError(
            f"{where}: the node has no {error}; its attributes are "
            f"{', '.join(sorted(map(str, node.attributes))) or 'none'}"
        ) from error
    except Exception as error:
        raise PluginError(f"{where}: {type(error).__name__}: {error}") from error
    if not isinstance(plugin, Plugin):
        raise PluginError(f"{where}: its creator made {type(plugin).__name__}, not a Plugin")
    identity(plugin)
    return plugin


def load_plugins(paths: Iterable[str | Path]) -> PluginRegistry:
    """Import plugin files (this runs their code, on the host only) and join their registries.

    Args:
        paths: Python files; each binds `PLUGINS` to a PluginRegistry.

    Raises:
        PluginError: a file is missing, fails, or has no registry.
    """
    joined = PluginRegistry()
    for number, path in enumerate(map(Path, paths)):
        if not path.is_file():
            raise PluginError(f"{path}: no such plugin file")
        name = f"edgeplan_plugins_{number}_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise PluginError(f"{path}: is no Python file; a plugin file ends in .py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise PluginError(f"{path}: {type(error).__name__}: {error}") from error
        registry = getattr(module, REGISTRY_NAME, None)
        if not isinstance(registry, PluginRegistry):
            raise PluginError(f"{path}: binds no {REGISTRY_NAME} = PluginRegistry()")
        joined.merge(registry)
    return joined


def float32_weights(arrays: Iterable[Array]) -> tuple[Array, ...]:
    """Arrays as constant inputs hold them."""
    return tuple(np.ascontiguousarray(array, dtype=np.float32) for array in arrays)
