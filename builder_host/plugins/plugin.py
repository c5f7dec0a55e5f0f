"""What a plugin states about itself.

A plugin is a layer kind that the builder does not know. It lives on the host only: its kernels are
compiled into the plan, so that the board needs nothing of it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from builder_host.errors import PluginError
from builder_host.expressions import Expr
from builder_host.kernels.family import GridLaunch, Launch
from builder_host.layouts import Layout
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType, TensorFormat

Array = npt.NDArray[Any]
Attribute = bool | int | float | str | tuple[int, ...] | tuple[float, ...]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_ATTRIBUTES_BYTES = 3000  # they are written into the plan's provenance


@dataclass(frozen=True, slots=True)
class KernelRequest:
    """What kernels are wanted for.

    Attributes:
        device_kind: `cpu` (C source) or `cuda` (CUDA C++ source).
        target: CpuTarget or CudaTarget with the facts of the device.
        inputs, outputs: format, shape, element type and strides of every tensor.
        is_constant: for each input, whether it is a constant (dense and LINEAR).
        num_workers: threads that share a CPU kernel's units; results must not depend on it.
    """

    device_kind: Literal["cpu", "cuda"]
    target: Any
    inputs: tuple[Layout, ...]
    outputs: tuple[Layout, ...]
    is_constant: tuple[bool, ...]
    num_workers: int = 1


@dataclass(frozen=True, slots=True)
class PluginKernel:
    """One way to compute a plugin; of several the fastest on the target is taken.

    Attributes:
        name: of the tactic, e.g. `tiled_32`.
        source: C11 or CUDA C++. The headers of generated kernels and the macros of shapes, strides
            and attributes (macros.py) come before it. Launched functions have the ABI of built-in
            kernels; everything else should be static.
        launches: `Launch`es on the CPU, `GridLaunch`es on CUDA, in order, with a barrier between
            them; symbols as the source spells them.
        workspace_bytes: shared scratch, one more argument behind the outputs.
        estimate_us: rough time of one worker or of the GPU, for ranking; None: as long as it takes
            to move all tensors once.
    """

    name: str
    source: str
    launches: tuple[Launch | GridLaunch, ...]
    workspace_bytes: int = 0
    estimate_us: float | None = None


class Plugin(ABC):
    """A layer of your own. Make it a frozen dataclass: its fields are then its attributes.

    Attributes:
        name, version: of the layer type; both are written into the plan. Change the version when
            the meaning changes.
        formats: memory formats that the kernels take, beside LINEAR constants; tensors with other
            than four dimensions are always LINEAR.
        dtypes: floating-point types that the kernels take. With FLOAT16 the layer is narrowed in
            fp16 builds, without it casts are put around it.
        takes_strides: whether the kernels use the stride macros, so that they can read and write
            parts of larger tensors in place.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    formats: ClassVar[tuple[TensorFormat, ...]] = (TensorFormat.LINEAR,)
    dtypes: ClassVar[tuple[DataType, ...]] = (DataType.FLOAT32,)
    takes_strides: ClassVar[bool] = False

    @abstractmethod
    def output_types(self, inputs: Sequence[TensorType]) -> Sequence[TensorType]:
        """Shape and element type of each output; raise ValueError for inputs that do not fit."""

    def attributes(self) -> Mapping[str, Attribute]:
        """What configures this layer: written into the plan, and macros of its kernels."""
        if not dataclasses.is_dataclass(self):
            return {}
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def expression(self, num_inputs: int) -> Expr | None:
        """One output as a scalar expression of the inputs; it needs no kernels and fuses.

        Args:
            num_inputs: how many tensors the layer reads.
        """
        del num_inputs
        return None

    def kernels(self, request: KernelRequest) -> Sequence[PluginKernel]:
        """Kernels for a request, the expected best first; none: the device is not supported.

        Equal requests must give equal kernels.
        """
        del request
        return ()

    def reference(self, inputs: Sequence[Array]) -> Sequence[Array] | None:
        """Outputs in float64 (integers in int64), for checking plans; None: there is no reference.

        A network with a plugin that has none is built with `is_checked=False` (`--no-check`).

        Args:
            inputs: all of them, in float64 or int64.
        """
        del inputs
        return None

    def pack(self, kernel: str, constants: Sequence[Array | None]) -> Sequence[Array | None]:
        """Constant inputs as kernel `kernel` reads them; None stays None.

        Args:
            kernel: name of one of `kernels`.
            constants: the layer's inputs; None where one is computed.
        """
        del kernel
        return constants

    def supports(self, request: KernelRequest) -> bool:
        """Whether kernels can be asked for; by default what `formats`, `dtypes` .. say.

        Args:
            request: types, formats and device.
        """
        for number, layout in enumerate((*request.inputs, *request.outputs)):
            is_constant = number < len(request.inputs) and request.is_constant[number]
            if layout.dtype.is_float and layout.dtype not in self.dtypes:
                return False
            if is_constant:
                continue
            if len(layout.shape) == 4 and layout.format not in self.formats:
                return False
            if not self.takes_strides and not layout.is_dense:
                return False
        return True


def checked_attributes(plugin: Plugin) -> dict[str, Attribute]:
    """Attributes by name, sorted. Raises PluginError naming one that cannot be written down."""
    found: dict[str, Attribute] = {}
    for name, value in sorted(plugin.attributes().items()):
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise PluginError(f"plugin '{plugin.name}': attribute name {name!r} is no identifier")
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, list):
            value = tuple(value)
        items = value if isinstance(value, tuple) else (value,)
        allowed: tuple[type, ...] = (int, float) if isinstance(value, tuple) else (int, float, str)
        if not all(isinstance(item, allowed) for item in items):
            raise PluginError(
                f"plugin '{plugin.name}': attribute '{name}' is {value!r}; it must be a number, "
                "truth, text, or a tuple of numbers"
            )
        if any(isinstance(item, float) and not math.isfinite(item) for item in items):
            raise PluginError(f"plugin '{plugin.name}': attribute '{name}' is {value!r}")
        found[name] = value
    return found


def identity(plugin: Plugin) -> str:
    """Name, version and attributes as canonical text, e.g. `Reorg/1{"stride": 2}`.

    Raises:
        PluginError: no name or version, or attributes that cannot be written down.
    """
    name = getattr(plugin, "name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PluginError(
            f"plugin class {type(plugin).__name__}: name is {name!r}, must be an identifier"
        )
    if not isinstance(plugin.version, str) or not plugin.version or "/" in plugin.version:
        raise PluginError(f"plugin '{name}': version is {plugin.version!r}, must be text")
    text = json.dumps(checked_attributes(plugin), sort_keys=True, ensure_ascii=True)
    if len(text) > MAX_ATTRIBUTES_BYTES:
        raise PluginError(
            f"plugin '{name}': its attributes need {len(text)} bytes, the limit is "
            f"{MAX_ATTRIBUTES_BYTES}; give large values as constant inputs"
        )
    return f"{name}/{plugin.version}{text}"
